//! `vpcnet-lab`: the lab's program; `vpcnet lab …` runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    vpcnet_lab::cli::main()
}
