use crate::admin::body::{FromFields, parse};
use crate::admin::openapi::document::{ERRORS, document};
use crate::admin::{keys, overrides, reservations, route_costs, tiers, token_routes, tokens};
use crate::http::problem::{Problem, ProblemBody};
use crate::router::{ENDPOINTS, Route, route};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use utoipa::ToSchema;

/// The methods of each path, with an id and a name in it.
fn methods() -> BTreeMap<String, Vec<String>> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().keys().filter(|name| *name != "parameters");
        (path.clone(), methods.map(|name| name.to_uppercase()).collect())
    };
    paths.iter().map(of).collect()
}

fn example_of(path: &str) -> String {
    path.replace("{id}", "abcdefghij234567")
        .replace("{reservation}", "aaaaaaaaaaaab")
        .replace("{policy}", "minute")
        .replace("{name}", "free")
}

#[test]
fn openapi_json_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/openapi/openapi.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
    if std::env::var_os("TOLLGATE_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(checked_in == text, "it is out of date: run `TOLLGATE_WRITE_OPENAPI=1 cargo test openapi`");
}

#[test]
fn every_path_has_the_methods_of_the_worker_and_no_others() {
    for (path, methods) in methods() {
        let Route::MethodNotAllowed(allow) = route("TRACE", &example_of(&path), false) else { panic!("{path}") };
        let mut allowed: Vec<&str> = allow.split(", ").filter(|method| *method != "HEAD").collect();
        let mut documented: Vec<&str> = methods.iter().map(String::as_str).collect();
        allowed.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, allowed, "{path}");
    }
}

#[test]
fn query_parameters_are_those_that_are_read() {
    let document = document();
    for (path, methods) in methods() {
        for method in methods {
            let example = example_of(&path);
            let Route::Endpoint(endpoint) = route(&method, &example, false) else { panic!("{method} {path}") };
            let operation = &document["paths"][&path][method.to_lowercase()];
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let named = parameters.filter(|one| one["in"] == "query").filter_map(|one| one["name"].as_str());
            let (mut named, mut read): (Vec<&str>, Vec<&str>) = (named.collect(), endpoint.parameters.to_vec());
            named.sort_unstable();
            read.sort_unstable();
            assert_eq!(named, read, "{method} {path}");
            assert_eq!(!operation["requestBody"].is_null(), endpoint.body_limit > 0, "{method} {path}");
        }
    }
}

#[test]
fn every_operation_of_the_contract_is_there() {
    let named: Vec<String> =
        methods().into_iter().flat_map(|(path, of)| of.into_iter().map(move |m| format!("{m} {path}"))).collect();
    let api = include_str!("../../../docs/api.md");
    for one in &named {
        assert!(api.contains(&format!("`{one}")), "docs/api.md does not name {one}");
    }
    assert_eq!(named.len(), ENDPOINTS.len());
}

/// Compares a body in the document with its reader: the example, each field left out, of another
/// type and null, and an unknown field.
fn check_body<T: FromFields + ToSchema>() {
    let document = document();
    let name = &*T::name();
    let schema = &document["components"]["schemas"][name];
    assert_eq!(schema["additionalProperties"], false, "{name}");
    for (field, keyword, number) in T::LIMITS {
        assert_eq!(schema["properties"][field][keyword], *number, "{name}.{field}: {keyword}");
    }
    let example = schema["example"].as_object().unwrap();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let read = |body: &Map<String, Value>| parse::<T>(Value::Object(body.clone()).to_string().as_bytes());
    assert!(read(example).is_ok(), "{name}: its example");
    let expect_refusal = |body: &Map<String, Value>, field: &str| match read(body) {
        Err(Problem::Invalid(named, _)) => assert_eq!(named, field, "{name}"),
        other => panic!("{name}.{field}: {:?}", other.err()),
    };
    for field in schema["properties"].as_object().unwrap().keys() {
        let mut without = example.clone();
        without.remove(field);
        if required.contains(&field.as_str()) {
            expect_refusal(&without, field);
        } else {
            assert!(read(&without).is_ok(), "{name} without {field}");
        }
        // No field may be true, unless it is a flag: that may not be 1.
        let is_flag = schema["properties"][field]["type"] == "boolean";
        let mut other = example.clone();
        other.insert(field.clone(), if is_flag { 1.into() } else { true.into() });
        expect_refusal(&other, field);
        // null is for those that say so.
        let mut null = example.clone();
        null.insert(field.clone(), Value::Null);
        let types = &schema["properties"][field]["type"];
        if types.as_array().is_some_and(|types| types.contains(&"null".into())) {
            assert!(read(&null).is_ok(), "{name}.{field}: null");
        } else {
            expect_refusal(&null, field);
        }
    }
    let mut more = example.clone();
    more.insert("nothing".to_owned(), 1.into());
    expect_refusal(&more, "nothing");
}

#[test]
fn bodies_are_what_is_read() {
    check_body::<keys::CreateKey>();
    check_body::<keys::ChangeKey>();
    check_body::<keys::RotateKey>();
    check_body::<overrides::PutOverride>();
    check_body::<reservations::CreateReservation>();
    check_body::<reservations::SettleReservation>();
    check_body::<tiers::PutTier>();
    check_body::<route_costs::PutRouteCost>();
    check_body::<token_routes::PutTokenRoute>();
    check_body::<tokens::CreateToken>();
}

