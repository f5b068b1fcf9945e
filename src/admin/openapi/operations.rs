//! Descriptions of the endpoints: summary, query parameters, body and responses.

use crate::admin::alerts::{AlertView, DeliveryState, DeliveryView};
use crate::admin::audit::EntryView;
use crate::admin::keys::{ChangeKey, CreateKey, IssuedKeyView, KeyView, RotateKey};
use crate::admin::log::LogEntry;
use crate::admin::openapi::schemas::Schemas;
use crate::admin::overrides::{OverrideView, PutOverride};
use crate::admin::parameters::{PAGE_DEFAULT, PAGE_LIMIT};
use crate::admin::reconciliation::{Drift, Reconciliation};
use crate::admin::reports::{MONTHS_DEFAULT, MONTHS_LIMIT};
use crate::admin::route_costs::{PutRouteCost, RouteCostView};
use crate::admin::tiers::{ChangedTier, PutPolicy, PutTier, Tier};
use crate::admin::tokens::{CreateToken, IssuedTokenView, TokenView};
use crate::admin::usage::{DayUsage, History, HourUsage, MeUsage, MonthReport};
use crate::protocol::key_status::Me;
use crate::protocol::usage::Usage;
use crate::router::{Admin, ENDPOINTS, Endpoint, Operation, Public, SelfServiceRoute};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// The description of an endpoint. The rest follows from [`ENDPOINTS`].
pub(super) struct Description {
    pub(super) endpoint: &'static Endpoint,
    pub(super) summary: &'static str,
    /// In the query; those in the path follow from it.
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    /// Status, description, and the content by its media type.
    pub(super) answers: Vec<(u16, &'static str, Value)>,
    /// Statuses of errors beside those that follow from the endpoint.
    pub(super) errors: &'static [u16],
}

impl Description {
    #[expect(clippy::expect_used, reason = "native only; the same macro makes the operations and the table")]
    fn new(operation: impl Into<Operation>, summary: &'static str) -> Self {
        let operation = operation.into();
        let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.operation == operation);
        let endpoint = endpoint.expect("each operation has a row");
        Self { endpoint, summary, parameters: Vec::new(), body: None, answers: Vec::new(), errors: &[] }
    }

    /// A query parameter.
    fn parameter(mut self, name: &str, schema: &Value, description: &str) -> Self {
        self.parameters.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
        self
    }

    /// A required query parameter.
    fn required(mut self, name: &str, schema: &Value, description: &str) -> Self {
        self = self.parameter(name, schema, description);
        if let Some(parameter) = self.parameters.last_mut() {
            parameter["required"] = true.into();
        }
        self
    }

    fn paged(self) -> Self {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE_DEFAULT });
        let cursor = json!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" });
        self.parameter("limit", &limit, "Entries of the page.").parameter(
            "cursor",
            &cursor,
            "`next_cursor` of the page before; another text is 400.",
        )
    }

    fn between(self, most: &str) -> Self {
        let time = or_empty(&json!({ "type": "string", "format": "date-time" }));
        self.parameter("from", &time, &format!("RFC 3339. {most}")).parameter(
            "to",
            &time,
            "RFC 3339; now unless it is said.",
        )
    }

    fn accepts(mut self, schema: &Value) -> Self {
        self.body = Some(json!({ "required": true, "content": { "application/json": { "schema": schema } } }));
        self
    }

    fn returns(mut self, status: u16, description: &'static str, schema: &Value) -> Self {
        self.answers.push((status, description, json!({ "application/json": { "schema": schema } })));
        self
    }

    fn example(mut self, example: Value) -> Self {
        if let Some((.., content)) = self.answers.last_mut() {
            content["application/json"]["example"] = example;
        }
        self
    }

    fn returns_nothing(mut self, description: &'static str) -> Self {
        self.answers.push((204, description, Value::Null));
        self
    }

    const fn errors(mut self, errors: &'static [u16]) -> Self {
        self.errors = errors;
        self
    }
}

/// The schema of a parameter whose empty value is ignored.
fn or_empty(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "maxLength": 0 }] })
}

