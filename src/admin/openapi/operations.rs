//! Describes the endpoints: summary, query parameters, body and responses.

use crate::admin::alerts::{AlertView, DeliveryState, DeliveryView};
use crate::admin::audit::EntryView;
use crate::admin::keys::{ChangeKey, CreateKey, IssuedKeyView, KeyView, RotateKey};
use crate::admin::log::LogEntryView;
use crate::admin::openapi::schemas::Schemas;
use crate::admin::overrides::{OverrideView, PutOverride};
use crate::admin::parameters::{PAGE_DEFAULT, PAGE_LIMIT};
use crate::admin::reconciliation::{Drift, Reconciliation};
use crate::admin::reports::{MONTHS_DEFAULT, MONTHS_LIMIT};
use crate::admin::reservations::{CreateReservation, SettleReservation};
use crate::admin::route_costs::{PutRouteCost, RouteCostView};
use crate::admin::tiers::{ChangedTier, PutPolicy, PutTier, Tier};
use crate::admin::token_routes::PutTokenRoute;
use crate::admin::tokens::{CreateToken, IssuedTokenView, TokenView};
use crate::admin::usage::{DayUsage, History, HourUsage, MeUsage, MonthReport};
use crate::http::idempotency_key::MAX_KEY;
use crate::keys::token_route::TokenRoute;
use crate::protocol::key_status::Me;
use crate::protocol::reservation::{ClosedReservation, ReservationList, ReservationView};
use crate::protocol::usage::Usage;
use crate::router::{Admin, ENDPOINTS, Endpoint, Operation, Public, SelfServiceRoute};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// The parts of an operation that do not follow from [`ENDPOINTS`].
pub(super) struct Description {
    pub(super) endpoint: &'static Endpoint,
    pub(super) summary: &'static str,
    /// Query parameters and header fields. Parameters in the path follow from the endpoint.
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    /// Status, description, and content by media type.
    pub(super) answers: Vec<(u16, &'static str, Value)>,
    /// Error statuses in addition to those that follow from the endpoint.
    pub(super) errors: &'static [u16],
}

impl Description {
    #[expect(clippy::expect_used, reason = "native only; one macro generates the operations and the table")]
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

    /// A header field.
    fn header(mut self, name: &str, schema: &Value, description: &str) -> Self {
        self.parameters.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
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
        self.parameter("limit", &limit, "Most entries of the page.").parameter(
            "cursor",
            &cursor,
            "`next_cursor` of the previous page; any other text is 400. Default: the first page.",
        )
    }

    fn between(self, most: &str) -> Self {
        let time = or_empty(&json!({ "type": "string", "format": "date-time" }));
        self.parameter("from", &time, &format!("Start of the range, RFC 3339 with any offset. {most}")).parameter(
            "to",
            &time,
            "End of the range, exclusive, RFC 3339 with any offset. Default: now.",
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

/// The schema of a parameter that may be empty, which is as if it were missing.
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
            "next_cursor": { "type": ["string", "null"], "description": "Cursor of the next page; `null` on the last one." },
        },
    })
}

