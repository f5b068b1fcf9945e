//! An upstream that answers chat completions with a stream of events, as fast as they are taken: one
//! event for each token of `max_tokens`. Listens on a free loopback port, which it prints. `model`
//! says how the events are written: `events`, each in an HTTP chunk of its own; `blocks`, as many as
//! fit into 32 KiB in each chunk.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

const BLOCK: usize = 32 * 1024;
const PROMPT_TOKENS: u64 = 20;
/// Events differ, because a proxy may take a stream of equal ones for a model that is stuck.
const WORDS: [&str; 8] = [" every", " token", " of", " this", " answer", " is", " one", " word"];

#[derive(Deserialize)]
struct Completion {
    model: String,
    max_tokens: u64,
    #[serde(default)]
    stream_options: StreamOptions,
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// The events of all words, with and without the `usage` of streams that end with it.
struct Events {
    single: Vec<Bytes>,
    /// Copies of all of them, in turn.
    block: Bytes,
    block_events: u64,
}

impl Events {
    fn new(usage: &str) -> Self {
        let head = r#"{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","system_fingerprint":"fp_bench","choices":"#;
        let event = |word: &str| {
            format!(
                "data: {head}[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\"logprobs\":null,\"finish_reason\":null}}]{usage}}}\n\n"
            )
        };
        let single: Vec<_> = WORDS.iter().map(|word| Bytes::from(event(word))).collect();
        let cycle = single.concat();
        let times = (BLOCK / cycle.len()).max(1);
        Self { single, block: cycle.repeat(times).into(), block_events: (times * WORDS.len()) as u64 }
    }
}

/// The rest of one answer.
struct Answer {
    events: Rc<Events>,
    in_blocks: bool,
    sent: u64,
    all: u64,
    /// The last events.
    end: Option<Bytes>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.all - self.sent;
        let bytes = if left == 0 {
            self.end.take()
        } else if self.in_blocks && left >= self.events.block_events {
            self.sent += self.events.block_events;
            Some(self.events.block.clone())
        } else {
            let word = usize::try_from(self.sent).unwrap_or_default() % self.events.single.len();
            self.sent += 1;
            Some(self.events.single[word].clone())
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn end(completion: &Completion) -> Bytes {
    let tokens = completion.max_tokens;
    let usage = if completion.stream_options.include_usage {
        format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"system_fingerprint\":\"fp_bench\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{PROMPT_TOKENS},\"completion_tokens\":{tokens},\"total_tokens\":{}}}}}\n\n",
            PROMPT_TOKENS + tokens
        )
    } else {
        String::new()
    };
    format!("{usage}data: [DONE]\n\n").into()
}

async fn answer(request: Request<Incoming>, events: Rc<[Rc<Events>; 2]>) -> Result<Response<Answer>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let completion: Result<Completion, _> = serde_json::from_slice(&body);
    let Ok(completion) = completion else {
        let nothing = Answer { events: Rc::clone(&events[0]), in_blocks: false, sent: 0, all: 0, end: None };
        let mut response = Response::new(nothing);
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let answer = Answer {
        events: Rc::clone(&events[usize::from(completion.stream_options.include_usage)]),
        in_blocks: completion.model == "blocks",
        sent: 0,
        all: completion.max_tokens,
        end: Some(end(&completion)),
    };
    let mut response = Response::new(answer);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    LocalSet::new().run_until(serve()).await
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let events = Rc::new([Rc::new(Events::new("")), Rc::new(Events::new(",\"usage\":null"))]);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let events = Rc::clone(&events);
        spawn_local(async move {
            let service = service_fn(|request| answer(request, Rc::clone(&events)));
            // Clients leave when a measurement is over.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
