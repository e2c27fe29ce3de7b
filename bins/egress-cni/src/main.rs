//! The second CNI plugin of the chain: it gives a pod that has an address of one family a way out in the other, by a second
//! link, an address of the node's own choosing and source NAT on the node. IPv4 for the pods of an IPv6 cluster, IPv6 for
//! those of an IPv4 cluster; the configuration's range says which.
//!
//! It keeps what it gave out in files as `host-local` does (see [`store`]), so that either continues with the other's pods, and
//! runs no other program. An ADD happens under the store's lock from the choice of the address to the last route: so whoever has
//! the lock sees no half-made pod, but for those of processes that died, and what such a one left is told by the kernel.
//!
//! | module | for |
//! |---|---|
//! | [`call`] | the runtime's input, checked |
//! | [`settings`] | the plugin's own keys in the configuration |
//! | [`range`] | which address is next (pure) |
//! | [`store`] | whose address is whose, on disk |
//! | [`add`], [`del`], [`check`], [`gc`], [`status`] | one verb each |
//! | [`remove`] | what DEL and GC take away |
//! | [`names`] | the host's end, and the AWS VPC CNI's chains |
//! | [`failure`] | everything that can go wrong, with its code and words |
#![forbid(unsafe_code)]

mod add;
mod call;
mod check;
mod del;
mod failure;
mod gc;
mod names;
mod range;
mod remove;
mod settings;
mod status;
mod store;

use std::process::ExitCode;

use serde_json::Value;
use vpcnet_cni::{ErrorObject, NetConf, SpecVersion, Verb, version_answer};
use vpcnet_plugin::print;

use crate::call::Call;
use crate::failure::Failure;

/// musl's maps memory for each size of object apart; this one maps 64 KiB once.
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let command = std::env::var_os("CNI_COMMAND").unwrap_or_default();
    if command.is_empty() {
        return vpcnet_plugin::about("egress-cni", env!("CARGO_PKG_VERSION"));
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
        details: String::new(),
    };
    object.to_json()
}
