//! Runs commands: the request of each, and how its response is printed.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::Path;

use clap::CommandFactory as _;
use serde_json::{Map, Value, json};
use ureq::http::{Method, Uri};

use crate::args::cli::{Cli, Command};
use crate::args::keys::{Keys, Update};
use crate::args::lists::{Paging, Range};
use crate::args::me::{Me, MeCommand};
use crate::args::policies::{Overrides, RouteCosts, SetTier, SetTokenRoute, Tiers, TokenRoutes};
use crate::args::reservations::{Named, Reservations};
use crate::args::tokens::Tokens;
use crate::args::usage::{Alerts, AlertsCommand, Usage};
use crate::args::values::base_url;
use crate::client::{CSV, Client, JSON};
use crate::credential::credential_of;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::import;
use crate::output::{Document, Output};
use crate::view::Table;

/// The largest page that the server accepts.
const LARGEST_PAGE: u32 = 500;

/// Runs a command. `variable` reads the environment.
pub(crate) fn run(cli: Cli, variable: &dyn Fn(&str) -> Option<String>, to: &mut dyn Write) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    if let Command::Completions { shell } = command {
        // Into memory first, because `generate` panics if it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
        return to.write_all(&script).and_then(|()| to.flush()).map_err(|error| Failure::output(&error));
    }
    let credential = credential_of(&command, &global, variable)?;
    let url = url_of(global.url, variable)?;
    let mut session = Session {
        client: Client::new(&url, &credential, global.timeout, global.quiet)?,
        out: Output::new(to, global.json, global.quiet),
        ask: !global.yes && io::stdin().is_terminal(),
    };
    session.run(command)?;
    session.out.flush()
}

/// The URL of the gate, from the option or the environment.
fn url_of(option: Option<Uri>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Uri, Failure> {
    if let Some(url) = option {
        return Ok(url);
    }
    let missing = || Failure::Usage("no URL of the gate: set TOLLGATE_URL or pass --url https://…".to_owned());
    let text = variable("TOLLGATE_URL").ok_or_else(missing)?;
    base_url(&text).map_err(|reason| Failure::Usage(format!("TOLLGATE_URL: {reason}")))
}

/// How much of a list is still to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Everything,
    /// One page of the server's default size.
    OnePage,
    AtMost(u32),
}

impl Extent {
    fn after(self, rows: usize) -> Self {
        match self {
            Self::Everything => Self::Everything,
            Self::OnePage => Self::AtMost(0),
            Self::AtMost(left) => Self::AtMost(left.saturating_sub(u32::try_from(rows).unwrap_or(u32::MAX))),
        }
    }
}

struct Session<'a> {
    client: Client,
    out: Output<'a>,
    /// Whether to ask for confirmation: stdin is a terminal and --yes is not given.
    ask: bool,
}

