//! `bindgen <module.wasm> <directory>` writes `index.js`, `index_bg.wasm` and `snippets/`.

use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(module), Some(directory), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: bindgen <module.wasm> <directory>");
        return ExitCode::from(2);
    };
    let written = Bindgen::new()
        .input_path(module)
        .out_name("index")
        .typescript(false)
        // A trap ends the instance of the wasm; src/runtime/js/entry.js replaces it.
        .reset_state_function(true)
        .force_enable_abort_handler(true)
        .remove_name_section(true)
        .module(true)
        .and_then(|bindgen| bindgen.generate(directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bindgen: {error:?}");
            ExitCode::FAILURE
        }
    }
}