#[test]
fn limits_are_those_that_are_kept() {
    let document = document();
    let of = |schema: &str, field: &str, limit: &str| {
        document["components"]["schemas"][schema]["properties"][field][limit].as_u64().unwrap()
    };
    let key = |name: u64| format!(r#"{{"tier":"free","name":"{}"}}"#, "x".repeat(usize::try_from(name).unwrap()));
    let rotate = |seconds: u64| format!(r#"{{"grace_seconds":{seconds}}}"#);
    let tier = |days: u64| format!(r#"{{"policies":[],"audit_days":{days}}}"#);
    let policy = |quota: u64, burst: u64| {
        format!(
            r#"{{"policies":[{{"policy":"p","quota":{quota},"period":"day","algorithm":"bucket","burst":{burst}}}]}}"#
        )
    };
    let token = |name: u64| format!(r#"{{"name":"{}","scopes":["read"]}}"#, "x".repeat(usize::try_from(name).unwrap()));
    let holds = |most: u64, read: &dyn Fn(u64) -> bool| assert!(read(most) && !read(most + 1), "{most}");
    holds(of("CreateKey", "name", "maxLength"), &|n| parse::<keys::CreateKey>(key(n).as_bytes()).is_ok());
    holds(of("RotateKey", "grace_seconds", "maximum"), &|n| parse::<keys::RotateKey>(rotate(n).as_bytes()).is_ok());
    holds(of("PutTier", "audit_days", "maximum"), &|n| parse::<tiers::PutTier>(tier(n).as_bytes()).is_ok());
    holds(of("PutPolicy", "quota", "maximum"), &|n| parse::<tiers::PutTier>(policy(n, 1).as_bytes()).is_ok());
    holds(of("PutPolicy", "burst", "maximum"), &|n| parse::<tiers::PutTier>(policy(1, n).as_bytes()).is_ok());
    let cost = |pattern: u64, cost: u64| {
        let pattern = "x".repeat(usize::try_from(pattern - 1).unwrap());
        format!(r#"{{"pattern":"/{pattern}","cost":{cost}}}"#)
    };
    let is_cost = |body: String| parse::<route_costs::PutRouteCost>(body.as_bytes()).is_ok();
    holds(of("PutRouteCost", "pattern", "maxLength"), &|n| is_cost(cost(n, 1)));
    holds(of("PutRouteCost", "cost", "maximum"), &|n| is_cost(cost(1, n)));
    let is_reserved = |body: String| parse::<reservations::CreateReservation>(body.as_bytes()).is_ok();
    holds(of("CreateReservation", "tokens", "maximum"), &|n| is_reserved(format!(r#"{{"tokens":{n}}}"#)));
    holds(of("CreateReservation", "requests", "maximum"), &|n| {
        is_reserved(format!(r#"{{"tokens":1,"requests":{n}}}"#))
    });
    holds(of("CreateReservation", "ttl_seconds", "maximum"), &|n| {
        is_reserved(format!(r#"{{"tokens":1,"ttl_seconds":{n}}}"#))
    });
    let is_settled = |body: String| parse::<reservations::SettleReservation>(body.as_bytes()).is_ok();
    holds(of("SettleReservation", "tokens", "maximum"), &|n| is_settled(format!(r#"{{"tokens":{n}}}"#)));
    holds(of("SettleReservation", "requests", "maximum"), &|n| is_settled(format!(r#"{{"tokens":1,"requests":{n}}}"#)));
    let route = |output: u64, bytes: u64, input: u64| {
        let row = format!(
            r#"{{"pattern":"/","format":"header","default_output":0,"max_output":{output},"bytes_per_token":{bytes},"max_input":{input}}}"#
        );
        parse::<token_routes::PutTokenRoute>(row.as_bytes()).is_ok()
    };
    holds(of("PutTokenRoute", "max_output", "maximum"), &|n| route(n, 1, 1));
    holds(of("PutTokenRoute", "bytes_per_token", "maximum"), &|n| route(0, n, 1));
    holds(of("PutTokenRoute", "max_input", "maximum"), &|n| route(0, 1, n));
    holds(of("CreateToken", "name", "maxLength"), &|n| parse::<tokens::CreateToken>(token(n).as_bytes()).is_ok());
}

#[test]
fn problems_are_what_is_given() {
    let texts = || "x".to_owned();
    for refusal in [
        Problem::BadRequest(texts()),
        Problem::NoCredential(texts()),
        Problem::InvalidKey,
        Problem::NoAdminToken,
        Problem::InvalidAdminToken,
        Problem::Forbidden("x"),
        Problem::NotFound(texts()),
        Problem::Conflict(texts()),
        Problem::TooLarge(1),
        Problem::invalid("tier", "x"),
        Problem::TooManyAttempts(1),
        Problem::QuotaExceeded { violated: vec!["self-service".to_owned()], retry_after: 1 },
        Problem::Internal,
        Problem::Unavailable("x"),
    ] {
        let problem: ProblemBody = serde_json::from_str(&refusal.body()).unwrap();
        assert_eq!(problem.status, refusal.status());
        assert_eq!(problem.field.is_some(), problem.status == 422);
        let error = ERRORS.iter().find(|error| error.status == problem.status).unwrap();
        match error.header {
            Some("Retry-After") => assert!(refusal.retry_after().is_some()),
            Some(header) => assert_eq!(refusal.extra_header().unwrap().0, header),
            None => assert!(refusal.extra_header().is_none() && refusal.retry_after().is_none()),
        }
    }
}