impl Session<'_> {
    fn run(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Keys(keys) => self.keys(keys),
            Command::Overrides(overrides) => self.overrides(overrides),
            Command::Tiers(tiers) => self.tiers(tiers),
            Command::RouteCosts(costs) => self.route_costs(costs),
            Command::Reservations(reservations) => self.reservations(reservations),
            Command::TokenRoutes(routes) => self.token_routes(routes),
            Command::Usage(usage) => self.usage(usage),
            Command::Report { month, csv } => {
                let endpoint = Endpoint::new(&["report"]).with("month", month);
                if csv {
                    let text = self.client.get(&endpoint, CSV)?;
                    return self.out.raw(&text);
                }
                let document = self.show(&endpoint)?;
                if document.str("next_cursor").is_some() {
                    self.out.note("the report has more keys: use --csv for all of them");
                }
                Ok(())
            }
            Command::Alerts(alerts) => self.alerts(alerts),
            Command::Audit { id, range, paging } => {
                let endpoint = Endpoint::new(&["keys", &id, "audit"]).with("from", range.from).with("to", range.to);
                self.list(endpoint, "entries", paging, &[])
            }
            Command::Reconcile { id } => self.show(&Endpoint::new(&["keys", &id, "reconcile"])).map(drop),
            Command::Drift { paging } => self.list(Endpoint::new(&["drift"]), "drift", paging, &[]),
            Command::Log { target, actor, paging } => {
                self.list(Endpoint::new(&["log"]).with("target", target).with("actor", actor), "entries", paging, &[])
            }
            Command::Tokens(tokens) => self.tokens(tokens),
            Command::Me(Me { what: None, .. }) => self.show(&Endpoint::new(&["me"])).map(drop),
            Command::Me(Me { what: Some(MeCommand::Usage), .. }) => {
                self.show(&Endpoint::new(&["me", "usage"])).map(drop)
            }
            Command::Health => self.show(&Endpoint::new(&["health"])).map(drop),
            // Handled in `run`, because it needs no gate.
            Command::Completions { .. } => Ok(()),
        }
    }

    fn keys(&mut self, keys: Keys) -> Result<(), Failure> {
        match keys {
            Keys::List { tier, status, owner, q, paging } => {
                let endpoint = Endpoint::new(&["keys"]).with("tier", tier).with("status", status);
                self.list(endpoint.with("owner", owner).with("q", q), "keys", paging, &["metadata"])
            }
            Keys::Show { id } => self.show(&Endpoint::new(&["keys", &id])).map(drop),
            Keys::Create { tier, name, owner, metadata, expires_at } => {
                let body = fields([
                    ("tier", Some(tier.into())),
                    ("name", Some(name.into())),
                    ("owner", owner.map(Value::from)),
                    ("metadata", metadata),
                    ("expires_at", expires_at.map(Value::from)),
                ]);
                self.issue(&Endpoint::new(&["keys"]), &body, "key")
            }
            Keys::Update(update) => self.patch(&update.id.clone(), &changes(update)),
            Keys::Disable { id } => self.patch(&id, &json!({"status": "disabled"})),
            Keys::Enable { id } => self.patch(&id, &json!({"status": "active"})),
            Keys::Rotate { id, grace } => {
                if grace == 0 {
                    self.confirm(&format!("The present secret of key {id} will be refused at once. Rotate the key?"))?;
                }
                self.issue(&Endpoint::new(&["keys", &id, "rotate"]), &json!({"grace_seconds": grace}), "key")
            }
            Keys::Revoke { id } => {
                self.confirm(&format!("Key {id} will be refused for ever. Revoke it?"))?;
                self.change(&Method::POST, &Endpoint::new(&["keys", &id, "revoke"]), None)
            }
            Keys::Delete { id } => {
                self.confirm(&format!("Key {id} and its overrides cannot be restored. Delete them?"))?;
                self.delete(&Endpoint::new(&["keys", &id]))
            }
            Keys::Import(arguments) => import::run(&arguments, &self.client, &mut self.out),
        }
    }

    fn overrides(&mut self, overrides: Overrides) -> Result<(), Failure> {
        match overrides {
            Overrides::List { id } => self.whole_list(&Endpoint::new(&["keys", &id, "overrides"]), "overrides"),
            Overrides::Set { id, policy, quota, period, algorithm, burst, unit, from, until } => {
                let body = fields([
                    ("quota", Some(quota.into())),
                    ("period", Some(period.into())),
                    ("algorithm", algorithm.map(Value::from)),
                    ("burst", burst.map(Value::from)),
                    ("unit", unit.map(Value::from)),
                    ("from", from.map(Value::from)),
                    ("until", until.map(Value::from)),
                ]);
                self.change(&Method::PUT, &Endpoint::new(&["keys", &id, "overrides", &policy]), Some(&body))
            }
            Overrides::Delete { id, policy } => {
                self.confirm(&format!(
                    "The tier's policy `{policy}`, if any, will apply to key {id} again. Delete the override?"
                ))?;
                self.delete(&Endpoint::new(&["keys", &id, "overrides", &policy]))
            }
        }
    }

    fn tiers(&mut self, tiers: Tiers) -> Result<(), Failure> {
        match tiers {
            Tiers::List => self.whole_list(&Endpoint::new(&["tiers"]), "tiers"),
            Tiers::Show { name } => self.show(&Endpoint::new(&["tiers", &name])).map(drop),
            Tiers::Set(set) => {
                let endpoint = Endpoint::new(&["tiers", &set.name]);
                let body = tier(set)?;
                self.change(&Method::PUT, &endpoint, Some(&body))
            }
            Tiers::Delete { name } => {
                self.confirm(&format!("Tier {name} and its policies cannot be restored. Delete them?"))?;
                self.delete(&Endpoint::new(&["tiers", &name]))
            }
        }
    }

    fn route_costs(&mut self, costs: RouteCosts) -> Result<(), Failure> {
        let endpoint = Endpoint::new(&["route-costs"]);
        match costs {
            RouteCosts::List => self.whole_list(&endpoint, "route_costs"),
            RouteCosts::Set { pattern, cost, method, reprice } => {
                let body = fields([
                    ("pattern", Some(pattern.into())),
                    ("method", method.map(Value::from)),
                    ("cost", Some(cost.into())),
                    ("reprice", reprice.then(|| true.into())),
                ]);
                self.change(&Method::PUT, &endpoint, Some(&body))
            }
            RouteCosts::Delete { pattern, method } => {
                let route = format!("{} {pattern}", method.as_deref().unwrap_or("*"));
                self.confirm(&format!(
                    "Calls of {route} will cost 1, or what another matching pattern says. Delete the cost?"
                ))?;
                self.delete(&endpoint.with("pattern", Some(pattern)).with("method", method))
            }
        }
    }

    fn reservations(&mut self, reservations: Reservations) -> Result<(), Failure> {
        match reservations {
            Reservations::Create { key, tokens, requests, ttl } => {
                let body = fields([
                    ("tokens", Some(tokens.into())),
                    ("requests", requests.map(Value::from)),
                    ("ttl_seconds", ttl.map(Value::from)),
                ]);
                self.change(&Method::POST, &Endpoint::new(&["keys", &key, "reservations"]), Some(&body))
            }
            Reservations::List { key } => {
                self.whole_list(&Endpoint::new(&["keys", &key, "reservations"]), "reservations")
            }
            Reservations::Settle { reservation: Named { key, reservation }, tokens, requests } => {
                let body = fields([("tokens", Some(tokens.into())), ("requests", requests.map(Value::from))]);
                let endpoint = Endpoint::new(&["keys", &key, "reservations", &reservation, "settle"]);
                self.change(&Method::POST, &endpoint, Some(&body))
            }
            Reservations::Release { reservation: Named { key, reservation } } => {
                let endpoint = Endpoint::new(&["keys", &key, "reservations", &reservation]);
                self.client.change(&Method::DELETE, &endpoint, None)?;
                self.out.note("closed");
                Ok(())
            }
        }
    }

    fn token_routes(&mut self, routes: TokenRoutes) -> Result<(), Failure> {
        let endpoint = Endpoint::new(&["token-routes"]);
        match routes {
            TokenRoutes::List => self.whole_list(&endpoint, "token_routes"),
            TokenRoutes::Set(row) => {
                let SetTokenRoute { pattern, format, default_output, max_output, bytes_per_token, max_input, method } =
                    row;
                let body = fields([
                    ("pattern", Some(pattern.into())),
                    ("method", method.map(Value::from)),
                    ("format", Some(format.into())),
                    ("default_output", Some(default_output.into())),
                    ("max_output", Some(max_output.into())),
                    ("bytes_per_token", bytes_per_token.map(Value::from)),
                    ("max_input", max_input.map(Value::from)),
                ]);
                self.change(&Method::PUT, &endpoint, Some(&body))
            }
            TokenRoutes::Delete { pattern, method } => {
                let route = format!("{} {pattern}", method.as_deref().unwrap_or("*"));
                self.confirm(&format!(
                    "Calls of {route} will spend no tokens, or what another matching pattern says. Delete the row?"
                ))?;
                self.delete(&endpoint.with("pattern", Some(pattern)).with("method", method))
            }
        }
    }

    fn alerts(&mut self, alerts: Alerts) -> Result<(), Failure> {
        let Alerts { threshold, paging, what } = alerts;
        match what {
            None => self.list(Endpoint::new(&["alerts"]).with("threshold", threshold), "alerts", paging, &[]),
            Some(_) if threshold.is_some() || paging != Paging::default() => Err(Failure::Usage(
                "the options of `alerts deliveries` must come after it, and --threshold is not one of them".to_owned(),
            )),
            Some(AlertsCommand::Deliveries { state, paging }) => {
                let endpoint = Endpoint::new(&["alerts", "deliveries"]).with("state", state);
                self.list(endpoint, "deliveries", paging, &[])
            }
        }
    }

    fn usage(&mut self, usage: Usage) -> Result<(), Failure> {
        match usage {
            Usage::Show { id } => self.show(&Endpoint::new(&["keys", &id, "usage"])).map(drop),
            Usage::Hours { id, range, paging } => self.parts(&id, "hours", range, paging),
            Usage::Days { id, range, paging } => self.parts(&id, "days", range, paging),
            Usage::History { id, months } => {
                self.show(&Endpoint::new(&["keys", &id, "history"]).with("months", months)).map(drop)
            }
        }
    }

    /// Lists a key's usage by `part`: hours or days.
    fn parts(&mut self, id: &str, part: &'static str, range: Range, paging: Paging) -> Result<(), Failure> {
        let endpoint = Endpoint::new(&["keys", id, part]).with("from", range.from).with("to", range.to);
        self.list(endpoint, part, paging, &[])
    }

    fn tokens(&mut self, tokens: Tokens) -> Result<(), Failure> {
        match tokens {
            Tokens::List => self.whole_list(&Endpoint::new(&["tokens"]), "tokens"),
            Tokens::Create { name, scopes } => {
                self.issue(&Endpoint::new(&["tokens"]), &json!({"name": name, "scopes": scopes}), "token")
            }
            Tokens::Delete { id } => {
                self.confirm(&format!("Requests with token {id} will be refused at once. Delete it?"))?;
                self.delete(&Endpoint::new(&["tokens", &id]))
            }
        }
    }

    /// Gets and prints one object.
    fn show(&mut self, endpoint: &Endpoint) -> Result<Document, Failure> {
        let document = Document::parse(self.client.get(endpoint, JSON)?)?;
        self.out.document(&document)?;
        Ok(document)
    }

    /// Makes a change and prints the response.
    fn change(&mut self, method: &Method, endpoint: &Endpoint, body: Option<&Value>) -> Result<(), Failure> {
        let document = Document::parse(self.client.change(method, endpoint, body)?)?;
        self.out.document(&document)
    }

    fn patch(&mut self, id: &str, body: &Value) -> Result<(), Failure> {
        self.change(&Method::PATCH, &Endpoint::new(&["keys", id]), Some(body))
    }

    fn delete(&mut self, endpoint: &Endpoint) -> Result<(), Failure> {
        self.client.change(&Method::DELETE, endpoint, None)?;
        self.out.note("deleted");
        Ok(())
    }

    /// Makes a change whose response contains a new secret.
    fn issue(&mut self, endpoint: &Endpoint, body: &Value, field: &str) -> Result<(), Failure> {
        let document = Document::parse(self.client.change(&Method::POST, endpoint, Some(body))?)?;
        self.out.secret(&document, field)
    }

    /// Prints a whole list, for lists that are always short.
    fn whole_list(&mut self, endpoint: &Endpoint, name: &str) -> Result<(), Failure> {
        self.pages(endpoint, name, Extent::Everything, None, &[])
    }

    /// Prints as much of a list as `paging` says, without the `hidden` fields.
    fn list(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        paging: Paging,
        hidden: &'static [&'static str],
    ) -> Result<(), Failure> {
        let (endpoint, extent) = match paging.limit {
            Some(limit) => (endpoint, Extent::AtMost(limit)),
            None if paging.all => (endpoint.with("limit", Some(LARGEST_PAGE)), Extent::Everything),
            None => (endpoint, Extent::OnePage),
        };
        self.pages(&endpoint, name, extent, paging.cursor, hidden)
    }

    fn pages(
        &mut self,
        endpoint: &Endpoint,
        name: &str,
        mut extent: Extent,
        mut cursor: Option<String>,
        hidden: &'static [&'static str],
    ) -> Result<(), Failure> {
        let mut table = Table::new(hidden, !self.out.quiet);
        let mut empty = true;
        loop {
            let mut page = endpoint.clone().with("cursor", cursor.as_deref());
            if let Extent::AtMost(left) = extent {
                page = page.with("limit", Some(left.min(LARGEST_PAGE)));
            }
            let page = Document::parse(self.client.get(&page, JSON)?)?;
            let rows = page.json.get(name).and_then(Value::as_array).ok_or_else(|| {
                Failure::Broken(format!(
                    "the response is not from a tollgate, because it has no list `{name}`: check --url"
                ))
            })?;
            self.out.page(&page, rows, &mut table)?;
            empty &= rows.is_empty();
            let Some(next) = page.str("next_cursor") else { break };
            if cursor.as_deref() == Some(next) {
                return Err(Failure::Broken(
                    "the server returned the same page twice, so the rest of the list is missing".to_owned(),
                ));
            }
            extent = extent.after(rows.len());
            if extent == Extent::AtMost(0) {
                self.out.note(&format!("more entries follow: use --all, or --cursor {next}"));
                break;
            }
            cursor = Some(next.to_owned());
        }
        if empty {
            self.out.note("no entries");
        }
        Ok(())
    }

    /// Asks for confirmation on a terminal, before a change that cannot be undone.
    fn confirm(&self, question: &str) -> Result<(), Failure> {
        if !self.ask {
            return Ok(());
        }
        let mut stderr = io::stderr();
        let _ = write!(stderr, "{question} [y/N] ");
        let _ = stderr.flush();
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::Usage("not confirmed, so nothing was changed".to_owned()))
    }
}

