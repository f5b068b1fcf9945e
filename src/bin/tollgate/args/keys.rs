//! `tollgate keys`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::Value;

use crate::args::lists::Paging;
use crate::args::values::{grace, id, object};

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// List keys, oldest first
    List {
        /// Only keys of this tier
        #[arg(long)]
        tier: Option<String>,
        /// Only keys with this status: active, disabled, revoked or expired
        #[arg(long, value_parser = PossibleValuesParser::new(["active", "disabled", "revoked", "expired"]), hide_possible_values = true)]
        status: Option<String>,
        /// Only keys of exactly this owner
        #[arg(long)]
        owner: Option<String>,
        /// Only keys whose name contains this text, in either case
        #[arg(long = "search", value_name = "TEXT")]
        q: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a key
    Show {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Create a key, which is printed only now
    Create {
        /// Tier of the key
        #[arg(long)]
        tier: String,
        /// Display name
        #[arg(long)]
        name: String,
        /// Owner of the key in your own terms, such as a customer id
        #[arg(long)]
        owner: Option<String>,
        /// JSON object to store with the key
        #[arg(long, value_name = "JSON", value_parser = object)]
        metadata: Option<Value>,
        /// Time from which the key is refused, RFC 3339 [default: never]
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Change a key: only the given fields
    Update(Update),
    /// Disable a key: its calls are refused until it is enabled again
    Disable {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Enable a disabled key
    Enable {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Give a key a new secret, which is printed only now; its counters are kept
    Rotate {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        /// How long the old secret stays valid: seconds, or with a unit as in 30m, 12h, 7d; at most
        /// 30d, 0 ends it at once
        #[arg(long, value_name = "TIME", value_parser = grace)]
        grace: u64,
    },
    /// Revoke a key for ever; its usage is kept
    Revoke {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Delete a key and its overrides; its usage is kept
    Delete {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Import keys that were issued elsewhere
    Import(Import),
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
#[command(override_usage = "tollgate keys update <ID> <OPTIONS>...")]
pub(crate) struct Update {
    /// Id of the key
    #[arg(value_parser = id())]
    pub(crate) id: String,
    /// New display name
    #[arg(long, group = "change")]
    pub(crate) name: Option<String>,
    /// New owner
    #[arg(long, group = "change")]
    pub(crate) owner: Option<String>,
    /// New JSON object, which replaces the present one
    #[arg(long, value_name = "JSON", value_parser = object, group = "change")]
    pub(crate) metadata: Option<Value>,
    /// New tier; usage carries over
    #[arg(long, group = "change")]
    pub(crate) tier: Option<String>,
    /// Time from which the key is refused, RFC 3339
    #[arg(long, value_name = "TIME", group = "change")]
    pub(crate) expires_at: Option<String>,
    /// The key does not expire
    #[arg(long, conflicts_with = "expires_at", group = "change")]
    pub(crate) no_expiry: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Each line of the input is a JSON object such as {\"key\":\"…\",\"tier\":\"free\",\"name\":\"…\"}. For each line, \
                  {\"line\":1,\"id\":\"…\"} or {\"line\":2,\"error\":\"…\"} is written. Lines are numbered from 1. Results \
                  do not contain keys."
)]
pub(crate) struct Import {
    /// NDJSON file; - for standard input
    #[arg(default_value = "-")]
    pub(crate) input: PathBuf,
    /// File for the results [default: standard output]. Must not exist, unless --resume is given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Continue an import of the same input: skip lines with an id in the output file, and append
    /// to it
    #[arg(long, requires = "output")]
    pub(crate) resume: bool,
    /// Most lines in one request
    #[arg(long, value_name = "LINES", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
}