/// A page of a list.
fn page(list: &str, entry: &Value) -> Value {
    json!({
        "type": "object",
        "required": [list, "next_cursor"],
        "properties": {
            list: { "type": "array", "maxItems": PAGE_LIMIT, "items": entry },
            "next_cursor": { "type": ["string", "null"], "description": "Of the page that follows; `null` at the end." },
        },
    })
}

/// All endpoints, in the order of the document.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Description> {
    let mut operations = describe_keys(schemas);
    operations.extend(describe_usage(schemas));
    operations.extend(describe_reports(schemas));
    operations.extend(describe_settings(schemas));
    operations.extend(describe_public_and_self_service(schemas));
    operations
}

fn key_example() -> Value {
    json!({
        "id": "wtwo6x5htavejjfz", "tier": "free", "name": "first", "owner": "customer-7", "status": "active", "hint": "q4zd",
        "metadata": { "plan": "trial" }, "created_at": "2031-03-12T12:00:00Z", "expires_at": null,
    })
}

fn describe_keys(schemas: &mut Schemas) -> Vec<Description> {
    let key = schemas.add::<KeyView>();
    let issued = schemas.add::<IssuedKeyView>();
    let own = schemas.add::<OverrideView>();
    let word = json!({ "type": "string" });
    let status = or_empty(&json!({ "type": "string", "enum": ["active", "disabled", "revoked", "expired"] }));
    let mut issued_example = key_example();
    issued_example["key"] = "tg_wtwo6x5htavejjfz_…".into();
    vec![
        Description::new(Admin::CreateKey, "Issue a key. The key itself is shown here and never again.")
            .accepts(&schemas.body::<CreateKey>())
            .returns(201, "The key.", &issued)
            .example(issued_example),
        Description::new(Admin::ListKeys, "List keys in the order of issue.")
            .paged()
            .parameter("tier", &word, "Those of this tier.")
            .parameter("status", &status, "Those of this status.")
            .parameter("owner", &word, "Those of exactly this owner.")
            .parameter("q", &word, "Those whose name has this in it, in whatever case.")
            .returns(200, "A page of keys.", &page("keys", &key))
            .example(json!({ "keys": [key_example()], "next_cursor": null })),
        Description::new(Admin::ReadKey, "Read a key.").returns(200, "The key.", &key).example(key_example()),
        Description::new(Admin::ChangeKey, "Change a key; in force with the next request.")
            .accepts(&schemas.body::<ChangeKey>())
            .returns(200, "The key.", &key)
            .errors(&[409]),
        Description::new(Admin::DeleteKey, "Delete a key and its overrides. Its accounts and the log stay.")
            .returns_nothing("It is gone.")
            .errors(&[409]),
        Description::new(Admin::RotateKey, "Replace a key's secret; its counters go on.")
            .accepts(&schemas.body::<RotateKey>())
            .returns(200, "The key with its new secret, which is shown here and never again.", &issued)
            .errors(&[409]),
        Description::new(Admin::RevokeKey, "Withdraw a key for ever.").returns(200, "The key.", &key).errors(&[409]),
        describe_import(),
        Description::new(Admin::ListOverrides, "List a key's own policies by name.").paged().returns(
            200,
            "A page of overrides.",
            &page("overrides", &own),
        ),
        Description::new(
            Admin::PutOverride,
            "Give a key a policy of its own, 16 at most; in force with the next request.",
        )
        .accepts(&schemas.body::<PutOverride>())
        .returns(200, "It was replaced.", &own)
        .returns(201, "It is new.", &own)
        .errors(&[409]),
        Description::new(Admin::DeleteOverride, "Take a key's own policy back.")
            .returns_nothing("It is gone.")
            .errors(&[409]),
    ]
}

