//! `tollgate`: the command line for operators, a client of the admin API. docs/cli.md is its
//! manual.
//!
//! ```text
//! args ─▶ command ─┬─ credential, endpoint ── client ─▶ the admin API
//!                  └─ import │ output ── view ── summary ─▶ stdout
//! ```
//!
//! Requests are built per endpoint, but responses have no types here: `view` prints any JSON, so
//! that fields of a newer server appear too. `summary` shortens the nested values that it
//! recognises.
// For wasm32 the package is only the Worker, and this target is empty.
#![cfg_attr(target_arch = "wasm32", no_main)]
#![cfg(not(target_arch = "wasm32"))]

mod args;
mod cells;
mod client;
mod command;
mod credential;
mod endpoint;
mod failure;
mod import;
mod output;
mod summary;
mod view;

#[cfg(test)]
mod reference;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::cli::Cli::parse();
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let Err(failure) = command::run(cli, &variable, &mut io::stdout().lock()) else { return ExitCode::SUCCESS };
    if let Some(message) = failure.message() {
        // Without stderr the exit code remains.
        let _ = writeln!(io::stderr(), "tollgate: {}", cells::one_line(message));
    }
    failure.exit_code()
}
