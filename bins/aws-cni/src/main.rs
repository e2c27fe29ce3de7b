//! The CNI plugin: the container runtime runs it once for each ADD, DEL and CHECK of a pod, and for GC and STATUS.
//!
//! It asks the node agent for an address, makes the pod's links, routes and rules, and says what it made; it keeps
//! nothing between calls. Everything that can be checked is checked before the first change; what fails half-way is
//! undone; DEL and GC go on to the end and tell all that went wrong.
//!
//! The process lives for about a millisecond, so what costs time is not in it: one thread, one connection, one call, no
//! event loop, no HTTP/2, no list of all links or rules. gRPC is there for whom it cannot do without: the network policy
//! agent, and a node agent without the direct socket (the AWS VPC CNI's, and older releases).
//!
//! | module | for |
//! |---|---|
//! | [`call`] | the runtime's input, checked |
//! | [`settings`] | the plugin's own keys in the configuration |
//! | [`add`], [`del`], [`check`], [`gc`], [`status`] | one verb each |
//! | [`agent`], [`npa`] | the calls to the node agent and to the network policy agent |
//! | [`grpc`] | the event loop for those of them that are gRPC |
//! | [`names`] | host veths and the entries of the result |
//! | [`recorded`] | what an earlier ADD's result says |
//! | [`failure`] | everything that can go wrong, with its code and words |
//! | [`log`] | the log file |
#![forbid(unsafe_code)]

mod add;
mod agent;
mod call;
mod check;
mod del;
mod failure;
mod gc;
mod grpc;
mod log;
mod names;
mod npa;
mod recorded;
mod settings;
mod status;

use std::io::{Read, Write};
use std::process::ExitCode;

use serde_json::Value;
use vpcnet_cni::{Code, ErrorObject, NetConf, SpecVersion, Verb, version_answer};

use crate::call::Call;
use crate::failure::Failure;
use crate::log::Log;

/// musl's maps memory for each size of object apart, a dozen system calls and page faults in a process that needs 20 KiB.
/// This one maps 64 KiB once.
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// More than any configuration; a runtime that sends on and on must not fill the node's memory.
const LONGEST_STDIN: u64 = 16 << 20;

fn main() -> ExitCode {
    let command = std::env::var_os("CNI_COMMAND").unwrap_or_default();
    if command.is_empty() {
        return about();
    }
    let mut stdin = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(LONGEST_STDIN)
        .read_to_end(&mut stdin);
    if command == Verb::Version.as_str() {
        return print(&version_answer(&stdin), ExitCode::SUCCESS);
    }
    let version = NetConf::version_of(&stdin);
    std::panic::set_hook(Box::new(move |panic| {
        // Only a fault of ours comes here; the runtime shall get an error object all the same.
        let failure = Failure::Internal(panic.to_string());
        print(&error_object(version, &failure), ExitCode::FAILURE);
    }));
    let outcome = match read {
        Ok(_) => serve(&stdin),
        Err(source) => Err(Failure::Stdin(source)),
    };
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => print(&answer, ExitCode::SUCCESS),
        Err(failure) => print(&error_object(version, &failure), ExitCode::FAILURE),
    }
}

/// One call, from the checked input to the answer; none for verbs that answer nothing.
fn serve(stdin: &[u8]) -> Result<Option<Value>, Failure> {
    let call = Call::read(stdin, |name| std::env::var(name).ok())?;
    let log = Log::of(&call);
    let outcome = match call.env.verb {
        Verb::Add => add::add(&call, &log).map(Some),
        Verb::Del => del::del(&call, &log).map(|()| None),
        Verb::Check => check::check(&call).map(|()| None),
        Verb::Gc => gc::gc(&call, &log).map(|()| None),
        Verb::Status => status::status(&call).map(|()| None),
        Verb::Version => Ok(Some(version_answer(stdin))),
    };
    match &outcome {
        Ok(_) => log.info(|| format!("{} done", call.env.verb)),
        Err(failure) => log.error(|| format!("{} failed: {failure}", call.env.verb)),
    }
    outcome
}

fn error_object(version: SpecVersion, failure: &Failure) -> Value {
    let object = ErrorObject {
        version,
        code: failure.code(),
        msg: failure.to_string(),
        details: failure.details(),
    };
    object.to_json()
}

/// The answer goes out in one write, so that no reader sees half of it.
fn print(answer: &Value, code: ExitCode) -> ExitCode {
    let mut text = answer.to_string();
    text.push('\n');
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        // Nobody reads the answer: the status is all that is left to tell it.
        Err(_) => ExitCode::from(u8::try_from(Code::IO_FAILURE.0).unwrap_or(1)),
    }
}

/// Started by hand, without a verb.
fn about() -> ExitCode {
    let versions = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
    let text = format!(
        "vpcnet CNI plugin aws-cni {}\nCNI protocol versions supported: {versions}\n",
        env!("CARGO_PKG_VERSION")
    );
    match std::io::stderr().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
