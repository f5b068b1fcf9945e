//! Why a command did not do what it was asked to, and the exit code that says so.

use std::io;
use std::path::Path;
use std::process::ExitCode;

/// What ended a command early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server refused (4xx): asking again changes nothing.
    Refused(String),
    /// The command cannot be carried out as it was given.
    Usage(String),
    /// The server was not reached, did not answer as a tollgate does, or failed (5xx); or a file could not be written.
    Broken(String),
    /// Whoever read the output has gone: nothing is wrong, and there is nobody to tell.
    OutputClosed,
}

impl Failure {
    /// What to say on stderr.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::Refused(message) | Self::Usage(message) | Self::Broken(message) => Some(message),
            Self::OutputClosed => None,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Refused(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Broken(_) => ExitCode::from(3),
        }
    }

    /// Standard output could not be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Broken(format!("cannot write to standard output: {error}"))
        }
    }

    /// A file that the command was given cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::Usage(format!("cannot read {}: {error}", path.display()))
    }
}
