//! The line protocol between the Worker and the objects of keys.
//!
//! A request is a URL and a response one header value. Both are lines of text, so that neither side
//! reads a body or builds a map for a message of a hundred bytes. During a deployment, new Workers
//! talk to old objects and the other way round for seconds to minutes. So each line has a version,
//! receivers ignore unknown parameters, and new parameters must be optional.

pub mod fan_out;
pub mod held_call;
pub mod hold_request;
pub mod key_status;
pub mod object_request;
pub mod object_response;
pub mod reservation;
pub mod usage;
