//! The whole fleet in one process, and the operator's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet::main()
}