/// Describes all endpoints, in the order of the document.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Description> {
    let mut operations = describe_keys(schemas);
    operations.extend(describe_reservations(schemas));
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
        Description::new(Admin::CreateKey, "Create a key. The response is the only one that contains the key itself.")
            .accepts(&schemas.body::<CreateKey>())
            .returns(201, "The key.", &issued)
            .example(issued_example),
        Description::new(Admin::ListKeys, "List keys, oldest first.")
            .paged()
            .parameter("tier", &word, "Only keys of this tier.")
            .parameter("status", &status, "Only keys with this status.")
            .parameter("owner", &word, "Only keys of exactly this owner.")
            .parameter("q", &word, "Only keys whose name contains this text; ASCII letters match in either case.")
            .returns(200, "A page of keys.", &page("keys", &key))
            .example(json!({ "keys": [key_example()], "next_cursor": null })),
        Description::new(Admin::ReadKey, "Get a key.").returns(200, "The key.", &key).example(key_example()),
        Description::new(Admin::ChangeKey, "Change a key. Takes effect with the next request.")
            .accepts(&schemas.body::<ChangeKey>())
            .returns(200, "The key.", &key)
            .errors(&[409]),
        Description::new(Admin::DeleteKey, "Delete a key and its overrides. Its usage and the admin log are kept.")
            .returns_nothing("Deleted.")
            .errors(&[409]),
        Description::new(Admin::RotateKey, "Replace a key's secret. Counters are kept.")
            .accepts(&schemas.body::<RotateKey>())
            .returns(200, "The key with its new secret, which no other response contains.", &issued)
            .errors(&[409]),
        Description::new(Admin::RevokeKey, "Revoke a key. This cannot be undone.")
            .returns(200, "The key.", &key)
            .errors(&[409]),
        describe_import(),
        Description::new(Admin::ListOverrides, "List a key's overrides by name.").paged().returns(
            200,
            "A page of overrides.",
            &page("overrides", &own),
        ),
        Description::new(
            Admin::PutOverride,
            "Set an override of a key, at most 16 per key. Takes effect with the next request.",
        )
        .accepts(&schemas.body::<PutOverride>())
        .returns(200, "An override was replaced.", &own)
        .returns(201, "An override was added.", &own)
        .errors(&[409]),
        Description::new(
            Admin::DeleteOverride,
            "Delete an override: the tier's policy of that name, if any, applies again.",
        )
        .returns_nothing("Deleted.")
        .errors(&[409]),
    ]
}

fn describe_import() -> Description {
    let summary = "Import keys that were issued elsewhere, each of 16 to 256 visible ASCII characters. At most 10000 lines and 16 MiB.";
    let mut import = Description::new(Admin::ImportKeys, summary);
    let line = "{\"key\":\"their-own-key-0001\",\"tier\":\"pro\",\"name\":\"first\"}\n";
    let result = "{\"line\":1,\"id\":\"wtwo6x5htavejjfz\"}\n{\"line\":2,\"error\":\"tier: there is no tier `gold`\"}\n";
    // Bytes: the only form in which generated clients can send and receive lines.
    let bytes = json!({ "type": "string", "format": "binary", "contentMediaType": "application/x-ndjson" });
    let content = |example: &str| json!({ "schema": bytes, "example": example });
    // An empty body is not an error.
    import.body = Some(json!({
        "description": "One JSON object per line (NDJSON). `Content-Type` is ignored.",
        "required": false,
        "content": { "application/octet-stream": content(line) },
    }));
    let lines = json!({ "schema": { "type": "string" }, "example": result });
    import.answers.push((
        200,
        "The result of each line (NDJSON), also with `Accept: application/octet-stream`.",
        json!({ "application/x-ndjson": lines, "application/octet-stream": content(result) }),
    ));
    import
}

fn describe_reservations(schemas: &mut Schemas) -> Vec<Description> {
    let reservation = schemas.add::<ReservationView>();
    let example = json!({ "id": "c3xkq7d2mzv5a", "tokens": 1500, "requests": 1, "expires_at": "2031-03-12T12:02:00Z" });
    let closed = json!({
        "id": "c3xkq7d2mzv5a", "state": "settled", "tokens": 1130, "requests": 1,
        "reserved": { "tokens": 1500, "requests": 1 }, "overdraft": 0,
    });
    let idempotency_key = json!({ "type": "string", "minLength": 1, "maxLength": MAX_KEY });
    vec![
        Description::new(
            Admin::CreateReservation,
            "Reserve tokens and requests of a key, if every policy has that many left.",
        )
        .header("Idempotency-Key", &idempotency_key, "Names the reservation: a repeat makes no other.")
        .accepts(&schemas.body::<CreateReservation>())
        .returns(201, "The reservation.", &reservation)
        .example(example.clone())
        .errors(&[409]),
        Description::new(Admin::ListReservations, "List a key's open reservations.")
            .returns(200, "The open reservations.", &schemas.add::<ReservationList>())
            .example(json!({ "reservations": [example] })),
        Description::new(
            Admin::SettleReservation,
            "Charge what was used of a reservation, and give back the rest. A repeat changes nothing.",
        )
        .accepts(&schemas.body::<SettleReservation>())
        .returns(200, "How the reservation was closed, now or before.", &schemas.add::<ClosedReservation>())
        .example(closed),
        Description::new(
            Admin::ReleaseReservation,
            "Give back all of a reservation. A repeat, and a release after a settle, change nothing.",
        )
        .returns_nothing("It is closed."),
    ]
}

