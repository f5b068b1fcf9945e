//! The reference in docs/cli.md: the help of every command. A test compares it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::args::cli::Cli;

const START: &str = "<!-- reference: written by `TOLLGATE_WRITE_REFERENCE=1 cargo test reference` -->\n";
const WIDTH: usize = 100;

fn reference() -> String {
    let mut text = String::new();
    add(&mut Cli::command().term_width(WIDTH), "tollgate", &mut text);
    // Only the help of `tollgate` itself lists the global options.
    let mut quiet = Cli::command().term_width(WIDTH).mut_args(|arg| arg.hide(true));
    quiet.build();
    for command in quiet.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        add_all(command, "tollgate", &mut text);
    }
    text
}

fn add_all(command: &mut Command, parent: &str, text: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    *command = command.clone().term_width(WIDTH).mut_args(|arg| match arg.get_id().as_str() {
        "help" => arg.hide(true),
        _ => arg,
    });
    add(command, &name, text);
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        add_all(command, &name, text);
    }
}

fn add(command: &mut Command, name: &str, text: &mut String) {
    let help = command.render_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    write!(text, "\n### `{name}`\n\n```text\n{}\n```\n", help.join("\n")).unwrap();
}

#[test]
fn the_manual_has_the_help_of_every_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let manual = fs::read_to_string(&path).unwrap();
    let (prose, written) = manual.split_once(START).expect("docs/cli.md has no reference");
    if env::var_os("TOLLGATE_WRITE_REFERENCE").is_some() {
        fs::write(&path, format!("{prose}{START}{}", reference())).unwrap();
    } else {
        assert_eq!(written, reference(), "run TOLLGATE_WRITE_REFERENCE=1 cargo test reference");
    }
}
