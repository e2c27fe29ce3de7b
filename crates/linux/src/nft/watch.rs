//! Who touches our tables: the kernel tells of every nftables transaction, and in its last message of the process.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::TABLE;
use crate::netlink::parse;
use crate::watch::WatchError;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_NEWGEN`: the transaction is done.
const NEW_GENERATION: u16 = 15;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFTA_GEN_PROC_PID`, `NFTA_GEN_PROC_NAME`.
const PROCESS_ID: u16 = 2;
const PROCESS_NAME: u16 = 3;
/// Tables, chains, rules, sets, elements, objects and flow tables all name their table in their first attribute.
const NAME_OF_TABLE: u16 = 1;

/// The process that committed a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Its id, in the machine's first process namespace.
    pub pid: u32,
    /// Its name, 15 bytes at most.
    pub name: String,
}

/// A table of ours may not be as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The SNAT and mark table.
    pub snat: bool,
    /// A table of pods' egress, of either family.
    pub egress: bool,
    /// Who did it; none when messages were lost, and with them whether it was touched at all.
    pub by: Option<Culprit>,
}

/// A subscription to the transactions of the calling thread's network namespace. Does not block.
#[derive(Debug)]
pub struct TableWatch {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
    reader: Reader,
}

impl TableWatch {
    /// Subscribes.
    ///
    /// # Errors
    /// The kernel refused the socket or the group.
    pub fn open() -> Result<Self, WatchError> {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER)
            .map_err(WatchError::at("nftables socket"))?;
        socket
            .set_non_blocking(true)
            .map_err(WatchError::at("non-blocking"))?;
        socket.bind_auto().map_err(WatchError::at("bind"))?;
        socket
            .add_membership(GROUP)
            .map_err(WatchError::at("join nftables"))?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
            reader: Reader::default(),
        })
    }

    /// The next transaction that touched our table; none if there is nothing to read now.
    ///
    /// # Errors
    /// Reading failed.
    pub fn next_event(&mut self) -> Result<Option<Touched>, WatchError> {
        loop {
            if let Some(touched) = self.reader.done.pop_front() {
                return Ok(Some(touched));
            }
            self.buffer.clear();
            self.buffer.reserve(64 * 1024);
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => self.reader.read(&self.buffer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    (self.reader.ours, self.reader.egress) = (false, false);
                    return Ok(Some(Touched {
                        snat: true,
                        egress: true,
                        by: None,
                    }));
                }
                Err(source) => return Err(WatchError::at("receive nftables")(source)),
            }
        }
    }
}

impl AsFd for TableWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TableWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What was read of the transaction under way, and the finished ones that touched our table.
#[derive(Debug, Default)]
struct Reader {
    ours: bool,
    egress: bool,
    done: VecDeque<Touched>,
}

impl Reader {
    fn read(&mut self, datagram: &[u8]) {
        for frame in parse::frames(datagram) {
            if frame.kind >> 8 != SUBSYSTEM {
                continue;
            }
            if frame.kind & 0xff == NEW_GENERATION {
                let (snat, egress) = (std::mem::take(&mut self.ours), std::mem::take(&mut self.egress));
                if snat || egress {
                    self.done.push_back(Touched {
                        snat,
                        egress,
                        by: culprit(frame.body),
                    });
                }
            } else {
                self.ours |= frame.body.first() == Some(&IPV4) && names(frame.body, TABLE);
                self.egress |= names(frame.body, crate::egress::TABLE);
            }
        }
    }
}

fn names(body: &[u8], table: &str) -> bool {
    parse::attributes(body, HEADER)
        .any(|(kind, value)| kind == NAME_OF_TABLE && text(value) == table.as_bytes())
}

fn culprit(body: &[u8]) -> Option<Culprit> {
    let of =
        |wanted| parse::attributes(body, HEADER).find_map(|(kind, value)| (kind == wanted).then_some(value));
    Some(Culprit {
        pid: u32::from_be_bytes(of(PROCESS_ID)?.try_into().ok()?),
        name: String::from_utf8_lossy(text(of(PROCESS_NAME)?)).into_owned(),
    })
}

/// Without the terminating zero.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend_from_slice(&u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = u32::try_from(body.len() + 16).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&(SUBSYSTEM << 8 | kind).to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&body);
        bytes
    }

    fn end_of_transaction() -> Vec<u8> {
        let attributes: [(u16, &[u8]); 3] = [(1, &[0, 0, 0, 9]), (2, &[0, 0, 1, 2]), (3, b"nft\0")];
        message(NEW_GENERATION, 0, &attributes)
    }

    #[test]
    fn only_transactions_that_name_our_table_are_told_with_their_process() {
        let mut reader = Reader::default();
        reader.read(&[message(2, IPV4, &[(1, b"filter\0")]), end_of_transaction()].concat());
        reader.read(&[message(2, 10, &[(1, b"vpcnet\0")]), end_of_transaction()].concat());
        assert_eq!(reader.done, [], "another table, another family");
        reader.read(&message(2, IPV4, &[(1, b"vpcnet\0")]));
        assert_eq!(reader.done, [], "not committed yet");
        reader.read(&end_of_transaction());
        let by = Some(Culprit {
            pid: 258,
            name: "nft".to_owned(),
        });
        let touched = |snat, egress| Touched {
            snat,
            egress,
            by: by.clone(),
        };
        assert_eq!(reader.done, [touched(true, false)]);
        reader.read(&end_of_transaction());
        assert_eq!(reader.done.len(), 1, "told once");
        reader.done.clear();
        for family in [IPV4, 10] {
            reader.read(
                &[
                    message(2, family, &[(1, b"vpcnet_egress\0")]),
                    end_of_transaction(),
                ]
                .concat(),
            );
        }
        assert_eq!(reader.done, [touched(false, true), touched(false, true)]);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Reader::default().read(&bytes);
        }
    }
}
