//! What can be said on the command line. The doc comments are the help.
#![expect(clippy::doc_markdown, reason = "the help is plain text")]

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;
use serde_json::{Map, Value, json};
use ureq::http::Uri;

const PERIODS: [&str; 4] = ["minute", "hour", "day", "month"];
const ALGORITHMS: [&str; 3] = ["fixed", "sliding", "bucket"];
const UNITS: [&str; 2] = ["requests", "tokens"];
/// The contract's longest grace period: 30 days.
const LONGEST_GRACE: u64 = 30 * 86_400;

fn id() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

/// The operator's side of tollgate: keys, tiers, usage, alerts and audit of a running gate.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 the server refused (4xx); 2 the command line is wrong, or the answer to a \
                        question was no; 3 the server was not reached or failed, or a file could not be written."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the gate is, such as https://api.example.com
    #[arg(long, global = true, env = "TOLLGATE_URL", hide_env_values = true, value_parser = base_url)]
    pub(crate) url: Option<Uri>,
    /// The admin token; better in TOLLGATE_TOKEN or a file, since other users of this machine can see flags
    #[arg(long, global = true, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file that holds the admin token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print the server's JSON; lists as one document for each page, each on its own line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No headings and no notes; a new secret alone on its line
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Do not ask before what cannot be taken back
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// How long the server may be silent
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// API keys: issue, change, rotate, end, import
    #[command(subcommand)]
    Keys(Keys),
    /// Policies of one key that replace or join those of its tier
    #[command(subcommand)]
    Overrides(Overrides),
    /// Tiers and their policies
    #[command(subcommand)]
    Tiers(Tiers),
    /// What calls cost
    #[command(subcommand)]
    RouteCosts(RouteCosts),
    /// What a key has used
    #[command(subcommand)]
    Usage(Usage),
    /// A month's keys and calls by tier, and its largest consumers
    Report {
        /// The month; the current one if not given
        #[arg(long, value_name = "YYYY-MM")]
        month: Option<String>,
        /// As CSV
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Keys at or over a part of a month policy
    Alerts(Alerts),
    /// What happened to each request of a key
    Audit {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        paging: Paging,
    },
    /// Compare what a key's object has counted with what D1 has
    Reconcile {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Differences that the hourly comparison of some keys with D1 has found
    Drift {
        #[command(flatten)]
        paging: Paging,
    },
    /// The admin log: who changed what, and when
    Log {
        /// Only changes of this thing: keys/ID, keys/ID/overrides/POLICY, tiers/NAME, tokens/ID or route-costs
        #[arg(long)]
        target: Option<String>,
        /// Only changes made with the token of this name
        #[arg(long)]
        actor: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Named admin tokens; only ADMIN_TOKEN itself may manage them
    #[command(subcommand)]
    Tokens(Tokens),
    /// What the holder of a key sees, asked for with that key
    Me(Me),
    /// Is the gate up, and which version is it?
    Health,
    /// Print a script that completes commands and options in a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(hide_possible_values = true)]
        shell: Shell,
    },
}

/// How much of a list to print.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub(crate) struct Paging {
    /// Print at most so many entries [default: the server's page, 50]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Print all entries
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Go on where an earlier list ended
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

/// A range of time. The moments go to the server as they are given.
#[derive(Debug, Args)]
pub(crate) struct Range {
    /// From this moment on, RFC 3339, such as 2026-11-20T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Until this moment, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// List keys
    List {
        /// Only keys of this tier
        #[arg(long)]
        tier: Option<String>,
        /// Only keys that are active, disabled, revoked or expired
        #[arg(long, value_parser = PossibleValuesParser::new(["active", "disabled", "revoked", "expired"]), hide_possible_values = true)]
        status: Option<String>,
        /// Only keys of this owner
        #[arg(long)]
        owner: Option<String>,
        /// Only keys whose name has this in it
        #[arg(long = "search", value_name = "TEXT")]
        q: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a key
    Show {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Issue a key, which is printed this once
    Create {
        /// Its tier
        #[arg(long)]
        tier: String,
        /// Its name
        #[arg(long)]
        name: String,
        /// Who it belongs to
        #[arg(long)]
        owner: Option<String>,
        /// A JSON object to keep with it
        #[arg(long, value_name = "JSON", value_parser = object)]
        metadata: Option<Value>,
        /// When it expires, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Change a key
    Update(Update),
    /// Refuse a key's requests until it is enabled again
    Disable {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Admit a disabled key again
    Enable {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Give a key a new secret, which is printed this once; its counters stay
    Rotate {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        /// How long the old secret stays valid: seconds, or with a unit as in 30m, 12h, 7d; 0 ends it at once
        #[arg(long, value_name = "TIME", value_parser = grace)]
        grace: u64,
    },
    /// End a key for ever; its usage stays
    Revoke {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Delete a key and its overrides; its usage stays
    Delete {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Import keys that were issued elsewhere
    Import(Import),
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Update {
    /// The key's id
    #[arg(value_parser = id())]
    pub(crate) id: String,
    /// A new name
    #[arg(long, group = "change")]
    pub(crate) name: Option<String>,
    /// A new owner
    #[arg(long, group = "change")]
    pub(crate) owner: Option<String>,
    /// Another JSON object to keep with it, in place of the present one
    #[arg(long, value_name = "JSON", value_parser = object, group = "change")]
    pub(crate) metadata: Option<Value>,
    /// Another tier; what was used stays used
    #[arg(long, group = "change")]
    pub(crate) tier: Option<String>,
    /// When it expires, RFC 3339
    #[arg(long, value_name = "TIME", group = "change")]
    pub(crate) expires_at: Option<String>,
    /// It does not expire
    #[arg(long, conflicts_with = "expires_at", group = "change")]
    pub(crate) no_expiry: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Each line of the input is a JSON object such as {\"key\":\"…\",\"tier\":\"free\",\"name\":\"…\"}. For each, a line \
                        {\"line\":1,\"id\":\"…\"} or {\"line\":2,\"error\":\"…\"} is written; lines count from 1. Results hold no keys."
)]
pub(crate) struct Import {
    /// The NDJSON file, or - for standard input
    #[arg(default_value = "-")]
    pub(crate) input: PathBuf,
    /// Where the results go; standard output if not given. The file must not exist, unless with --resume
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Skip the lines of the same input that the output file has an id for, and append to it
    #[arg(long, requires = "output")]
    pub(crate) resume: bool,
    /// Lines in one request
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Overrides {
    /// List a key's overrides
    List {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Replace a policy of the tier for one key, or add one
    Set {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        /// The policy's name
        #[arg(value_parser = id())]
        policy: String,
        /// Units in each period
        #[arg(long)]
        quota: u64,
        /// minute, hour, day or month
        #[arg(long, value_parser = PossibleValuesParser::new(PERIODS), hide_possible_values = true)]
        period: String,
        /// fixed, sliding or bucket
        #[arg(long, value_parser = PossibleValuesParser::new(ALGORITHMS), hide_possible_values = true)]
        algorithm: Option<String>,
        /// Units at once, for a bucket
        #[arg(long)]
        burst: Option<u64>,
        /// What it counts, if not requests
        #[arg(long, value_parser = PossibleValuesParser::new(UNITS), hide_possible_values = true)]
        unit: Option<String>,
        /// In force from this moment on, RFC 3339
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// In force until this moment, RFC 3339
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Go back to what the tier says
    Delete {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        /// The policy's name
        #[arg(value_parser = id())]
        policy: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tiers {
    /// List tiers
    List,
    /// Show a tier
    Show {
        /// The tier's name
        #[arg(value_parser = id())]
        name: String,
    },
    /// Create a tier, or replace all of it
    Set(SetTier),
    /// Delete a tier that no key has
    Delete {
        /// The tier's name
        #[arg(value_parser = id())]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCosts {
    /// List what calls cost
    List,
    /// Set what calls cost that match a pattern and method; in force within 60 seconds
    Set {
        /// A path of which each segment is literal or *, such as '/v1/*/export'
        #[arg(value_parser = id())]
        pattern: String,
        /// Requests that a call counts as
        #[arg(long)]
        cost: u64,
        /// The method that it is for; all of them if not given
        #[arg(long)]
        method: Option<String>,
    },
    /// Delete a cost
    Delete {
        /// Its pattern
        #[arg(value_parser = id())]
        pattern: String,
        /// Its method, if it has one
        #[arg(long)]
        method: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Alerts {
    /// The part, such as 0.8
    #[arg(long)]
    pub(crate) threshold: Option<f64>,
    #[command(flatten)]
    pub(crate) paging: Paging,
    #[command(subcommand)]
    pub(crate) what: Option<AlertsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// Alerts that were raised, newest first, and whether the webhook has taken them
    Deliveries {
        /// Only those that are pending, delivered, dead (given up) or none (there was no webhook)
        #[arg(long, value_parser = PossibleValuesParser::new(["pending", "delivered", "dead", "none"]), hide_possible_values = true)]
        state: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetTier {
    /// The tier's name
    #[arg(value_parser = id())]
    pub(crate) name: String,
    /// A JSON file with all of it, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["description", "audit_days", "idempotency", "policy", "unlimited"])]
    pub(crate) file: Option<PathBuf>,
    /// Its description
    #[arg(long, required_unless_present = "file")]
    pub(crate) description: Option<String>,
    /// For how many days the audit of its keys is kept; 0 keeps none
    #[arg(long, value_name = "DAYS", required_unless_present = "file")]
    pub(crate) audit_days: Option<u32>,
    /// Whether calls are recognised by their Idempotency-Key [default: on]
    #[arg(long, value_name = "ON|OFF", value_parser = ["on", "off"], hide_possible_values = true)]
    pub(crate) idempotency: Option<String>,
    /// A policy, NAME=QUOTA/PERIOD[,ALGORITHM][,burst=UNITS][,unit=UNIT], such as minute=10/minute,bucket,burst=20; repeatable
    #[arg(long, value_parser = policy, required_unless_present_any = ["file", "unlimited"])]
    pub(crate) policy: Vec<Value>,
    /// The tier has no policies
    #[arg(long, conflicts_with = "policy")]
    pub(crate) unlimited: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Usage {
    /// Where a key stands with each of its policies now
    Show {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
    },
    /// Usage by hour and route class
    Hours {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        paging: Paging,
    },
    /// Usage by day and route class
    Days {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        paging: Paging,
    },
    /// Usage by month, with growth, average and trend
    History {
        /// The key's id
        #[arg(value_parser = id())]
        id: String,
        /// How many months [default: the server's, 12]
        #[arg(long)]
        months: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List tokens
    List,
    /// Issue a token, which is printed this once
    Create {
        /// Its name, which the admin log will show
        name: String,
        /// What it may do: read, or write (which includes read); repeatable
        #[arg(long = "scope", required = true, value_parser = PossibleValuesParser::new(["read", "write"]), hide_possible_values = true)]
        scopes: Vec<String>,
    },
    /// End a token
    Delete {
        /// The token's id
        #[arg(value_parser = id())]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Me {
    /// The key; better in TOLLGATE_KEY or a file, since other users of this machine can see flags
    #[arg(long, global = true, conflicts_with = "key_file")]
    pub(crate) key: Option<String>,
    /// A file that holds the key
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) what: Option<MeCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MeCommand {
    /// Months and hours of usage
    Usage,
}

fn base_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err("must begin with http:// or https:// and a host".to_owned());
    }
    if url.query().is_some() || url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must have neither a user nor a query".to_owned());
    }
    Ok(url)
}

fn object(text: &str) -> Result<Value, String> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|_| "must be a JSON object".to_owned())?;
    Ok(object.into())
}

/// Seconds, or a number with one of the units s, m, h, d.
fn grace(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.chars().next_back()),
        None => (text, None),
    };
    let seconds = match unit {
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 1,
    };
    let number: u64 = number.parse().map_err(|_| "must be seconds, or as 30m, 12h, 7d".to_owned())?;
    number.checked_mul(seconds).filter(|&grace| grace <= LONGEST_GRACE).ok_or_else(|| "must be at most 30d".to_owned())
}

/// `NAME=QUOTA/PERIOD[,ALGORITHM][,burst=UNITS][,unit=UNIT]`. What the words may be is the server's to say.
fn policy(text: &str) -> Result<Value, String> {
    let shape = || "must be NAME=QUOTA/PERIOD[,ALGORITHM][,burst=UNITS][,unit=UNIT]".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(shape)?;
    let mut parts = rest.split(',');
    let (quota, period) = parts.next().and_then(|limit| limit.split_once('/')).ok_or_else(shape)?;
    let whole = |number: &str| number.parse::<u64>().map_err(|_| format!("`{number}` is not a whole number"));
    let mut policy = Map::new();
    let mut set = |field: &str, value: Value| match policy.insert(field.to_owned(), value) {
        Some(_) => Err(format!("{field} is given twice")),
        None => Ok(()),
    };
    set("policy", name.into())?;
    set("quota", whole(quota)?.into())?;
    set("period", period.into())?;
    for part in parts {
        match part.split_once('=') {
            None => set("algorithm", part.into())?,
            Some(("burst", units)) => set("burst", whole(units)?.into())?,
            Some(("unit", unit)) => set("unit", unit.into())?,
            Some((other, _)) => return Err(format!("there is no `{other}` in a policy")),
        }
    }
    // The parts that have a default on the server are spelled out, so that one reads what is sent.
    policy.entry("algorithm").or_insert_with(|| json!("fixed"));
    policy.entry("unit").or_insert_with(|| json!("requests"));
    Ok(policy.into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tollgate").chain(line.split(' ')))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        for line in
            ["--url https://x --json keys list", "keys --json list --url https://x", "keys list --json --url https://x"]
        {
            let cli = parse(line).unwrap();
            assert!(cli.global.json && cli.global.url == Some(Uri::from_static("https://x")), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "keys",
            "keys show",
            "keys update k",
            "keys update k --expires-at x --no-expiry",
            "keys create --tier free",
            "keys create --tier free --name x --metadata 3",
            "keys rotate k",
            "keys rotate k --grace 31d",
            "keys rotate k --grace soon",
            "keys list --limit 0",
            "keys list --limit 5 --all",
            "keys list --status asleep",
            "keys import --resume",
            "keys import --batch 10001",
            "overrides set k minute --quota 5",
            "overrides set k minute --quota 5 --period week",
            "tiers set x",
            "tiers set x --description d --policy minute=1/minute",
            "tiers set x --description d --audit-days 0",
            "tiers set x --description d --audit-days 0 --unlimited --idempotency maybe",
            "tiers set x --file f --idempotency off",
            "tiers set x --description d --audit-days 0 --unlimited --policy minute=1/minute",
            "tiers set x --file f --unlimited",
            "tiers delete",
            "route-costs set /x",
            "route-costs set /x --cost -1",
            "route-costs delete",
            "alerts deliveries --state lost",
            "usage days",
            "completions",
            "completions tcsh",
            "tokens create ci",
            "tokens create ci --scope admin",
            "report --csv --json",
            "health --url ftp://x",
            "health --url x",
            "health --url https://user@x",
            "health --token a --token-file b",
            "me --key a --key-file b",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }

    #[test]
    fn grace_periods_have_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("30m", 1_800), ("12h", 43_200), ("30d", 2_592_000)]
        {
            assert_eq!(grace(text), Ok(seconds), "{text}");
        }
        for text in ["", "d", "-1", "1.5h", "1w", "721h", "99999999999999999999d", "999999999999999999d"] {
            assert!(grace(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_policy_is_said_in_one_word() {
        assert_eq!(
            policy("minute=10/minute,bucket,burst=20"),
            Ok(
                json!({"policy": "minute", "quota": 10, "period": "minute", "algorithm": "bucket", "burst": 20, "unit": "requests"})
            )
        );
        assert_eq!(
            policy("t=5/month,unit=tokens"),
            Ok(json!({"policy": "t", "quota": 5, "period": "month", "algorithm": "fixed", "unit": "tokens"}))
        );
        for text in
            ["minute", "minute=10", "minute=x/minute", "m=1/day,fixed,bucket", "m=1/day,burst=x", "m=1/day,size=2"]
        {
            assert!(policy(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tier_from_flags_is_whole() {
        let cli =
            parse("tiers set x --description d --audit-days 7 --policy minute=1/minute --policy day=2/day").unwrap();
        assert!(matches!(cli.command, Command::Tiers(Tiers::Set(SetTier { policy, .. })) if policy.len() == 2));
        assert!(parse("tiers set x --description d --audit-days 0 --unlimited").is_ok());
        assert!(parse("tiers set x --file -").is_ok());
    }

    #[test]
    fn the_holder_has_options_of_their_own() {
        for line in ["me", "me usage --key k", "me --key k usage"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
