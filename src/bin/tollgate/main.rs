//! `tollgate`: the operator's command line, a client of the admin API. docs/cli.md is its manual.
//!
//! ```text
//! args ─▶ command ─┬─ client ── endpoint ─▶ the admin API
//!                  └─ import │ output ── view ── summary ─▶ stdout
//! ```
//!
//! It knows the endpoints and not what they answer: `view` lays out whatever JSON comes, so a newer server's fields show too;
//! `summary` knows what nests in it, to say that in few words.
// For wasm32 the package is the Worker alone, and this target is empty.
#![cfg_attr(target_arch = "wasm32", no_main)]
#![cfg(not(target_arch = "wasm32"))]

mod args;
mod cells;
mod client;
mod command;
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
    let cli = args::Cli::parse();
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let Err(failure) = command::run(cli, &variable, &mut io::stdout().lock()) else { return ExitCode::SUCCESS };
    if let Some(message) = failure.message() {
        // There is nobody left to tell when stderr is closed.
        let _ = writeln!(io::stderr(), "tollgate: {}", cells::one_line(message));
    }
    failure.exit_code()
}
