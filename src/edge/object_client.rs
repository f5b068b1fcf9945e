//! Asking a key's object: the only caller of the namespace.

use super::arrears;
use super::deployment::Deployment;
use super::js::{self, Fault};
use crate::protocol::{Answer, Call, Check, Question};
use wasm_bindgen_futures::JsFuture;

/// Asks whether a call may pass. A question whose answer was lost is asked once more under the same nonce, which the object
/// counts once; an overloaded object is not asked again.
pub(crate) async fn check(deployment: &Deployment, call: Call<'_>) -> Result<Answer, Fault> {
    let debt = arrears::due(call.id, deployment.nonce());
    let mut check = Check { call, nonce: deployment.nonce(), is_repeat: false, debt };
    let mut line = ask(deployment, &check).await?;
    if is_lost(&line) {
        check.is_repeat = true;
        line = ask(deployment, &check).await?;
    }
    if let Some(failure) = line.strip_prefix('!') {
        return Err(Fault::new(format!("the object of key {} did not answer: {}", call.id, failure.trim_start())));
    }
    let answer =
        Answer::parse(&line).ok_or_else(|| Fault::new(format!("the object of key {} answered `{line}`", call.id)))?;
    if let (Some(debt), Answer::Known(_)) = (debt, &answer) {
        arrears::settle(call.id, debt);
    }
    Ok(answer)
}

async fn ask(deployment: &Deployment, check: &Check<'_>) -> Result<String, Fault> {
    let url = Question::Check(check.clone()).to_url();
    let line = JsFuture::from(js::ask(&deployment.objects, check.call.id, &url)?).await?;
    line.as_string().ok_or_else(|| Fault::new("an answer that is no text"))
}

/// Whether a failure says that the connection broke: it does not say whether the question had arrived.
fn is_lost(line: &str) -> bool {
    let flags = line.strip_prefix('!').and_then(|failure| failure.split(' ').next()).unwrap_or_default();
    flags.contains('r') && !flags.contains('o')
}

/// Asks for a key's usage, as JSON.
pub(crate) async fn usage(deployment: &Deployment, id: &str) -> Result<String, Fault> {
    let url = Question::Usage { id }.to_url();
    let text = JsFuture::from(js::ask_text(&deployment.objects, id, &url)).await?;
    text.as_string().ok_or_else(|| Fault::new("an answer that is no text"))
}
