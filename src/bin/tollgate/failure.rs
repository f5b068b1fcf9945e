//! Why a command failed, and its exit code.

use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The reason and the message of a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server refused the request (4xx): repeating it does not help.
    Refused(String),
    /// The command line or an input file is wrong, or a confirmation was denied.
    Usage(String),
    /// The server was not reached, is not a tollgate, or failed (5xx); or output could not be
    /// written.
    Broken(String),
    /// The reader of standard output closed it, as `head` does: no error.
    OutputClosed,
}

impl Failure {
    /// The message for stderr.
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

    /// A failure to write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Broken(format!("cannot write to standard output: {error}"))
        }
    }

    /// A failure to read an input file.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::Usage(format!("cannot read {}: {error}", path.display()))
    }
}
