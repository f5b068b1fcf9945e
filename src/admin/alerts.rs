//! Alerts as the admin API shows them. The Worker passes on the JSON that the SQL in
//! `src/runtime/store/alerts.rs` and `reports.rs` makes; its schemas are native only.

use serde::Deserialize;

/// `dead` is given up; `none` was raised while there was nobody to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "the document says it")]
pub enum DeliveryState {
    Pending,
    Delivered,
    Dead,
    None,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::None];

    /// The word of D1 and of the API.
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

/// A key that has used a share of a month policy that holds for it now.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, utoipa::ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
#[schema(as = Alert)]
pub struct AlertView {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    pub name: String,
    pub owner: String,
    pub tier: String,
    pub policy: String,
    pub unit: crate::limiter::policy::Unit,
    pub quota: u64,
    pub used: u64,
    /// `used` by `quota`; `null` where the quota is 0.
    #[schema(required = true)]
    pub share: Option<f64>,
    /// The share that was asked for.
    pub threshold: f64,
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    /// When the share was reached, if an alert was raised at this threshold, else when D1 last heard of the key.
    #[schema(format = DateTime)]
    pub at: String,
}

/// An alert that was raised, and what became of telling it.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, utoipa::ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
#[schema(as = Delivery)]
pub struct DeliveryView {
    #[schema(pattern = "^[a-z2-7]{16}$")]
    pub key_id: String,
    pub policy: String,
    /// A share of the quota: 0.8 is 80 %.
    pub threshold: f64,
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub month: String,
    pub quota: u64,
    /// At that moment.
    pub used: u64,
    #[schema(format = DateTime)]
    pub at: String,
    #[schema(inline)]
    pub state: DeliveryState,
    pub attempts: u32,
    /// `null` if there is none to come.
    #[schema(required = true, format = DateTime)]
    pub next_attempt_at: Option<String>,
    /// Why the last attempt failed.
    #[schema(required = true)]
    pub last_error: Option<String>,
}
