//! The credential of a request: an admin token or an API key, and where it comes from.

use std::fs;
use std::path::Path;

use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderName, HeaderValue};

use crate::args::cli::{Command, Global};
use crate::args::me::Me;
use crate::failure::Failure;

/// A token or key, and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) text: String,
    /// Name of the option or variable.
    pub(crate) source: &'static str,
}

/// How a request authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    None,
    /// An admin token.
    Token(Secret),
    /// An API key, for self-service.
    Key(Secret),
}

impl Credential {
    /// The header field that carries it.
    pub(crate) fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>, Failure> {
        let (name, value) = match self {
            Self::None => return Ok(None),
            Self::Token(token) => (AUTHORIZATION, format!("Bearer {}", token.text)),
            Self::Key(key) => (HeaderName::from_static("x-api-key"), key.text.clone()),
        };
        // The error must not contain the secret.
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Failure::Usage(
                "the token or key contains characters that a header field cannot have: check where it is set"
                    .to_owned(),
            )
        })?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    /// The credential and its source, for messages.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Token(token) => Some(format!("the token from {}", token.source)),
            Self::Key(key) => Some(format!("the key from {}", key.source)),
        }
    }
}

/// The credential that a command needs. `variable` reads the environment.
pub(crate) fn credential_of(
    command: &Command,
    global: &Global,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Credential, Failure> {
    match command {
        Command::Health => Ok(Credential::None),
        Command::Me(Me { key, key_file, .. }) => {
            secret(["--key", "--key-file", "TOLLGATE_KEY"], key.as_deref(), key_file.as_deref(), variable)?
                .map(Credential::Key)
                .ok_or_else(|| Failure::Usage("no API key: set TOLLGATE_KEY or pass --key-file FILE".to_owned()))
        }
        _ => {
            let (flag, file) = (global.token.as_deref(), global.token_file.as_deref());
            secret(["--token", "--token-file", "TOLLGATE_TOKEN"], flag, file, variable)?
                .map(Credential::Token)
                .ok_or_else(|| {
                    Failure::Usage("no admin token: set TOLLGATE_TOKEN or pass --token-file FILE".to_owned())
                })
        }
    }
}

/// Reads a secret from its file, its option or the environment, in this order. The first parameter
/// has the names of option, file option and variable.
fn secret(
    [of_flag, of_file, of_variable]: [&'static str; 3],
    flag: Option<&str>,
    file: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, Failure> {
    let from = |text: String, source| Secret { text, source };
    if let Some(path) = file {
        let text = fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))?;
        let text = text.trim();
        return if text.is_empty() {
            Err(Failure::Usage(format!("{} is empty: it must contain the token or key", path.display())))
        } else {
            Ok(Some(from(text.to_owned(), of_file)))
        };
    }
    let flag = flag.map(|text| from(text.to_owned(), of_flag));
    Ok(flag.or_else(|| variable(of_variable).map(|text| from(text, of_variable))))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::cli::Cli;

    use super::*;

    fn no_environment(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_secret_is_read_from_the_file_the_option_and_the_environment_in_turn() {
        let path = std::env::temp_dir().join(format!("tollgate-secret-{}", std::process::id()));
        fs::write(&path, "from-file\n").unwrap();
        let from = |flag, file, variable: Option<&'static str>| {
            secret(["--flag", "--file", "VARIABLE"], flag, file, &|_| variable.map(str::to_owned))
        };
        let is = |text: &str, source| Ok(Some(Secret { text: text.to_owned(), source }));
        assert_eq!(from(None, Some(path.as_path()), Some("v")), is("from-file", "--file"));
        assert_eq!(from(Some("f"), None, Some("v")), is("f", "--flag"));
        assert_eq!(from(None, None, Some("v")), is("v", "VARIABLE"));
        assert_eq!(from(None, None, None), Ok(None));
        fs::write(&path, " \n").unwrap();
        assert!(matches!(from(None, Some(path.as_path()), None), Err(Failure::Usage(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(from(None, Some(path.as_path()), None), Err(Failure::Usage(_))));
    }

    #[test]
    fn health_needs_no_credential_and_self_service_the_api_key() {
        let credential = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            credential_of(&cli.command, &cli.global, &no_environment)
        };
        assert_eq!(credential("tollgate health --token t"), Ok(Credential::None));
        let secret = |text: &str, source| Secret { text: text.to_owned(), source };
        assert_eq!(credential("tollgate me --key k --token t"), Ok(Credential::Key(secret("k", "--key"))));
        assert_eq!(credential("tollgate log --token t"), Ok(Credential::Token(secret("t", "--token"))));
        assert!(matches!(credential("tollgate me --token t"), Err(Failure::Usage(_))));
        assert!(matches!(credential("tollgate log"), Err(Failure::Usage(_))));
    }

    #[test]
    fn the_error_of_an_invalid_credential_does_not_contain_it() {
        let secret = Secret { text: "se\ncret".to_owned(), source: "--token" };
        let failure = Credential::Token(secret).header().unwrap_err();
        assert!(matches!(failure, Failure::Usage(message) if !message.contains("cret\"") && !message.contains("se\n")));
    }
}
