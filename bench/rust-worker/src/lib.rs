//! Two Workers in one: with the variable `FORWARD` it forwards every request, without it it answers
//! with a constant.

use std::cell::OnceCell;
use worker::{Context, Env, Fetch, Request, Response, Result, event};

thread_local! {
    /// Read once per isolate, so that reading it costs nothing later.
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
