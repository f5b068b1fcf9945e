//! Closed-loop HTTP/1.1 load: each connection is kept alive and sends its next request when it has
//! read the response to the last one. The plan is a JSON object on standard input, the report one on
//! standard output. One thread, so that the server keeps the other cores.

mod cpu;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet, spawn_local};

/// Number of failed connections or requests that ends the run.
const MOST_FAILURES: u64 = 100;
/// Timeout of a request.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Plan {
    /// `host:port`.
    address: String,
    path: String,
    /// The JSON of each request, which is a POST then.
    body: Option<String>,
    connections: usize,
    /// Load before the measurement begins.
    warmup_ms: u64,
    measure_ms: u64,
    /// The run ends early when it has sent so many requests.
    most_requests: Option<u64>,
    /// A header whose values rotate over the requests of all connections.
    header: String,
    values: Vec<String>,
    /// The index of the first value.
    #[serde(default)]
    first_value: usize,
    /// The server's process, to measure its CPU time.
    pid: Option<u32>,
}

#[derive(Serialize)]
struct Report {
    requests: u64,
    seconds: f64,
    per_second: f64,
    /// Microseconds until the whole response was read, and until the first byte of its body was.
    latency: Latency,
    first_byte: Latency,
    /// Bytes of the responses' bodies.
    bytes: u64,
    /// All responses by status, including those before the measurement and those too late for it.
    statuses: BTreeMap<u16, u64>,
    failures: u64,
    last_failure: String,
    /// Microseconds of CPU time per request, of the server's process and of this one. `null` without
    /// `/proc`.
    server_cpu: Option<f64>,
    own_cpu: Option<f64>,
}

#[derive(Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    /// Of times in nanoseconds.
    fn of(times: &hdrhistogram::Histogram<u64>) -> Self {
        let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            mean: times.mean() / 1e3,
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            max: times.max() as f64 / 1e3,
        }
    }
}

struct Run {
    plan: Plan,
    header: HeaderName,
    values: Vec<HeaderValue>,
    host: HeaderValue,
    path: Uri,
    body: Option<Bytes>,
    measure_from: Instant,
    end: Instant,
    requests_left: Cell<u64>,
    next_value: Cell<usize>,
    failures: Cell<u64>,
    last_failure: RefCell<String>,
    statuses: RefCell<BTreeMap<u16, u64>>,
    /// Nanoseconds.
    latencies: RefCell<hdrhistogram::Histogram<u64>>,
    first_bytes: RefCell<hdrhistogram::Histogram<u64>>,
    bytes: Cell<u64>,
}

type Fault = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let plan: Plan = serde_json::from_reader(std::io::stdin().lock())?;
    let report = LocalSet::new().run_until(run(plan)).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn run(plan: Plan) -> Result<Report, Fault> {
    if plan.values.is_empty() || plan.connections == 0 {
        return Err("at least one connection and one value are needed".into());
    }
    let measure_from = Instant::now() + Duration::from_millis(plan.warmup_ms);
    let run = Rc::new(Run {
        header: plan.header.parse()?,
        values: plan.values.iter().map(|value| value.parse()).collect::<Result<_, _>>()?,
        host: plan.address.parse()?,
        path: plan.path.parse()?,
        body: plan.body.clone().map(Bytes::from),
        measure_from,
        end: measure_from + Duration::from_millis(plan.measure_ms),
        requests_left: Cell::new(plan.most_requests.unwrap_or(u64::MAX)),
        next_value: Cell::new(plan.first_value),
        failures: Cell::new(0),
        last_failure: RefCell::default(),
        statuses: RefCell::default(),
        latencies: RefCell::new(hdrhistogram::Histogram::new(3)?),
        first_bytes: RefCell::new(hdrhistogram::Histogram::new(3)?),
        bytes: Cell::new(0),
        plan,
    });
    let mut connections = JoinSet::new();
    for _ in 0..run.plan.connections {
        connections.spawn_local(connection(Rc::clone(&run)));
    }

    tokio::time::sleep_until(run.measure_from.into()).await;
    let cpu_before = (run.plan.pid.and_then(cpu::time_of), cpu::time_of(std::process::id()));
    if let Ok(ended) = tokio::time::timeout_at(run.end.into(), end(&mut connections)).await {
        ended?;
    }
    let measured = Instant::now().min(run.end) - run.measure_from;
    let cpu_after = (run.plan.pid.and_then(cpu::time_of), cpu::time_of(std::process::id()));
    end(&mut connections).await?;
    if run.failures.get() >= MOST_FAILURES {
        return Err(format!("{} failures, the last: {}", run.failures.get(), run.last_failure.borrow()).into());
    }
    Ok(report(&run, measured, cpu_before, cpu_after))
}

