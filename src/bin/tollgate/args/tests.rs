//! Whole command lines.

use clap::{CommandFactory as _, Parser as _};
use ureq::http::Uri;

use crate::args::cli::{Cli, Command};
use crate::args::policies::{SetTier, Tiers};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("tollgate").chain(line.split(' ')))
}

#[test]
fn the_definition_is_valid() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_may_be_anywhere() {
    for line in
        ["--url https://x --json keys list", "keys --json list --url https://x", "keys list --json --url https://x"]
    {
        let cli = parse(line).unwrap();
        assert!(cli.global.json && cli.global.url == Some(Uri::from_static("https://x")), "{line}");
    }
}

#[test]
fn an_invalid_command_line_is_refused() {
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
        "token-routes set /x --format openai --default-output 1",
        "token-routes set /x --default-output 1 --max-output 2",
        "token-routes delete",
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
fn a_tier_from_options_is_complete() {
    let cli = parse("tiers set x --description d --audit-days 7 --policy minute=1/minute --policy day=2/day").unwrap();
    assert!(matches!(cli.command, Command::Tiers(Tiers::Set(SetTier { policy, .. })) if policy.len() == 2));
    assert!(parse("tiers set x --description d --audit-days 0 --unlimited").is_ok());
    assert!(parse("tiers set x --file -").is_ok());
}

#[test]
fn self_service_has_its_own_options() {
    for line in ["me", "me usage --key k", "me --key k usage"] {
        assert!(parse(line).is_ok(), "{line}");
    }
}
