//! The command itself, its global options, and the commands without a group of their own.
#![expect(clippy::doc_markdown, reason = "the help is plain text")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ureq::http::Uri;

use crate::args::keys::Keys;
use crate::args::lists::{Paging, Range};
use crate::args::me::Me;
use crate::args::policies::{Overrides, RouteCosts, Tiers, TokenRoutes};
use crate::args::reservations::Reservations;
use crate::args::tokens::Tokens;
use crate::args::usage::{Alerts, Usage};
use crate::args::values::{base_url, id};

/// Manage a running tollgate: keys, tiers, usage, alerts and audit.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, max_term_width = 110)]
#[command(after_help = "Set TOLLGATE_URL and TOLLGATE_TOKEN first. `tollgate COMMAND --help` describes a command.\n\n\
                  Exit codes:\n  \
                  0  success\n  \
                  1  the server refused the request (4xx), or lines of an import\n  \
                  2  the command line is wrong, a file cannot be read, or a confirmation was denied\n  \
                  3  the server was not reached or failed (5xx), or output could not be written")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// URL of the gate, such as https://api.example.com [env: TOLLGATE_URL]
    #[arg(long, global = true, value_parser = base_url)]
    pub(crate) url: Option<Uri>,
    /// Admin token [env: TOLLGATE_TOKEN]; other users of this machine can see the option, so prefer
    /// the variable
    #[arg(long, global = true, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// File that contains the admin token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print the server's JSON; of a list, each page on its own line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no headings and no notes, and only the secret of a new key or token
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Do not ask for confirmation
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Give up when the server sends nothing for this long
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, change, rotate, revoke and import API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Manage policies of single keys, which replace or extend those of their tier
    #[command(subcommand)]
    Overrides(Overrides),
    /// Manage tiers and their policies
    #[command(subcommand)]
    Tiers(Tiers),
    /// Manage the cost of calls, by path pattern and method
    #[command(subcommand)]
    RouteCosts(RouteCosts),
    /// Reserve tokens and requests of a key for use that does not pass the gate
    #[command(subcommand)]
    Reservations(Reservations),
    /// Manage the routes that spend tokens, by path pattern and method
    #[command(subcommand)]
    TokenRoutes(TokenRoutes),
    /// Show usage of a key: now, by hour, day or month
    #[command(subcommand)]
    Usage(Usage),
    /// Show a month's usage by tier and key, and the keys with the most calls
    Report {
        /// UTC month [default: the current one]
        #[arg(long, value_name = "YYYY-MM")]
        month: Option<String>,
        /// Print all keys as CSV
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// List keys that have used a given share of a month policy
    Alerts(Alerts),
    /// List the requests of a key, kept for the audit days of its tier
    Audit {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        paging: Paging,
    },
    /// Compare the counts of a key's Durable Object with D1
    Reconcile {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// List differences between objects and D1 that the hourly check of some keys found
    Drift {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show the admin log: each change, its time and its author
    Log {
        /// Only changes of this target: keys/ID, keys/ID/overrides/POLICY, tiers/NAME, tokens/ID,
        /// route-costs or token-routes
        #[arg(long)]
        target: Option<String>,
        /// Only changes by the token of this name; root is ADMIN_TOKEN
        #[arg(long)]
        actor: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Manage named admin tokens; requires ADMIN_TOKEN itself
    #[command(subcommand)]
    Tokens(Tokens),
    /// Show status and usage of an API key, authenticated by the key itself
    Me(Me),
    /// Check that the gate runs, and show its version
    Health,
    /// Print a completion script for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(hide_possible_values = true)]
        shell: Shell,
    },
}
