//! Two Workers in one: with the variable `FORWARD` it sends every request on, without it it answers a constant.

use std::cell::OnceCell;
use worker::{Context, Env, Fetch, Request, Response, Result, event};

thread_local! {
    /// Looked up once in an isolate's life, so that asking costs nothing.
    static IS_FORWARD: OnceCell<bool> = const { OnceCell::new() };
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, _context: Context) -> Result<Response> {
    if IS_FORWARD.with(|is_forward| *is_forward.get_or_init(|| env.var("FORWARD").is_ok())) {
        Fetch::Request(request).send().await
    } else {
        Response::ok("ok\n")
    }
}
