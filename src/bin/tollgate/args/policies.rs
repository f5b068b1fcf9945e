//! `tollgate tiers`, `tollgate overrides`, `tollgate route-costs` and `tollgate token-routes`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::args::values::{id, policy};

const PERIODS: [&str; 4] = ["minute", "hour", "day", "month"];
const ALGORITHMS: [&str; 3] = ["fixed", "sliding", "bucket"];
const UNITS: [&str; 2] = ["requests", "tokens"];

#[derive(Debug, Subcommand)]
pub(crate) enum Tiers {
    /// List tiers
    List,
    /// Show a tier
    Show {
        /// Name of the tier
        #[arg(value_parser = id())]
        name: String,
    },
    /// Create or replace a tier; a change applies to all keys of the tier
    Set(SetTier),
    /// Delete a tier that no key has
    Delete {
        /// Name of the tier
        #[arg(value_parser = id())]
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(override_usage = "tollgate tiers set <NAME> --description <TEXT> --audit-days <DAYS> \
                            <--policy <POLICY>...|--unlimited>\n       tollgate tiers set <NAME> --file <FILE>")]
#[command(after_help = "A policy is NAME=QUOTA/PERIOD[,ALGORITHM][,burst=UNITS][,unit=UNIT]:\n  \
                        minute=10/minute                  at most 10 in each minute of the UTC clock\n  \
                        minute=10/minute,sliding          at most 10 in any 60 seconds\n  \
                        minute=10/minute,bucket,burst=20  10 evenly per minute, up to 20 at once\n  \
                        month=1000/month                  at most 1000 in each UTC calendar month\n\
                        PERIOD is minute, hour, day or month; UNIT is requests or tokens.")]
pub(crate) struct SetTier {
    /// Name of the tier
    #[arg(value_parser = id())]
    pub(crate) name: String,
    /// JSON file with the whole tier, as printed by `tiers show --json`; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["description", "audit_days", "idempotency", "policy", "unlimited"])]
    pub(crate) file: Option<PathBuf>,
    /// Description for people
    #[arg(long, value_name = "TEXT", required_unless_present = "file")]
    pub(crate) description: Option<String>,
    /// Days for which the audit log keeps the requests of its keys; 0 for no audit log
    #[arg(long, value_name = "DAYS", required_unless_present = "file")]
    pub(crate) audit_days: Option<u32>,
    /// Whether Idempotency-Key marks repeats of a call [default: on]
    #[arg(long, value_name = "ON|OFF", value_parser = ["on", "off"], hide_possible_values = true)]
    pub(crate) idempotency: Option<String>,
    /// A policy, such as minute=10/minute; repeatable
    #[arg(long, value_parser = policy, required_unless_present_any = ["file", "unlimited"])]
    pub(crate) policy: Vec<Value>,
    /// No policies
    #[arg(long, conflicts_with = "policy")]
    pub(crate) unlimited: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Overrides {
    /// List the overrides of a key
    List {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Replace a policy of the tier for one key, or add a policy
    Set {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        /// Name of the policy
        #[arg(value_parser = id())]
        policy: String,
        /// Units per period
        #[arg(long, value_name = "UNITS")]
        quota: u64,
        /// minute, hour, day or month
        #[arg(long, value_parser = PossibleValuesParser::new(PERIODS), hide_possible_values = true)]
        period: String,
        /// fixed, sliding or bucket [default: fixed]
        #[arg(long, value_parser = PossibleValuesParser::new(ALGORITHMS), hide_possible_values = true)]
        algorithm: Option<String>,
        /// Units that may be spent at once, only for bucket [default: the quota]
        #[arg(long, value_name = "UNITS")]
        burst: Option<u64>,
        /// What the quota counts, requests or tokens [default: requests]
        #[arg(long, value_parser = PossibleValuesParser::new(UNITS), hide_possible_values = true)]
        unit: Option<String>,
        /// Time from which the override applies, RFC 3339 [default: at once]
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Time from which the override no longer applies, RFC 3339 [default: never]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Delete an override: the tier's policy of that name, if any, applies again
    Delete {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        /// Name of the policy
        #[arg(value_parser = id())]
        policy: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCosts {
    /// List route costs
    List,
    /// Set the cost of calls that match a pattern and method; takes effect within 60 seconds
    Set {
        /// Path whose segments are literal, * (one segment) or ** (any number), such as
        /// '/v1/*/export'
        #[arg(value_parser = id())]
        pattern: String,
        /// Requests that a matching call is charged, 1 to 10000
        #[arg(long, value_name = "REQUESTS")]
        cost: u64,
        /// Method in upper case [default: all methods]
        #[arg(long)]
        method: Option<String>,
        /// Let the origin's response lower the cost with X-Tollgate-Cost
        #[arg(long)]
        reprice: bool,
    },
    /// Delete a route cost; takes effect within 60 seconds
    Delete {
        /// Pattern of the row, as listed
        #[arg(value_parser = id())]
        pattern: String,
        /// Method of the row [default: the row for all methods]
        #[arg(long)]
        method: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenRoutes {
    /// List the routes that spend tokens
    List,
    /// Make calls that match a pattern and method spend tokens; takes effect within 60 seconds
    Set(SetTokenRoute),
    /// Delete a token route; takes effect within 60 seconds
    Delete {
        /// Pattern of the row, as listed
        #[arg(value_parser = id())]
        pattern: String,
        /// Method of the row [default: the row for all methods]
        #[arg(long)]
        method: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetTokenRoute {
    /// Path whose segments are literal, * (one segment) or ** (any number), such as
    /// '/v1/chat/completions'
    #[arg(value_parser = id())]
    pub(crate) pattern: String,
    /// Where the response reports the tokens used: header, openai, anthropic or gemini
    #[arg(long)]
    pub(crate) format: String,
    /// Tokens of output held for a request without a cap
    #[arg(long, value_name = "TOKENS")]
    pub(crate) default_output: u64,
    /// Tokens of output held at most
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_output: u64,
    /// Bytes of the body held as one token of input: 1 is a bound for text, more is an estimate
    /// [default: 1]
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes_per_token: Option<u64>,
    /// Tokens of input held at least, for input that the body only names
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_input: Option<u64>,
    /// Method in upper case [default: all methods]
    #[arg(long)]
    pub(crate) method: Option<String>,
}
