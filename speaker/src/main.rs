//! The speaker: answers ARP and NDP for the addresses this node holds.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferrolb_speaker::main()
}
