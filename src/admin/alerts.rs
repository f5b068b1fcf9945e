//! Schemas of alerts. Native only, except [`DeliveryState`]: the SQL in
//! `src/runtime/store/alerts.rs` and `reports.rs` builds the JSON.

use serde::Deserialize;

/// State of the webhook delivery. `pending`: an attempt is to come. `delivered`: the receiver
/// accepted it. `dead`: given up. `none`: no webhook was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "the description of the type explains them")]
pub enum DeliveryState {
    Pending,
    Delivered,
    Dead,
    None,
}

impl DeliveryState {
    #[expect(missing_docs, reason = "the name says it")]
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::None];

    /// The word in D1 and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::None => "none",
        }
    }
}

/// A key that has used at least `threshold` of the quota of one of its current month policies.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, utoipa::ToSchema)]
#[expect(missing_docs, reason = "the names say the rest")]
#[schema(as = Alert)]
pub struct AlertView {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    pub name: String,
    pub owner: String,
    pub tier: String,
    /// Name of the month policy.
    pub policy: String,
    pub unit: crate::limiter::policy::Unit,
    /// Units per month.
    pub quota: u64,
    /// Units used this month.
    pub used: u64,
    /// `used` divided by `quota`: 0.8 is 80 %. `null` if the quota is 0.
    #[schema(required = true)]
    pub share: Option<f64>,
    /// The requested share of the quota.
    pub threshold: f64,
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// Time at which the threshold was reached, if an alert was raised for it; otherwise the time
    /// of the key's last flush to D1.
    #[schema(format = DateTime)]
    pub at: String,
}

/// A raised alert and the state of its webhook delivery.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, utoipa::ToSchema)]
#[expect(missing_docs, reason = "the names say the rest")]
#[schema(as = Delivery)]
pub struct DeliveryView {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    pub policy: String,
    /// Share of the quota at which the alert was raised: 0.8 is 80 %.
    pub threshold: f64,
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub unit: crate::limiter::policy::Unit,
    /// Units per month.
    pub quota: u64,
    /// Units used when the alert was raised.
    pub used: u64,
    /// Time at which the alert was raised.
    #[schema(format = DateTime)]
    pub at: String,
    #[schema(inline)]
    pub state: DeliveryState,
    /// Delivery attempts made so far.
    pub attempts: u32,
    /// Time of the next attempt; `null` if there is none.
    #[schema(required = true, format = DateTime)]
    pub next_attempt_at: Option<String>,
    /// Why the last attempt failed; `null` if none has failed.
    #[schema(required = true)]
    pub last_error: Option<String>,
}
