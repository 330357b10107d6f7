//! The `ff2ctl` program; all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    ff2ctl::main()
}
