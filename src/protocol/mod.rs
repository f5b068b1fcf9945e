//! What the Worker and a key's object say to each other.
//!
//! A question is a URL and an answer one header value: both are lines of text, so that neither side reads a body or builds
//! a map for a message of a hundred bytes. A new Worker may talk to an old object, and the other way round, for seconds to
//! minutes of a deployment: so each line has a version, unknown parameters are ignored, and new ones must be optional.

mod answer;
mod holding;
mod push;
mod question;
mod usage;

pub use answer::{Answer, Extent, Known, Outcome, Pass, PolicyStanding};
pub use holding::{Holding, Me, month_json};
pub use push::{Relay, Relayed};
pub use question::{AuditPage, Call, Check, Debt, Ends, Passed, Question};
pub use usage::{PolicyUsage, Usage};
