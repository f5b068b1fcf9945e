//! `tollgate tokens`.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;

use crate::args::values::id;

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List tokens
    List,
    /// Create a token, which is printed only now
    Create {
        /// Unique name, shown in the admin log
        name: String,
        /// What the token may do: read, or write (includes read); repeatable
        #[arg(long = "scope", required = true, value_parser = PossibleValuesParser::new(["read", "write"]), hide_possible_values = true)]
        scopes: Vec<String>,
    },
    /// Delete a token: its requests are refused at once
    Delete {
        /// Id of the token, from `tokens list`
        #[arg(value_parser = id())]
        id: String,
    },
}