fn describe_usage(schemas: &mut Schemas) -> Vec<Description> {
    let hour = schemas.add::<HourUsage>();
    let day = schemas.add::<DayUsage>();
    let audit = schemas.add::<EntryView>();
    let months = json!({ "type": "integer", "minimum": 1, "maximum": MONTHS_LIMIT, "default": MONTHS_DEFAULT });
    vec![
        Description::new(Admin::ReadUsage, "Get a key's current usage, as counted by its object. Spends no quota.")
            .returns(200, "The usage.", &schemas.add::<Usage>()),
        Description::new(Admin::ReadHistory, "Get a key's usage by month.")
            .parameter("months", &months, "Number of months, the current one included.")
            .returns(200, "The usage.", &schemas.add::<History>()),
        Description::new(Admin::ReadHours, "List a key's usage by hour and route class, as of its last flush to D1.")
            .between("Default: 24 hours before `to`. At most 31 days before `to`.")
            .paged()
            .returns(200, "A page of hours.", &page("hours", &hour)),
        Description::new(Admin::ReadDays, "List a key's usage by day and route class, as of its last flush to D1.")
            .between("Default: 30 days before `to`. At most 100 days before `to`.")
            .paged()
            .returns(200, "A page of days.", &page("days", &day)),
        Description::new(Admin::ReadAudit, "List a key's requests, kept for the tier's `audit_days`.")
            .between("Default: the oldest entry.")
            .paged()
            .returns(200, "A page of requests.", &page("entries", &audit)),
        Description::new(Admin::Reconcile, "Compare the counts of a key's object with D1.").returns(
            200,
            "The comparison.",
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
    let summary =
        "Get a month's usage of all keys. With `Accept: text/csv`: all keys as CSV, without `limit` and `cursor`.";
    let mut report = Description::new(Admin::Report, summary)
        .parameter("month", &month, "UTC month. Default: the current one.")
        .paged()
        .returns(200, "The report.", &schemas.add::<MonthReport>());
    if let Some((.., content)) = report.answers.last_mut() {
        content["text/csv"] = json!({
            "schema": { "type": "string" },
            "example": "month,key_id,name,owner,tier,calls,denied,cost,tokens,overdraft\r\n2031-03,wtwo6x5htavejjfz,first,customer-7,free,13,1,13,0,0\r\n",
        });
    }
    vec![
        report,
        Description::new(Admin::ListAlerts, "List keys that have used a given share of a month policy.")
            .parameter("threshold", &threshold, "Share of the quota, with up to six decimal places.")
            .paged()
            .returns(200, "A page of pairs of key and policy.", &page("alerts", &alert)),
        Description::new(Admin::ListDeliveries, "List raised alerts and their webhook deliveries, newest first.")
            .parameter("state", &state, "Only deliveries in this state.")
            .paged()
            .returns(200, "A page of alerts.", &page("deliveries", &delivery)),
        Description::new(
            Admin::ListDrift,
            "List differences between objects and D1 that the hourly check of some keys found, newest first.",
        )
        .paged()
        .returns(200, "A page of differences.", &page("drift", &drift)),
    ]
}

fn describe_settings(schemas: &mut Schemas) -> Vec<Description> {
    let tier = schemas.add::<Tier>();
    let changed = schemas.add::<ChangedTier>();
    let cost = schemas.add::<RouteCostView>();
    let token_route = schemas.add::<TokenRoute>();
    let token = schemas.add::<TokenView>();
    let entry = schemas.add::<LogEntryView>();
    let word = json!({ "type": "string" });
    schemas.body::<PutPolicy>();
    vec![
        Description::new(Admin::ListTiers, "List tiers by name.").paged().returns(
            200,
            "A page of tiers.",
            &page("tiers", &tier),
        ),
        Description::new(Admin::ReadTier, "Get a tier.").returns(200, "The tier.", &tier),
        Description::new(Admin::PutTier, "Create or replace a tier. A change applies to all keys of the tier.")
            .accepts(&schemas.body::<PutTier>())
            .returns(200, "The tier was replaced.", &changed)
            .returns(201, "The tier was created.", &changed)
            .errors(&[409]),
        Description::new(Admin::DeleteTier, "Delete a tier that no key has.")
            .returns_nothing("Deleted.")
            .errors(&[409]),
        Description::new(Admin::ListRouteCosts, "List route costs by pattern and method.").paged().returns(
            200,
            "A page of route costs.",
            &page("route_costs", &cost),
        ),
        Description::new(
            Admin::PutRouteCost,
            "Set the cost of calls that match a pattern and method; at most 500 rows. Takes effect within 60 seconds.",
        )
        .accepts(&schemas.body::<PutRouteCost>())
        .returns(200, "The cost was replaced.", &cost)
        .returns(201, "The cost was added.", &cost)
        .errors(&[409]),
        Description::new(
            Admin::DeleteRouteCost,
            "Delete the cost of a pattern and method. Takes effect within 60 seconds.",
        )
        .required("pattern", &word, "Pattern of the row.")
        .parameter("method", &json!({ "type": "string", "default": "*" }), "Method of the row.")
        .returns_nothing("Deleted.")
        .errors(&[404, 409]),
        Description::new(Admin::ListTokenRoutes, "List the routes that spend tokens by pattern and method.")
            .paged()
            .returns(200, "A page of token routes.", &page("token_routes", &token_route)),
        Description::new(
            Admin::PutTokenRoute,
            "Make calls that match a pattern and method spend tokens; at most 500 rows. Takes effect within 60 seconds.",
        )
        .accepts(&schemas.body::<PutTokenRoute>())
        .returns(200, "The row was replaced.", &token_route)
        .returns(201, "The row was added.", &token_route)
        .errors(&[409]),
        Description::new(
            Admin::DeleteTokenRoute,
            "Delete the token route of a pattern and method. Takes effect within 60 seconds.",
        )
        .required("pattern", &word, "Pattern of the row.")
        .parameter("method", &json!({ "type": "string", "default": "*" }), "Method of the row.")
        .returns_nothing("Deleted.")
        .errors(&[404, 409]),
        Description::new(Admin::ReadLog, "List changes made through the admin API, newest first.")
            .paged()
            .parameter("target", &word, "Only changes of this target: `keys/{id}`, `keys/{id}/overrides/{policy}`, `tiers/{name}`, `route-costs`, `token-routes` or `tokens/{id}`.")
            .parameter("actor", &word, "Only changes by the token of this name; `root` is `ADMIN_TOKEN`.")
            .returns(200, "A page of the log.", &page("entries", &entry)),
        Description::new(Admin::ListTokens, "List admin tokens by name.").paged().returns(
            200,
            "A page of tokens.",
            &page("tokens", &token),
        ),
        Description::new(Admin::CreateToken, "Create an admin token. The response is the only one that contains the token itself.")
            .accepts(&schemas.body::<CreateToken>())
            .returns(201, "The token.", &schemas.add::<IssuedTokenView>())
            .errors(&[409]),
        Description::new(Admin::DeleteToken, "Delete an admin token. Takes effect with the next request.").returns_nothing("Deleted."),
    ]
}

fn describe_public_and_self_service(schemas: &mut Schemas) -> Vec<Description> {
    vec![
        Description::new(SelfServiceRoute::Me, "Get status and current usage of the presented key. Spends no quota.")
            .returns(200, "The key.", &schemas.add::<Me>()),
        Description::new(
            SelfServiceRoute::MyUsage,
            "Get usage of the presented key by month and hour. Spends no quota.",
        )
        .returns(200, "The usage.", &schemas.add::<MeUsage>()),
        Description::new(Public::Health, "Check that tollgate runs.").returns(
            200,
            "It runs.",
            &schemas.add::<Health>(),
        ),
        Description::new(Public::Openapi, "Get this document.").returns(
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

// Built in `src/runtime/http.rs`.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0"}))]
struct Health {
    #[schema(pattern = "^ok$")]
    #[expect(dead_code, reason = "a schema")]
    status: String,
    #[expect(dead_code, reason = "a schema")]
    version: String,
}
