//! The `tollgate` binary against a server with scripted responses: its requests, output, retries
//! and exit codes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

/// A received request: method and target, the credential, and the body.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    line: String,
    credential: String,
    body: String,
}

/// A server that sends these responses in turn and then closes: status line and fields, and body.
struct Server {
    url: String,
    thread: JoinHandle<Vec<Received>>,
}

impl Server {
    fn start(answers: Vec<(&'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let answer = |(head, body): (&str, String)| {
                let (stream, _) = listener.accept().unwrap();
                serve(&stream, head, &body)
            };
            answers.into_iter().map(answer).collect()
        });
        Self { url, thread }
    }

    /// The received requests. All responses must have been fetched.
    fn requests(self) -> Vec<Received> {
        self.thread.join().unwrap()
    }

    fn lines(self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

fn serve(mut stream: &TcpStream, head: &str, body: &str) -> Received {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let (mut length, mut credential) = (0, String::new());
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).unwrap();
        let Some((name, value)) = field.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" | "x-api-key" => value.clone_into(&mut credential),
            _ => {}
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    let length = body.len();
    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
    Received { line, credential, body: String::from_utf8(sent).unwrap() }
}

fn tollgate(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_clear().env("TOLLGATE_URL", url).env("TOLLGATE_TOKEN", "tga_id_secret");
    command.stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn output_of(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn run(url: &str, arguments: &[&str]) -> (i32, String, String) {
    output_of(&tollgate(url, arguments).output().unwrap())
}

/// Runs a command whose one request gets this response.
fn once(head: &'static str, body: &str, arguments: &[&str]) -> (i32, String, String) {
    let server = Server::start(vec![(head, body.to_owned())]);
    let output = run(&server.url, arguments);
    server.requests();
    output
}

/// The path of a new file for this test alone.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tollgate-cli-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

#[test]
fn each_command_sends_the_request_of_the_contract() {
    for (arguments, line, body) in [
        ("keys list", "GET /_tollgate/keys", ""),
        (
            "keys list --tier pro --status expired --owner me --search 5% --limit 7",
            "GET /_tollgate/keys?tier=pro&status=expired&owner=me&q=5%25&limit=7",
            "",
        ),
        ("keys show k", "GET /_tollgate/keys/k", ""),
        ("keys update k --no-expiry --name n", "PATCH /_tollgate/keys/k", r#"{"expires_at":null,"name":"n"}"#),
        ("keys disable k", "PATCH /_tollgate/keys/k", r#"{"status":"disabled"}"#),
        ("keys enable k", "PATCH /_tollgate/keys/k", r#"{"status":"active"}"#),
        ("keys rotate k --grace 1d", "POST /_tollgate/keys/k/rotate", r#"{"grace_seconds":86400}"#),
        ("keys revoke k", "POST /_tollgate/keys/k/revoke", ""),
        ("keys delete k", "DELETE /_tollgate/keys/k", ""),
        ("overrides list k", "GET /_tollgate/keys/k/overrides", ""),
        (
            "overrides set k day --quota 5 --period day --algorithm bucket --burst 9 --from A --until B",
            "PUT /_tollgate/keys/k/overrides/day",
            r#"{"algorithm":"bucket","burst":9,"from":"A","period":"day","quota":5,"until":"B"}"#,
        ),
        ("overrides delete k day", "DELETE /_tollgate/keys/k/overrides/day", ""),
        ("tiers list", "GET /_tollgate/tiers", ""),
        ("tiers show free", "GET /_tollgate/tiers/free", ""),
        (
            "tiers set t --description d --audit-days 7 --policy minute=1/minute",
            "PUT /_tollgate/tiers/t",
            r#"{"audit_days":7,"description":"d","policies":[{"algorithm":"fixed","period":"minute","policy":"minute","quota":1,"unit":"requests"}]}"#,
        ),
        (
            "tiers set t --description d --audit-days 7 --idempotency off --unlimited",
            "PUT /_tollgate/tiers/t",
            r#"{"audit_days":7,"description":"d","idempotency":"off","policies":[]}"#,
        ),
        ("tiers delete t", "DELETE /_tollgate/tiers/t", ""),
        ("route-costs list", "GET /_tollgate/route-costs", ""),
        (
            "route-costs set /v1/*/export --cost 25 --method GET",
            "PUT /_tollgate/route-costs",
            r#"{"cost":25,"method":"GET","pattern":"/v1/*/export"}"#,
        ),
        (
            "route-costs set /x --cost 2 --reprice",
            "PUT /_tollgate/route-costs",
            r#"{"cost":2,"pattern":"/x","reprice":true}"#,
        ),
        ("route-costs set /x --cost 2", "PUT /_tollgate/route-costs", r#"{"cost":2,"pattern":"/x"}"#),
        (
            "route-costs delete /v1/*?a --method GET",
            "DELETE /_tollgate/route-costs?pattern=%2Fv1%2F%2A%3Fa&method=GET",
            "",
        ),
        ("route-costs delete /x", "DELETE /_tollgate/route-costs?pattern=%2Fx", ""),
        ("reservations create k --tokens 500", "POST /_tollgate/keys/k/reservations", r#"{"tokens":500}"#),
        (
            "reservations create k --tokens 0 --requests 2 --ttl 30",
            "POST /_tollgate/keys/k/reservations",
            r#"{"requests":2,"tokens":0,"ttl_seconds":30}"#,
        ),
        ("reservations list k", "GET /_tollgate/keys/k/reservations", ""),
        ("reservations settle k r --tokens 70", "POST /_tollgate/keys/k/reservations/r/settle", r#"{"tokens":70}"#),
        (
            "reservations settle k r --tokens 70 --requests 0",
            "POST /_tollgate/keys/k/reservations/r/settle",
            r#"{"requests":0,"tokens":70}"#,
        ),
        ("reservations release k r", "DELETE /_tollgate/keys/k/reservations/r", ""),
        ("token-routes list", "GET /_tollgate/token-routes", ""),
        (
            "token-routes set /v1/* --format openai --default-output 5 --max-output 9",
            "PUT /_tollgate/token-routes",
            r#"{"default_output":5,"format":"openai","max_output":9,"pattern":"/v1/*"}"#,
        ),
        (
            "token-routes set /x --format header --default-output 0 --max-output 0 --bytes-per-token 3 --max-input 7 --method POST",
            "PUT /_tollgate/token-routes",
            r#"{"bytes_per_token":3,"default_output":0,"format":"header","max_input":7,"max_output":0,"method":"POST","pattern":"/x"}"#,
        ),
        (
            "token-routes delete /v1/*?a --method GET",
            "DELETE /_tollgate/token-routes?pattern=%2Fv1%2F%2A%3Fa&method=GET",
            "",
        ),
        ("usage show k", "GET /_tollgate/keys/k/usage", ""),
        ("usage hours k --from A --to B", "GET /_tollgate/keys/k/hours?from=A&to=B", ""),
        ("usage days k --from A --all", "GET /_tollgate/keys/k/days?from=A&limit=500", ""),
        ("usage history k --months 3", "GET /_tollgate/keys/k/history?months=3", ""),
        ("report --month 2026-10", "GET /_tollgate/report?month=2026-10", ""),
        ("report --csv", "GET /_tollgate/report", ""),
        ("alerts --threshold 0.8", "GET /_tollgate/alerts?threshold=0.8", ""),
        ("alerts deliveries", "GET /_tollgate/alerts/deliveries", ""),
        ("alerts deliveries --state dead --limit 9", "GET /_tollgate/alerts/deliveries?state=dead&limit=9", ""),
        ("drift --cursor c", "GET /_tollgate/drift?cursor=c", ""),
        (
            "audit k --from 2026-11-20T00:00:00+01:00 --all",
            "GET /_tollgate/keys/k/audit?from=2026-11-20T00%3A00%3A00%2B01%3A00&limit=500",
            "",
        ),
        ("reconcile k", "GET /_tollgate/keys/k/reconcile", ""),
        ("log --actor ci", "GET /_tollgate/log?actor=ci", ""),
        ("tokens list", "GET /_tollgate/tokens", ""),
        (
            "tokens create ci --scope read --scope write",
            "POST /_tollgate/tokens",
            r#"{"name":"ci","scopes":["read","write"]}"#,
        ),
        ("tokens delete t", "DELETE /_tollgate/tokens/t", ""),
    ] {
        // Every list and secret that any of these commands reads.
        let answer = r#"{"keys":[],"overrides":[],"tiers":[],"route_costs":[],"token_routes":[],"hours":[],"days":[],"alerts":[],
            "deliveries":[],"drift":[],"reservations":[],"entries":[],"tokens":[],"key":"s","token":"s"}"#;
        let server = Server::start(vec![("200 OK", answer.to_owned())]);
        let (code, _, stderr) = run(&server.url, &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(code, 0, "{arguments}: {stderr}");
        let expected =
            Received { line: line.to_owned(), credential: "Bearer tga_id_secret".to_owned(), body: body.to_owned() };
        assert_eq!(server.requests(), [expected], "{arguments}");
    }
}

/// The printed lines of a list of one page.
fn table(page: &serde_json::Value, arguments: &[&str]) -> Vec<String> {
    let (code, stdout, stderr) = once("200 OK", &page.to_string(), arguments);
    assert_eq!(code, 0, "{stderr}");
    stdout.lines().map(str::to_owned).collect()
}

#[test]
fn nested_values_are_summarised_in_tables_and_whole_in_json() {
    let policy = |name: &str, quota: u64| serde_json::json!({"policy": name, "unit": "requests", "quota": quota, "period": name, "algorithm": "fixed", "burst": null});
    let free = serde_json::json!({"name": "free", "description": "10 requests a minute", "audit_days": 7,
        "policies": [policy("minute", 10), policy("month", 1000)]});
    let none = serde_json::json!({"name": "unlimited", "description": "", "audit_days": 0, "policies": []});
    let tiers = serde_json::json!({"tiers": [free, none], "next_cursor": null});
    assert_eq!(
        table(&tiers, &["tiers", "list"]),
        [
            "NAME       DESCRIPTION           AUDIT DAYS  POLICIES",
            "free       10 requests a minute           7  minute 10/minute fixed, month 1000/month",
            "unlimited  -                              0  -",
        ]
    );
    let key =
        |tier: &str| serde_json::json!({"id": "k", "tier": tier, "name": "first", "metadata": {}, "expires_at": null});
    let entry = |id: u64, action: &str, before: serde_json::Value, after: serde_json::Value| {
        serde_json::json!({"id": id, "at": "2026-11-20T10:00:00Z", "actor": "ci", "action": action, "target": "keys/k",
            "before": before, "after": after})
    };
    let log = serde_json::json!({"next_cursor": null, "entries": [
        entry(2, "change", key("free"), key("pro")), entry(1, "create", serde_json::Value::Null, key("free"))]});
    assert_eq!(
        table(&log, &["log"]),
        [
            "AT                    ACTOR  ACTION  TARGET  CHANGE",
            "2026-11-20T10:00:00Z  ci     change  keys/k  tier free -> pro",
            "2026-11-20T10:00:00Z  ci     create  keys/k  tier free, name first",
        ]
    );
    let count = |calls: u64| serde_json::json!({"period": "2026-11", "class": null, "calls": calls, "denied": 0, "cost": 5, "tokens": 0});
    let difference = serde_json::json!({"object": count(5), "d1": count(4)});
    let found = serde_json::json!({"key_id": "k", "found_at": "2026-11-20T10:17:00Z", "detail": {"key_id": "k", "state": "drift",
        "differences": [difference]}});
    let drift = serde_json::json!({"drift": [found], "next_cursor": null});
    assert_eq!(
        table(&drift, &["drift"]),
        ["KEY ID  FOUND AT              DIFFERENCES", "k       2026-11-20T10:17:00Z  2026-11: calls 5, D1 4"]
    );
    assert_eq!(
        table(&found["detail"], &["reconcile", "k"])[3..],
        [
            "differences:",
            "CLASS  PERIOD   CALLS  D1 CALLS  DENIED  D1 DENIED  COST  D1 COST  TOKENS  D1 TOKENS",
            "-      2026-11      5         4       0          0     5        5       0          0",
        ]
    );
    for (page, arguments) in [(&tiers, &["tiers", "list"][..]), (&log, &["log"]), (&drift, &["drift"])] {
        let json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        assert_eq!(once("200 OK", &page.to_string(), &json).1, format!("{page}\n"));
    }
}

#[test]
fn a_report_of_more_keys_than_one_page_has_a_note() {
    let report =
        |next: Option<&str>| serde_json::json!({"month": "2026-11", "keys": [], "next_cursor": next}).to_string();
    assert_eq!(
        once("200 OK", &report(Some("x")), &["report"]).2,
        "tollgate: the report has more keys: use --csv for all of them\n"
    );
    assert_eq!(once("200 OK", &report(None), &["report"]).2, "");
}

#[test]
fn the_message_of_a_refused_credential_names_its_source() {
    let new = r#"{"title":"Unauthorized","status":401,"detail":"the admin token was refused: it is not known"}"#;
    let old =
        r#"{"title":"Unauthorized","status":401,"detail":"the admin API needs Authorization: Bearer <admin token>"}"#;
    let key = r#"{"title":"Unauthorized","status":401,"detail":"the API key is not valid"}"#;
    for (body, arguments, said) in [
        (new, &["log"][..], "401 the admin token was refused: it is not known (the token from TOLLGATE_TOKEN)"),
        (
            old,
            &["log", "--token", "x"],
            "401 the admin API needs Authorization: Bearer <admin token> (the token from --token was refused)",
        ),
        (key, &["me", "--key", "x"], "401 the API key is not valid (the key from --key was refused)"),
        (
            "",
            &["keys", "delete", "k"],
            "401 Unauthorized, but not from a tollgate: check --url (the token from TOLLGATE_TOKEN was refused)",
        ),
    ] {
        let (code, _, stderr) = once("401 Unauthorized", body, arguments);
        assert_eq!((code, stderr), (1, format!("tollgate: {said}\n")));
    }
}

#[test]
fn alerts_and_deliveries_have_different_options() {
    for arguments in [&["alerts", "--threshold", "1", "deliveries"][..], &["alerts", "--all", "deliveries"]] {
        let (code, _, stderr) = run("http://127.0.0.1:1", arguments);
        assert!(
            code == 2 && stderr.contains("the options of `alerts deliveries` must come after it"),
            "{code} {stderr}"
        );
    }
}

/// The output of `tollgate completions` without a gate and a token.
fn completions(shell: &str) -> String {
    let mut command = tollgate("", &["completions", shell]);
    let output = command.env_remove("TOLLGATE_URL").env_remove("TOLLGATE_TOKEN").output().unwrap();
    let (code, stdout, stderr) = output_of(&output);
    assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
    stdout
}

#[test]
fn completions_are_printed_for_each_shell_and_need_no_gate() {
    for (shell, sign) in [
        ("bash", "complete -F _tollgate"),
        ("elvish", "edit:completion:arg-completer[tollgate]"),
        ("fish", "complete -c tollgate"),
        ("powershell", "Register-ArgumentCompleter -Native -CommandName 'tollgate'"),
        ("zsh", "#compdef tollgate"),
    ] {
        let script = completions(shell);
        assert!(script.contains(sign) && script.contains("route-costs"), "{shell}: {script}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let empty = |arguments: &[&str]| output_of(&tollgate("", arguments).env("TOLLGATE_TOKEN", "").output().unwrap());
    assert_eq!(empty(&["completions", "bash"]).0, 0);
    let no_url =
        (2, String::new(), "tollgate: no URL of the gate: set TOLLGATE_URL or pass --url https://…\n".to_owned());
    assert_eq!(empty(&["health"]), no_url);
    let server = Server::start(vec![("200 OK", r#"{"status":"ok"}"#.to_owned())]);
    assert_eq!(empty(&["health", "--url", &server.url]).0, 0);
    server.requests();
    let wrong = output_of(&tollgate("ftp://x", &["health"]).output().unwrap());
    assert!(wrong.0 == 2 && wrong.2.starts_with("tollgate: TOLLGATE_URL: must be a URL such as"), "{}", wrong.2);
}

#[test]
fn bash_completes_commands_and_options() {
    let script = completions("bash");
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={last}; _tollgate tollgate '{}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            words.join(" "),
            words[last],
            words[last - 1]
        );
        // As standard input: an argument has at most 128 KiB.
        let mut bash = Command::new("bash");
        let bash = bash.args(["--norc", "-s"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = bash.spawn().unwrap();
        child.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
        output_of(&child.wait_with_output().unwrap()).1.trim().to_owned()
    };
    assert_eq!(complete(&["tollgate", "rou"]), "route-costs");
    assert_eq!(complete(&["tollgate", "tiers", "de"]), "delete");
    assert_eq!(complete(&["tollgate", "alerts", "deliveries", "--sta"]), "--state");
}

#[test]
fn self_service_sends_the_api_key_and_health_no_credential() {
    for (arguments, line, credential) in [
        (&["me", "--key", "tg_k"][..], "GET /_tollgate/me", "tg_k"),
        (&["me", "usage", "--key", "tg_k"], "GET /_tollgate/me/usage", "tg_k"),
        (&["health"], "GET /_tollgate/health", ""),
    ] {
        let server = Server::start(vec![("200 OK", r#"{"status":"ok"}"#.to_owned())]);
        assert_eq!(run(&server.url, arguments).0, 0);
        let expected = Received { line: line.to_owned(), credential: credential.to_owned(), body: String::new() };
        assert_eq!(server.requests(), [expected]);
    }
}

#[test]
fn exit_codes_distinguish_failures() {
    let problem =
        r#"{"type":"about:blank","title":"x","status":0,"detail":"tier: there is no tier `x`","field":"tier"}"#;
    for (head, code, said) in [
        ("422 Unprocessable Content", 1, "tollgate: 422 tier: there is no tier `x`\n"),
        ("500 Internal Server Error", 3, "tollgate: 500 tier: there is no tier `x`\n"),
        (
            "302 Found\r\nLocation: /login",
            3,
            "tollgate: the server redirects to /login, which tollgate never does: check --url\n",
        ),
    ] {
        assert_eq!(once(head, problem, &["keys", "show", "k"]), (code, String::new(), said.to_owned()));
    }
    let (code, _, stderr) = once("200 OK", "<html>", &["health"]);
    assert_eq!(
        (code, stderr.as_str()),
        (3, "tollgate: the response is not from a tollgate, because it is not JSON: check --url\n")
    );

    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, stderr) = run(&format!("http://{unused}"), &["health"]);
    assert!(code == 3 && stderr.starts_with("tollgate: no response from http://127.0.0.1:"), "{code} {stderr}");
    assert!(stderr.ends_with(": check that the gate runs and --url is right\n"), "{stderr}");

    assert_eq!(run("ftp://x", &["health"]).0, 2);
    assert_eq!(output_of(&tollgate("", &["health"]).env_remove("TOLLGATE_URL").output().unwrap()).0, 2);
    let no_token = output_of(&tollgate("http://x", &["log"]).env_remove("TOLLGATE_TOKEN").output().unwrap());
    assert_eq!(no_token.2, "tollgate: no admin token: set TOLLGATE_TOKEN or pass --token-file FILE\n");
    assert_eq!(no_token.0, 2);
}

#[test]
fn a_get_is_repeated_after_retry_after_and_a_change_never() {
    let busy = ("503 Service Unavailable\r\nRetry-After: 0", r#"{"detail":"busy"}"#.to_owned());
    let ok = ("200 OK", r#"{"status":"ok"}"#.to_owned());

    let server = Server::start(vec![busy.clone(), busy.clone(), busy.clone(), ok]);
    let (code, stdout, stderr) = run(&server.url, &["health"]);
    assert_eq!((code, stdout.as_str()), (0, "status  ok\n"));
    assert_eq!(stderr.lines().collect::<Vec<_>>(), ["tollgate: 503, trying again in 0 s"; 3]);
    assert_eq!(server.lines().len(), 4);

    let server = Server::start(vec![busy.clone(); 4]);
    assert_eq!(run(&server.url, &["health"]).0, 3);
    assert_eq!(server.lines().len(), 4);

    // The server has one response: a retry would fail. Longer waits are left to the user.
    let (code, _, stderr) = once(busy.0, &busy.1, &["keys", "disable", "k"]);
    assert_eq!((code, stderr.as_str()), (3, "tollgate: 503 busy (try again in 0 s)\n"));
    let (code, _, stderr) =
        once("429 Too Many Requests\r\nRetry-After: 3600", r#"{"detail":"no"}"#, &["keys", "show", "k"]);
    assert_eq!((code, stderr.as_str()), (1, "tollgate: 429 no (try again in 3600 s)\n"));
}

fn page(ids: &[&str], next: Option<&str>) -> (&'static str, String) {
    let keys: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id, "tier": "free"})).collect();
    ("200 OK", serde_json::json!({"keys": keys, "next_cursor": next}).to_string())
}

#[test]
fn lists_follow_their_cursors_up_to_the_limit() {
    let server = Server::start(vec![page(&["a"], Some("x/y")), page(&["b"], None)]);
    assert_eq!(
        run(&server.url, &["keys", "list", "--all"]),
        (0, "ID  TIER\na   free\nb   free\n".to_owned(), String::new())
    );
    assert_eq!(server.lines(), ["GET /_tollgate/keys?limit=500", "GET /_tollgate/keys?limit=500&cursor=x%2Fy"]);

    let server = Server::start(vec![page(&["a", "b"], Some("x"))]);
    let (code, stdout, stderr) = run(&server.url, &["keys", "list"]);
    assert_eq!((code, stdout.lines().count()), (0, 3));
    assert_eq!(stderr, "tollgate: more entries follow: use --all, or --cursor x\n");
    assert_eq!(server.lines(), ["GET /_tollgate/keys"]);

    let server = Server::start(vec![page(&["a"; 500], Some("x")), page(&["b"; 100], Some("y"))]);
    let (_, stdout, _) = run(&server.url, &["keys", "list", "--limit", "600", "--json", "--quiet"]);
    let pages: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((pages.len(), &pages[1]["next_cursor"]), (2, &"y".into()));
    assert_eq!(server.lines(), ["GET /_tollgate/keys?limit=500", "GET /_tollgate/keys?cursor=x&limit=100"]);

    let server = Server::start(vec![page(&["a"], Some("x")), page(&["a"], Some("x"))]);
    assert_eq!(run(&server.url, &["keys", "list", "--all"]).0, 3);
    server.requests();
}

#[test]
fn a_new_secret_is_alone_on_stdout_when_quiet() {
    let created = r#"{"id":"k","key":"tg_k_s","tier":"free"}"#;
    let create = ["keys", "create", "--tier", "free", "--name", "n"];
    let (code, stdout, stderr) = once("201 Created", created, &create);
    assert_eq!((code, stdout.as_str()), (0, "id    k\nkey   tg_k_s\ntier  free\n"));
    assert_eq!(stderr, "tollgate: store the key: it is not shown again\n");
    let quiet: Vec<&str> = create.iter().copied().chain(["-q"]).collect();
    assert_eq!(once("201 Created", created, &quiet), (0, "tg_k_s\n".to_owned(), String::new()));
    let json: Vec<&str> = create.iter().copied().chain(["--json"]).collect();
    assert_eq!(once("201 Created", created, &json).1, format!("{created}\n"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let server = Server::start(vec![page(&["a"; 500], None)]);
    let mut child =
        tollgate(&server.url, &["keys", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, _, stderr) = output_of(&child.wait_with_output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""));
    server.requests();
}

fn results(lines: &[&str]) -> (&'static str, String) {
    ("200 OK", lines.join("\n"))
}

#[test]
fn an_import_is_split_into_requests_and_resumed_where_it_failed() {
    let input = scratch("input");
    let output = scratch("output");
    let line = |n: u32| format!("{{\"key\":\"imported-key-number-{n}\",\"tier\":\"free\",\"name\":\"{n}\"}}\n");
    fs::write(&input, format!("{}{}\n{}{}{}", line(1), line(2), line(4), line(5), line(6))).unwrap();
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let import = ["keys", "import", input, "--output", output, "--batch", "3"];

    // The server processes the first batch in two parts; the second fails.
    let server = Server::start(vec![
        results(&[r#"{"line":1,"id":"a"}"#, r#"{"line":2,"error":"tier: there is no tier `x`"}"#]),
        results(&[r#"{"line":1,"id":"d"}"#, r#"{"line":2,"id":"e"}"#]),
        ("500 Internal Server Error", r#"{"detail":"something went wrong on our side"}"#.to_owned()),
    ]);
    let (code, stdout, stderr) = run(&server.url, &import);
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert_eq!(
        stderr.lines().collect::<Vec<_>>(),
        [
            "tollgate: 3 imported, 1 refused, 0 skipped",
            "tollgate: 500 something went wrong on our side; continue with --resume"
        ]
    );
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.line == "POST /_tollgate/keys/import"));
    let bodies: Vec<&str> = requests.iter().map(|request| request.body.as_str()).collect();
    let sent = |numbers: &[u32]| numbers.iter().map(|&n| line(n)).collect::<String>();
    assert_eq!(bodies, [sent(&[1, 2, 4]), sent(&[4, 5, 6]), sent(&[6])]);

    // Without --resume nothing is overwritten.
    let (code, _, stderr) = run("http://127.0.0.1:1", &import);
    assert!(code == 2 && stderr.contains("continue with --resume"), "{code} {stderr}");

    let server = Server::start(vec![results(&[r#"{"line":1,"id":"b"}"#, r#"{"line":2,"id":"f"}"#])]);
    let resumed: Vec<&str> = import.iter().copied().chain(["--resume"]).collect();
    let (code, _, stderr) = run(&server.url, &resumed);
    assert_eq!((code, stderr.as_str()), (0, "tollgate: 2 imported, 0 refused, 3 skipped\n"));
    assert_eq!(server.requests()[0].body, sent(&[2, 6]));
    let written = fs::read_to_string(output).unwrap();
    let lines: Vec<serde_json::Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<_> = lines.iter().map(|line| (line["line"].as_u64().unwrap(), line["id"].as_str())).collect();
    assert_eq!(lines, [(1, Some("a")), (2, None), (4, Some("d")), (5, Some("e")), (2, Some("b")), (6, Some("f"))]);
    fs::remove_file(input).unwrap();
    fs::remove_file(output).unwrap();
}

#[test]
fn an_import_that_is_too_large_for_one_request_is_halved() {
    let server = Server::start(vec![
        ("413 Content Too Large", "{}".to_owned()),
        results(&[r#"{"line":1,"id":"a"}"#]),
        ("413 Content Too Large", "{}".to_owned()),
    ]);
    let mut child = tollgate(&server.url, &["keys", "import"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"key\":1}\n{\"key\":2}\n").unwrap();
    let (code, stdout, stderr) = output_of(&child.wait_with_output().unwrap());
    assert_eq!(stdout, "{\"line\":1,\"id\":\"a\"}\n{\"line\":2,\"error\":\"the line is too long\"}\n");
    assert_eq!(code, 1);
    assert!(stderr.ends_with("tollgate: 1 line was refused: the results say why\n"), "{stderr}");
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn help_goes_to_stdout_and_needs_no_server() {
    let (code, stdout, _) = output_of(&tollgate("", &["--help"]).env_remove("TOLLGATE_URL").output().unwrap());
    assert!(code == 0 && stdout.contains("Usage: tollgate"));
    assert_eq!(output_of(&tollgate("", &["--version"]).env_remove("TOLLGATE_URL").output().unwrap()).0, 0);
}
