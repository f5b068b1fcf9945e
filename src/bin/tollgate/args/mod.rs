//! The command line: its arguments, a file for each group of commands, and their validation. The
//! doc comments of arguments are the help texts.

pub(crate) mod cli;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod me;
pub(crate) mod policies;
pub(crate) mod reservations;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
pub(crate) mod usage;
pub(crate) mod values;