/// Waits until every connection has ended.
async fn end(connections: &mut JoinSet<()>) -> Result<(), Fault> {
    while let Some(ended) = connections.join_next().await {
        ended?;
    }
    Ok(())
}

type CpuTimes = (Option<Duration>, Option<Duration>);

fn report(run: &Run, measured: Duration, before: CpuTimes, after: CpuTimes) -> Report {
    let latencies = run.latencies.borrow();
    let seconds = measured.as_secs_f64();
    let requests = latencies.len();
    let per_request = |before: Option<Duration>, after: Option<Duration>| {
        Some((after?.saturating_sub(before?)).as_secs_f64() * 1e6 / requests.max(1) as f64)
    };
    Report {
        requests,
        seconds,
        per_second: requests as f64 / seconds,
        latency: Latency::of(&latencies),
        first_byte: Latency::of(&run.first_bytes.borrow()),
        bytes: run.bytes.get(),
        statuses: run.statuses.borrow().clone(),
        failures: run.failures.get(),
        last_failure: run.last_failure.borrow().clone(),
        server_cpu: per_request(before.0, after.0),
        own_cpu: per_request(before.1, after.1),
    }
}

/// Opens connections one after the other until the time is up. One is enough unless it breaks.
async fn connection(run: Rc<Run>) {
    while Instant::now() < run.end && run.requests_left.get() > 0 && run.failures.get() < MOST_FAILURES {
        if let Err(fault) = requests(&run).await {
            run.failures.set(run.failures.get() + 1);
            *run.last_failure.borrow_mut() = fault.to_string();
        }
    }
}

/// Sends requests on one connection until the time is up or the connection breaks.
async fn requests(run: &Run) -> Result<(), Fault> {
    let stream = TcpStream::connect(&run.plan.address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    loop {
        let sent_at = Instant::now();
        let left = run.requests_left.get();
        if sent_at >= run.end || left == 0 {
            return Ok(());
        }
        run.requests_left.set(left - 1);
        let answer = tokio::time::timeout(PATIENCE, exchange(run, &mut sender)).await??;
        let answered_at = Instant::now();
        *run.statuses.borrow_mut().entry(answer.status).or_insert(0) += 1;
        if answered_at >= run.measure_from && answered_at < run.end {
            let nanos = |until: Instant| u64::try_from((until - sent_at).as_nanos());
            run.latencies.borrow_mut().record(nanos(answered_at)?)?;
            run.first_bytes.borrow_mut().record(nanos(answer.first_byte_at.unwrap_or(answered_at))?)?;
            run.bytes.set(run.bytes.get() + answer.bytes);
        }
    }
}

/// A response that was read.
struct Answer {
    status: u16,
    first_byte_at: Option<Instant>,
    bytes: u64,
}

/// Sends one request and reads its whole response.
async fn exchange(run: &Run, sender: &mut SendRequest<Full<Bytes>>) -> Result<Answer, Fault> {
    let turn = run.next_value.get() % run.values.len();
    run.next_value.set(turn + 1);
    let mut request = Request::new(Full::new(run.body.clone().unwrap_or_default()));
    *request.uri_mut() = run.path.clone();
    request.headers_mut().insert(HOST, run.host.clone());
    request.headers_mut().insert(run.header.clone(), run.values[turn].clone());
    if run.body.is_some() {
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let mut read = Answer { status: answer.status().as_u16(), first_byte_at: None, bytes: 0 };
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            read.bytes += data.len() as u64;
            read.first_byte_at.get_or_insert_with(Instant::now);
        }
    }
    Ok(read)
}
