//! The controller: gives Services of `type: LoadBalancer` addresses from the operator's pools.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferrolb_controller::main()
}
