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
#![forbid(unsafe_code)]

mod add;
mod agent;
mod call;
mod check;
mod del;
mod failure;
mod gc;
mod grpc;
mod names;
mod npa;
mod recorded;
mod settings;
mod status;

use std::process::ExitCode;

use serde_json::Value;
use vpcnet_cni::{ErrorObject, NetConf, SpecVersion, Verb, version_answer};
use vpcnet_plugin::print;

use crate::call::Call;
use crate::failure::Failure;

/// musl's maps memory for each size of object apart, a dozen system calls and page faults in a process that needs 20 KiB.
/// This one maps 64 KiB once.
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let command = std::env::var_os("CNI_COMMAND").unwrap_or_default();
    if command.is_empty() {
        return vpcnet_plugin::about("aws-cni", env!("CARGO_PKG_VERSION"));
    }
    let mut stdin = Vec::new();
    let read = vpcnet_plugin::read_stdin(&mut stdin);
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
    let log = call.log();
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
