//! Sends requests, retries reads, and turns error responses into messages.

use std::fmt::Write as _;
use std::io::{self, BufReader, Read as _, Write as _};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body, BodyReader};

use crate::cells::one_line;
use crate::credential::Credential;
use crate::endpoint::Endpoint;
use crate::failure::Failure;

const CONNECT_SECONDS: u64 = 10;
/// The most retries of a GET.
const RETRIES: u32 = 3;
/// The longest `Retry-After` to wait for, in seconds. A longer one is reported to the user.
const LONGEST_WAIT: u64 = 60;
/// The largest response, in bytes. A page of tollgate has at most 500 entries of a few kB.
const ANSWER_LIMIT: u64 = 64 << 20;

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const CSV: &str = "text/csv";

/// A client of one server.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    credential: Option<(HeaderName, HeaderValue)>,
    /// The name of the credential in the message of a 401.
    credential_name: Option<String>,
    quiet: bool,
}

impl Client {
    /// `timeout` is the longest time without data from the server, in seconds.
    pub(crate) fn new(base: &Uri, credential: &Credential, timeout: u64, quiet: bool) -> Result<Self, Failure> {
        let silence = Some(Duration::from_secs(timeout));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // tollgate never redirects, and the credential must reach no other server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS)))
            .timeout_per_read(silence)
            .timeout_per_write(silence)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let credential_name = credential.name();
        let credential = credential.header()?;
        if credential.is_some() && is_exposed(base) && !quiet {
            let _ = writeln!(
                io::stderr(),
                "tollgate: warning: {base} is not https, so others on the network can read the token or key"
            );
        }
        let base = base.to_string().trim_end_matches('/').to_owned();
        Ok(Self { agent, base, credential, credential_name, quiet })
    }

    /// Sends a GET and returns the body. Retries after 429 and 503 with a short `Retry-After`.
    pub(crate) fn get(&self, endpoint: &Endpoint, accept: &str) -> Result<String, Failure> {
        let mut retries = RETRIES;
        loop {
            let response = self.request(&Method::GET, endpoint, accept, None)?;
            match wait_before_retry(&response) {
                Some(wait) if retries > 0 => {
                    retries -= 1;
                    if !self.quiet {
                        let status = response.status().as_u16();
                        let _ = writeln!(io::stderr(), "tollgate: {status}, trying again in {wait} s");
                    }
                    thread::sleep(Duration::from_secs(wait));
                }
                _ => return read_text(self.accepted(response)?),
            }
        }
    }

    /// Sends a change and returns the body of the response. Never retries: a change without a
    /// response may have been made, and the user must check.
    pub(crate) fn change(&self, method: &Method, endpoint: &Endpoint, body: Option<&Value>) -> Result<String, Failure> {
        let body = body.map(|json| (JSON, json.to_string().into_bytes()));
        let body = body.as_ref().map(|(kind, bytes)| (*kind, bytes.as_slice()));
        read_text(self.accepted(self.request(method, endpoint, JSON, body)?)?)
    }

