//! What the Worker and a key's object say to each other.
//!
//! A question is a URL and an answer one header value: both are lines of text, so that neither side reads a body or builds
//! a map for a message of a hundred bytes. A new Worker may talk to an old object, and the other way round, for seconds to
//! minutes of a deployment: so each line has a version, unknown parameters are ignored, and new ones must be optional.

pub mod fan_out;
pub mod key_status;
pub mod object_request;
pub mod object_response;
pub mod usage;
