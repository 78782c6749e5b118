//! The one program of FerroLB's images: the controller, the speaker and the operator's tool.

mod program;

use std::process::{ExitCode, Termination as _};

use program::{Flags, Program};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let node_name = std::env::var_os("METALLB_NODE_NAME");
    let flags = Flags::new(&ferrolb_controller::command(), &ferrolb_speaker::command());
    match program::choose(&words, node_name.as_deref(), &flags) {
        Program::Controller => ferrolb_controller::main(),
        Program::Speaker => ferrolb_speaker::main(),
        Program::Tool => ferrolb_cli::command::run().report(),
    }
}