fn describe_import() -> Description {
    let summary = "Take over keys that were issued elsewhere: 16 to 256 visible ASCII characters each, 10000 lines and 16 MiB at most.";
    let mut import = Description::new(Admin::ImportKeys, summary);
    let line = "{\"key\":\"their-own-key-0001\",\"tier\":\"pro\",\"name\":\"first\"}\n";
    let result = "{\"line\":1,\"id\":\"wtwo6x5htavejjfz\"}\n{\"line\":2,\"error\":\"tier: there is no tier `gold`\"}\n";
    // As bytes, which is the one way in which generators of clients can send and take lines.
    let bytes = json!({ "type": "string", "format": "binary", "contentMediaType": "application/x-ndjson" });
    let content = |example: &str| json!({ "schema": bytes, "example": example });
    // No lines are no error.
    import.body = Some(json!({
        "description": "A JSON object a line (NDJSON), whatever `Content-Type` says.",
        "required": false,
        "content": { "application/octet-stream": content(line) },
    }));
    let lines = json!({ "schema": { "type": "string" }, "example": result });
    import.answers.push((
        200,
        "What became of each line: NDJSON, also for `Accept: application/octet-stream`.",
        json!({ "application/x-ndjson": lines, "application/octet-stream": content(result) }),
    ));
    import
}

fn describe_usage(schemas: &mut Schemas) -> Vec<Description> {
    let hour = schemas.add::<HourUsage>();
    let day = schemas.add::<DayUsage>();
    let audit = schemas.add::<EntryView>();
    let months = json!({ "type": "integer", "minimum": 1, "maximum": MONTHS_LIMIT, "default": MONTHS_DEFAULT });
    vec![
        Description::new(Admin::ReadUsage, "What a key has used, from its object; spends nothing.").returns(
            200,
            "Where it stands.",
            &schemas.add::<Usage>(),
        ),
        Description::new(Admin::ReadHistory, "A key's months.")
            .parameter("months", &months, "How many, the current one included.")
            .returns(200, "The months.", &schemas.add::<History>()),
        Description::new(Admin::ReadHours, "A key's hours by class of routes, as of the last flush.")
            .between("24 hours ago unless it is said, 31 days at most.")
            .paged()
            .returns(200, "A page of hours.", &page("hours", &hour)),
        Description::new(Admin::ReadDays, "A key's days by class of routes, as of the last flush.")
            .between("30 days ago unless it is said, 100 days at most.")
            .paged()
            .returns(200, "A page of days.", &page("days", &day)),
        Description::new(Admin::ReadAudit, "A key's requests one by one, for the tier's `audit_days`.")
            .between("The oldest unless it is said.")
            .paged()
            .returns(200, "A page of requests.", &page("entries", &audit)),
        Description::new(Admin::Reconcile, "Compare a key's object with D1.").returns(
            200,
            "What was found.",
            &schemas.add::<Reconciliation>(),
        ),
    ]
}

fn describe_reports(schemas: &mut Schemas) -> Vec<Description> {
    let alert = schemas.add::<AlertView>();
    let delivery = schemas.add::<DeliveryView>();
    let drift = schemas.add::<Drift>();
    let month = or_empty(&json!({ "type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$" }));
    let threshold = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 10, "default": 0.8 });
    let states = DeliveryState::ALL.map(DeliveryState::as_str);
    let state = or_empty(&json!({ "type": "string", "enum": states }));
    let summary = "A month of all keys that were used in it; the whole of it as CSV for `Accept: text/csv`, without `limit` and `cursor`.";
    let mut report = Description::new(Admin::Report, summary)
        .parameter("month", &month, "The current one unless it is said.")
        .paged()
        .returns(200, "The report.", &schemas.add::<MonthReport>());
    if let Some((.., content)) = report.answers.last_mut() {
        content["text/csv"] = json!({
            "schema": { "type": "string" },
            "example": "month,key_id,name,owner,tier,calls,denied,cost,tokens\r\n2031-03,wtwo6x5htavejjfz,first,customer-7,free,13,1,13,0\r\n",
        });
    }
    vec![
        report,
        Description::new(Admin::ListAlerts, "Keys at or over a share of any month policy.")
            .parameter("threshold", &threshold, "The share, with up to six decimal places.")
            .paged()
            .returns(200, "A page of keys and policies.", &page("alerts", &alert)),
        Description::new(
            Admin::ListDeliveries,
            "Alerts that were raised, newest first, and what became of telling them.",
        )
        .parameter("state", &state, "Those in this state.")
        .paged()
        .returns(200, "A page of alerts.", &page("deliveries", &delivery)),
        Description::new(Admin::ListDrift, "What the hourly comparison of some keys with D1 has found, newest first.")
            .paged()
            .returns(200, "A page of finds.", &page("drift", &drift)),
    ]
}

