//! `tollgate me`: self-service.
#![expect(clippy::doc_markdown, reason = "the help is plain text")]

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Me {
    /// API key [env: TOLLGATE_KEY]; other users of this machine can see the option, so prefer the
    /// variable
    #[arg(long, global = true, conflicts_with = "key_file")]
    pub(crate) key: Option<String>,
    /// File that contains the API key
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) what: Option<MeCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MeCommand {
    /// Show usage by month and hour
    Usage,
}
