//! Carrying changes out.

use super::{Change, HostError};
use crate::netlink::{Errno, Request, Socket};
use crate::sysctl::Tree;

/// Makes the changes in order, goes on to the end, and gives what failed. A change that somebody else made meanwhile
/// (EEXIST on add; ENOENT, ESRCH, EADDRNOTAVAIL on delete) has not failed.
pub fn apply(socket: &mut Socket, tree: &Tree, changes: &[Change]) -> Vec<HostError> {
    let mut errors = Vec::new();
    let mut batch: Vec<Request> = Vec::new();
    for change in changes {
        match change {
            Change::Netlink(request) => batch.push(request.clone()),
            Change::Sysctl { key, value } => {
                flush(socket, &mut batch, &mut errors);
                if let Err(error) = tree.ensure(key, value) {
                    errors.push(error.into());
                }
            }
        }
    }
    flush(socket, &mut batch, &mut errors);
    errors
}

fn flush(socket: &mut Socket, batch: &mut Vec<Request>, errors: &mut Vec<HostError>) {
    if batch.is_empty() {
        return;
    }
    match socket.run(batch) {
        Ok(outcomes) => {
            for (request, outcome) in batch.iter().zip(outcomes) {
                if let Err(refusal) = outcome
                    && !is_done(request, refusal.errno)
                {
                    errors.push(HostError::Netlink(refusal.into()));
                }
            }
        }
        Err(error) => errors.push(error.into()),
    }
    batch.clear();
}

fn is_done(request: &Request, errno: Errno) -> bool {
    match request {
        Request::AddAddress { .. } | Request::AddRoute(_) | Request::AddRule(_) => errno == Errno::EXIST,
        Request::DeleteAddress { .. } => errno == Errno::ADDRNOTAVAIL,
        Request::DeleteRoute(_) => errno == Errno::SRCH,
        Request::DeleteRule(_) => errno == Errno::NOENT,
        _ => false,
    }
}
