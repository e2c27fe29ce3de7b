//! What the CNI plugins of this project have in common as processes: where they log to, and how they answer. It must not
//! know networks, the kernel or the node agent.
#![forbid(unsafe_code)]

mod log;

use std::io::{Read, Write};
use std::process::ExitCode;

use serde_json::Value;
use vpcnet_cni::{Code, SpecVersion};

pub use log::{Level, Log, LogTo};

/// More than any configuration; a runtime that sends on and on must not fill the node's memory.
const LONGEST_STDIN: u64 = 16 << 20;

/// The configuration, to the end of standard input or 16 MiB of it. What was read before an error counts too.
///
/// # Errors
/// Standard input cannot be read.
pub fn read_stdin(to: &mut Vec<u8>) -> std::io::Result<usize> {
    std::io::stdin().lock().take(LONGEST_STDIN).read_to_end(to)
}

/// The answer goes out in one write, so that no reader sees half of it.
pub fn print(answer: &Value, code: ExitCode) -> ExitCode {
    let mut text = answer.to_string();
    text.push('\n');
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        // Nobody reads the answer: the status is all that is left to tell it.
        Err(_) => ExitCode::from(u8::try_from(Code::IO_FAILURE.0).unwrap_or(1)),
    }
}

/// What a plugin that is started by hand, without a verb, says of itself.
pub fn about(plugin: &str, version: &str) -> ExitCode {
    let versions = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
    let text = format!("vpcnet CNI plugin {plugin} {version}\nCNI protocol versions supported: {versions}\n");
    match std::io::stderr().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