    /// Sends an NDJSON body and returns the response to be read line by line; `None` for 413.
    pub(crate) fn stream(
        &self,
        endpoint: &Endpoint,
        ndjson: &[u8],
    ) -> Result<Option<BufReader<BodyReader<'static>>>, Failure> {
        let response = self.request(&Method::POST, endpoint, NDJSON, Some((NDJSON, ndjson)))?;
        if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Ok(None);
        }
        let body = self.accepted(response)?.into_body();
        Ok(Some(BufReader::new(body.into_with_config().limit(ANSWER_LIMIT).reader())))
    }

    fn request(
        &self,
        method: &Method,
        endpoint: &Endpoint,
        accept: &str,
        body: Option<(&str, &[u8])>,
    ) -> Result<Response<Body>, Failure> {
        let mut request =
            Request::builder().method(method).uri(format!("{}{endpoint}", self.base)).header(ACCEPT, accept);
        if let Some((name, value)) = &self.credential {
            request = request.header(name, value);
        }
        let sent = match body {
            Some((kind, bytes)) => {
                request.header(CONTENT_TYPE, kind).body(bytes).map(|request| self.agent.run(request))
            }
            None => request.body(()).map(|request| self.agent.run(request)),
        };
        let answer =
            sent.map_err(|error| Failure::Usage(format!("cannot build the request for {endpoint}: {error}")))?;
        answer.map_err(|error| {
            Failure::Broken(format!(
                "no response from {}: {error}: check that the gate runs and --url is right",
                self.base
            ))
        })
    }

    /// The response, if its status is 2xx.
    fn accepted(&self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            let to = response.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("another address");
            return Err(Failure::Broken(format!(
                "the server redirects to {to}, which tollgate never does: check --url"
            )));
        }
        let wait = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()).map(str::to_owned);
        let mut message = refusal(status, &read_text(response).unwrap_or_default(), wait.as_deref());
        if let (StatusCode::UNAUTHORIZED, Some(name)) = (status, &self.credential_name) {
            // An older server or a proxy may only ask for a credential.
            let refused = if message.contains("refused") { "" } else { " was refused" };
            let _ = write!(message, " ({name}{refused})");
        }
        Err(if status.is_client_error() { Failure::Refused(message) } else { Failure::Broken(message) })
    }
}

/// Whether requests to this URL leave the machine without encryption.
fn is_exposed(base: &Uri) -> bool {
    let host = base.host().unwrap_or_default();
    base.scheme_str() == Some("http") && !matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// The seconds to wait before a retry; `None` if the server does not announce a retry or the wait
/// is too long.
fn wait_before_retry(response: &Response<Body>) -> Option<u64> {
    if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (seconds <= LONGEST_WAIT).then_some(seconds)
}

fn read_text(response: Response<Body>) -> Result<String, Failure> {
    let mut text = String::new();
    let mut reader = response.into_body().into_with_config().limit(ANSWER_LIMIT).reader();
    reader.read_to_string(&mut text).map_err(|error| Failure::Broken(format!("the response was cut off: {error}")))?;
    Ok(text)
}

/// An error response (RFC 9457) as one line: status, field, detail.
fn refusal(status: StatusCode, body: &str, retry_after: Option<&str>) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(said) = text("detail").or_else(|| text("title")) else {
        let reason = status.canonical_reason().unwrap_or("no reason given");
        return format!("{} {reason}, but not from a tollgate: check --url", status.as_u16());
    };
    let mut line = format!("{} ", status.as_u16());
    if let Some(field) = text("field").filter(|field| !said.starts_with(field)) {
        let _ = write!(line, "{field}: ");
    }
    line.push_str(said);
    if let Some(wait) = retry_after.filter(|wait| !said.contains(&format!("{wait} s"))) {
        let _ = write!(line, " (try again in {wait} s)");
    }
    one_line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_one_line() {
        let line = |status, body: &str, wait| refusal(StatusCode::from_u16(status).unwrap(), body, wait);
        assert_eq!(
            line(
                422,
                r#"{"title":"Unprocessable Content","detail":"tier: there is no tier `x`","field":"tier"}"#,
                None
            ),
            "422 tier: there is no tier `x`"
        );
        assert_eq!(line(422, r#"{"detail":"must be\nshort","field":"name"}"#, None), "422 name: must be\\nshort");
        assert_eq!(line(403, r#"{"title":"Forbidden"}"#, None), "403 Forbidden");
        assert_eq!(line(503, r#"{"detail":"busy"}"#, Some("7")), "503 busy (try again in 7 s)");
        assert_eq!(line(429, r#"{"detail":"try again in 7 s"}"#, Some("7")), "429 try again in 7 s");
        assert_eq!(line(404, "<html>", None), "404 Not Found, but not from a tollgate: check --url");
    }

    #[test]
    fn a_credential_is_exposed_only_over_http_to_other_machines() {
        for (url, exposed) in [
            ("http://api.example.com", true),
            ("https://api.example.com", false),
            ("http://127.0.0.1:8787", false),
            ("http://localhost:8787", false),
            ("http://[::1]:8787", false),
        ] {
            assert_eq!(is_exposed(&url.parse().unwrap()), exposed, "{url}");
        }
    }
}