/// An object with the fields that have a value.
fn fields<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect::<Map<_, _>>().into()
}

fn changes(update: Update) -> Value {
    let expiry = if update.no_expiry { Some(Value::Null) } else { update.expires_at.map(Value::from) };
    fields([
        ("name", update.name.map(Value::from)),
        ("owner", update.owner.map(Value::from)),
        ("metadata", update.metadata),
        ("tier", update.tier.map(Value::from)),
        ("expires_at", expiry),
    ])
}

fn tier(set: SetTier) -> Result<Value, Failure> {
    let Some(path) = set.file else {
        return Ok(fields([
            ("description", set.description.map(Value::from)),
            ("audit_days", set.audit_days.map(Value::from)),
            ("idempotency", set.idempotency.map(Value::from)),
            ("policies", Some(set.policy.into())),
        ]));
    };
    let text = if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(&path) };
    let text = text.map_err(|error| Failure::unreadable(&path, &error))?;
    tier_in(&text, &set.name).map_err(|reason| Failure::Usage(format!("{}: {reason}", path.display())))
}

/// Reads the output of `tiers show --json`. Removes the name, which the request has only in its
/// path.
fn tier_in(text: &str, name: &str) -> Result<Value, String> {
    let mut tier: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("does not contain a JSON object: {error}"))?;
    match tier.remove("name") {
        Some(other) if other != name => Err(format!("contains tier {other}, not `{name}`")),
        _ => Ok(tier.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn updated(line: &str) -> Value {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        match cli.command {
            Command::Keys(Keys::Update(update)) => changes(update),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_update_has_only_the_given_fields() {
        assert_eq!(updated("tollgate keys update k --tier pro"), json!({"tier": "pro"}));
        assert_eq!(updated("tollgate keys update k --no-expiry"), json!({"expires_at": null}));
        assert_eq!(
            updated(r#"tollgate keys update k --name= --metadata {"a":1} --expires-at 2027-01-01T00:00:00+01:00"#),
            json!({"name": "", "metadata": {"a": 1}, "expires_at": "2027-01-01T00:00:00+01:00"})
        );
    }

    #[test]
    fn a_tier_that_was_shown_can_be_set() {
        assert_eq!(tier_in(r#"{"name":"pro","policies":[]}"#, "pro"), Ok(json!({"policies": []})));
        assert_eq!(tier_in(r#"{"policies":[]}"#, "pro"), Ok(json!({"policies": []})));
        assert_eq!(tier_in(r#"{"name":"free"}"#, "pro"), Err("contains tier \"free\", not `pro`".to_owned()));
        assert!(tier_in("[]", "pro").is_err());
    }
}