fn describe_settings(schemas: &mut Schemas) -> Vec<Description> {
    let tier = schemas.add::<Tier>();
    let changed = schemas.add::<ChangedTier>();
    let cost = schemas.add::<RouteCostView>();
    let token = schemas.add::<TokenView>();
    let entry = schemas.add::<LogEntry>();
    let word = json!({ "type": "string" });
    schemas.body::<PutPolicy>();
    vec![
        Description::new(Admin::ListTiers, "List tiers by name.").paged().returns(
            200,
            "A page of tiers.",
            &page("tiers", &tier),
        ),
        Description::new(Admin::ReadTier, "Read a tier.").returns(200, "The tier.", &tier),
        Description::new(Admin::PutTier, "Create a tier or replace it, for all of its keys.")
            .accepts(&schemas.body::<PutTier>())
            .returns(200, "It was replaced.", &changed)
            .returns(201, "It is new.", &changed)
            .errors(&[409]),
        Description::new(Admin::DeleteTier, "Delete a tier that no key has.")
            .returns_nothing("It is gone.")
            .errors(&[409]),
        Description::new(Admin::ListRouteCosts, "List what calls cost, by pattern and method.").paged().returns(
            200,
            "A page of costs.",
            &page("route_costs", &cost),
        ),
        Description::new(
            Admin::PutRouteCost,
            "Set what calls cost that match a pattern and method, 500 at most; in force within 60 seconds.",
        )
        .accepts(&schemas.body::<PutRouteCost>())
        .returns(200, "It was replaced.", &cost)
        .returns(201, "It is new.", &cost)
        .errors(&[409]),
        Description::new(
            Admin::DeleteRouteCost,
            "Delete the cost of a pattern and method; in force within 60 seconds.",
        )
        .required("pattern", &word, "The pattern of the row.")
        .parameter("method", &json!({ "type": "string", "default": "*" }), "Its method.")
        .returns_nothing("It is gone.")
        .errors(&[404, 409]),
        Description::new(Admin::ReadLog, "Every change made through the admin API, newest first.")
            .paged()
            .parameter("target", &word, "Those of this thing: `keys/{id}`, `tiers/{name}`, `route-costs`, ...")
            .parameter("actor", &word, "Those by this token, by its name.")
            .returns(200, "A page of the log.", &page("entries", &entry)),
        Description::new(Admin::ListTokens, "List admin tokens by name.").paged().returns(
            200,
            "A page of tokens.",
            &page("tokens", &token),
        ),
        Description::new(Admin::CreateToken, "Create an admin token, which is shown here and never again.")
            .accepts(&schemas.body::<CreateToken>())
            .returns(201, "The token.", &schemas.add::<IssuedTokenView>())
            .errors(&[409]),
        Description::new(Admin::DeleteToken, "Withdraw an admin token.").returns_nothing("It is gone."),
    ]
}

fn describe_public_and_self_service(schemas: &mut Schemas) -> Vec<Description> {
    vec![
        Description::new(SelfServiceRoute::Me, "Where the presented key stands; spends nothing.").returns(
            200,
            "The key.",
            &schemas.add::<Me>(),
        ),
        Description::new(SelfServiceRoute::MyUsage, "What the presented key has used; spends nothing.").returns(
            200,
            "Its months and hours.",
            &schemas.add::<MeUsage>(),
        ),
        Description::new(Public::Health, "Whether tollgate runs.").returns(200, "It does.", &schemas.add::<Health>()),
        Description::new(Public::Openapi, "This document.").returns(
            200,
            "The document.",
            &json!({
                "type": "object",
                "required": ["openapi"],
                "properties": { "openapi": { "type": "string" } },
                "additionalProperties": true,
            }),
        ),
    ]
}

// `src/runtime/http.rs` makes it.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0"}))]
struct Health {
    #[schema(pattern = "^ok$")]
    #[expect(dead_code, reason = "a schema")]
    status: String,
    #[expect(dead_code, reason = "a schema")]
    version: String,
}
