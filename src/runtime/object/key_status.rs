//! The status of a key, for whoever presents the key itself.

use crate::protocol::key_status::{KeyStatus, KeyStatusResponse, Me, StatusAndUsage, month_json};
use crate::protocol::object_response::KeyUsage;
use crate::protocol::usage::PolicyUsageBody;
use crate::runtime::error::Error;
use crate::runtime::http::HttpResult;
use crate::runtime::js;
use crate::runtime::object::key_object::{Memory, Shared};
use crate::time::{Month, UnixMicros, rfc3339};
use std::rc::Rc;

impl Shared {
    /// Answers [`ObjectRequest::KeyStatus`](crate::protocol::object_request::ObjectRequest::KeyStatus).
    pub(crate) async fn key_status(self: &Rc<Self>, id: &str, secret_hash: &str, is_found: bool) -> HttpResult {
        let now = self.prepare_for(id, is_found.then_some(secret_hash)).await?;
        let mut memory = self.memory.borrow_mut();
        let unknown = KeyStatusResponse::Unknown.to_text();
        let text = match &mut *memory {
            Memory { key_state: Some(key_state), profile: Some(profile), .. } if profile.accepts(secret_hash, now) => {
                profile.turn_to(key_state.effective_time(now));
                let usage = key_state.usage(profile.schedule(), now);
                let status = profile.status(now);
                let me = Me {
                    key_id: id.to_owned(),
                    tier: profile.row.tier.clone(),
                    status,
                    expires_at: profile.row.expires_at.map(|at| rfc3339(UnixMicros::from_millis(at))),
                    policies: profile
                        .policies
                        .iter()
                        .zip(&usage.policies)
                        .map(|(p, s)| PolicyUsageBody::new(p, s, now))
                        .collect(),
                };
                let usage = KeyUsage::new(&profile.row.tier, profile.schedule(), &usage);
                let me = serde_json::to_string(&me).map_err(Error::new)?;
                let month = month_json(&key_state.month(Month::of(now)), key_state.epoch());
                let key = StatusAndUsage { status, usage };
                KeyStatusResponse::Known(KeyStatus { key, me: &me, month: &month }).to_text()
            }
            Memory { key_state: Some(_), .. } => unknown,
            _ => return Err(Error::new("storage has not been read")),
        };
        Ok(js::response::reply(200, Some(&text), "")?.into())
    }
}
