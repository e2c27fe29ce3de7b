//! The connections that the kernel tracks, as far as telling takes what they still need of the node: ends, mark, translation.
//!
//! One dump of ctnetlink, filtered by the kernel. What can be changed is a connection's mark.

use std::net::Ipv4Addr;

use netlink_packet_core::Emitable;

use crate::netlink::{Errno, NetlinkError, Socket, parse};

/// `NFNL_SUBSYS_CTNETLINK` in the upper byte, `IPCTNL_MSG_CT_GET` in the lower.
const GET: u16 = 1 << 8 | 1;
/// The same with `IPCTNL_MSG_CT_NEW`, which changes what is there unless it is told to create.
const CHANGE: u16 = 1 << 8;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;

// `enum ctattr_type` and what is nested in it (linux/netfilter/nfnetlink_conntrack.h).
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const MARK: u16 = 8;
const MARK_MASK: u16 = 21;
const STATUS_MASK: u16 = 26;
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const INFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;

/// `IPS_SRC_NAT`: the source was replaced by another.
const SOURCE_NAT: u32 = 1 << 4;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: both sides are done, and the entry waits for its time to pass.
const ENDED: [u8; 2] = [7, 8];

/// The addresses of one direction's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// From.
    pub source: Ipv4Addr,
    /// To.
    pub destination: Ipv4Addr,
}

/// A tracked IPv4 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// As the first packet was before any translation.
    pub original: Direction,
    /// As the answers are when they come in, so after translation.
    pub reply: Direction,
    /// The connection's mark.
    pub mark: u32,
    /// Its source was replaced.
    pub source_translated: bool,
    /// A TCP connection that both sides have closed.
    pub ended: bool,
}

/// Which connections are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Those whose mark has all these bits.
    Marked(u32),
    /// Those whose source was replaced.
    SourceTranslated,
}

impl Filter {
    fn takes(self, connection: &Connection) -> bool {
        match self {
            Self::Marked(mark) => connection.mark & mark == mark,
            Self::SourceTranslated => connection.source_translated,
        }
    }
}

/// Asks the kernel for connections.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// For the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::of(netlink_sys::protocols::NETLINK_NETFILTER).map(Self)
    }

    /// How many of the connections that the filter takes are `wanted`. They are not gathered: a node may have hundreds of thousands.
    /// One that comes or goes meanwhile may be among them or not.
    ///
    /// # Errors
    /// The dump failed; a kernel without `nf_conntrack_netlink` refuses it.
    pub fn count(
        &mut self,
        filter: Filter,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<usize, NetlinkError> {
        let one = |body: &[u8]| {
            let connection = read(body)?;
            (filter.takes(&connection) && wanted(&connection)).then_some(())
        };
        let all = self.0.dump(GET, &Question(filter), "list connections", one)?;
        Ok(all.len())
    }

    /// Sets these bits in the marks of the connections that the filter takes and that are `wanted`; says of how many. One that
    /// has ended meanwhile is passed over.
    ///
    /// # Errors
    /// As [`Self::count`], or a change was refused; some may have been made.
    pub fn mark(
        &mut self,
        filter: Filter,
        wanted: impl Fn(&Connection) -> bool,
        bits: u32,
    ) -> Result<usize, NetlinkError> {
        let one = |body: &[u8]| {
            let connection = read(body)?;
            let taken = filter.takes(&connection) && wanted(&connection);
            taken.then(|| Marking::of(body, bits)).flatten()
        };
        let all = self.0.dump(GET, &Question(filter), "list connections", one)?;
        let mut marked = 0;
        for marking in &all {
            let what = || "set the mark of a connection".to_owned();
            match self.0.query(CHANGE, marking, what, |_| {}) {
                Ok(()) => marked += 1,
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(marked)
    }
}

/// Which connection gets which bits.
struct Marking {
    /// `CTA_TUPLE_ORIG` as the kernel wrote it, ports and all.
    tuple: Vec<u8>,
    bits: u32,
}

impl Marking {
    fn of(body: &[u8], bits: u32) -> Option<Self> {
        let tuple = parse::attributes(body, HEADER).find(|(kind, _)| *kind == TUPLE_ORIGINAL)?;
        Some(Self {
            tuple: tuple.1.to_vec(),
            bits,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        let mut out = vec![IPV4, 0, 0, 0];
        let bits = self.bits.to_be_bytes();
        for (kind, value) in [
            (TUPLE_ORIGINAL | NESTED, self.tuple.as_slice()),
            (MARK, &bits),
            (MARK_MASK, &bits),
        ] {
            // A tuple is some 50 bytes long.
            let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_ne_bytes());
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }
}

impl Emitable for Marking {
    fn buffer_len(&self) -> usize {
        self.bytes().len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(self.bytes()) {
            *to = from;
        }
    }
}

/// The dump's request. Kernels before 5.19 pass the status over and give all; the answer is looked at anyway.
struct Question(Filter);

impl Question {
    fn bytes(&self) -> Vec<u8> {
        let (value, mask, bits) = match self.0 {
            Filter::Marked(mark) => (MARK, MARK_MASK, mark),
            Filter::SourceTranslated => (STATUS, STATUS_MASK, SOURCE_NAT),
        };
        let mut out = vec![IPV4, 0, 0, 0];
        for kind in [value, mask] {
            out.extend_from_slice(&8_u16.to_ne_bytes());
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(&bits.to_be_bytes());
        }
        out
    }
}

impl Emitable for Question {
    fn buffer_len(&self) -> usize {
        HEADER + 16
    }

    fn emit(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(self.bytes()) {
            *to = from;
        }
    }
}

/// A connection in the kernel's answer; none for what is not readable as an IPv4 one.
fn read(body: &[u8]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    let (mut mark, mut status, mut ended) = (0, 0, false);
    for (kind, value) in parse::attributes(body, HEADER) {
        match kind {
            TUPLE_ORIGINAL => original = direction(value),
            TUPLE_REPLY => reply = direction(value),
            STATUS => status = big_endian(value)?,
            // Left out when it is 0.
            MARK => mark = big_endian(value)?,
            PROTOCOL_INFO => ended = has_ended(value),
            _ => {}
        }
    }
    Some(Connection {
        original: original?,
        reply: reply?,
        mark,
        source_translated: status & SOURCE_NAT != 0,
        ended,
    })
}

fn direction(tuple: &[u8]) -> Option<Direction> {
    let ip = nested(tuple, TUPLE_IP)?;
    Some(Direction {
        source: address(nested(ip, IPV4_SOURCE)?)?,
        destination: address(nested(ip, IPV4_DESTINATION)?)?,
    })
}

fn has_ended(info: &[u8]) -> bool {
    let state = nested(info, INFO_TCP).and_then(|tcp| nested(tcp, TCP_STATE));
    state
        .and_then(|state| state.first())
        .is_some_and(|state| ENDED.contains(state))
}

fn nested(attribute: &[u8], wanted: u16) -> Option<&[u8]> {
    parse::attributes(attribute, 0).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn big_endian(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the kernel writes it; a nested attribute has its flag.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn nest(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &inner.concat())
    }

    fn tuple(kind: u16, direction: Direction) -> Vec<u8> {
        let ip = nest(
            TUPLE_IP,
            &[
                attribute(IPV4_SOURCE, &direction.source.octets()),
                attribute(IPV4_DESTINATION, &direction.destination.octets()),
            ],
        );
        // Protocol and ports, which are passed over.
        let ports = nest(2, &[attribute(1, &[6]), attribute(2, &[0x1f, 0x90])]);
        nest(kind, &[ip, ports])
    }

    fn message(c: &Connection, tcp_state: Option<u8>) -> Vec<u8> {
        // Confirmed, and perhaps translated.
        let status: u32 = 8 | if c.source_translated { SOURCE_NAT } else { 0 };
        let mut body = vec![IPV4, 0, 0, 0];
        body.extend(tuple(TUPLE_ORIGINAL, c.original));
        body.extend(tuple(TUPLE_REPLY, c.reply));
        body.extend(attribute(STATUS, &status.to_be_bytes()));
        if let Some(state) = tcp_state {
            let tcp = nest(INFO_TCP, &[attribute(TCP_STATE, &[state]), attribute(2, &[7])]);
            body.extend(nest(PROTOCOL_INFO, &[tcp]));
        }
        if c.mark != 0 {
            body.extend(attribute(MARK, &c.mark.to_be_bytes()));
        }
        body
    }

    fn directions() -> impl Strategy<Value = Direction> {
        (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(source, destination)| Direction {
            source: source.into(),
            destination: destination.into(),
        })
    }

    fn connections() -> impl Strategy<Value = (Connection, Option<u8>)> {
        let state = proptest::option::of(0_u8..12);
        (directions(), directions(), any::<u32>(), any::<bool>(), state).prop_map(
            |(original, reply, mark, source_translated, state)| {
                let ended = matches!(state, Some(7 | 8));
                let connection = Connection {
                    original,
                    reply,
                    mark,
                    source_translated,
                    ended,
                };
                (connection, state)
            },
        )
    }

    proptest! {
        #[test]
        fn a_connection_reads_back_as_the_kernel_writes_it((connection, state) in connections()) {
            prop_assert_eq!(read(&message(&connection, state)), Some(connection));
        }

        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn an_answer_that_is_cut_short_is_none_or_the_connection_without_its_end((connection, state) in connections(), cut in 0_usize..200) {
            let whole = message(&connection, state);
            let read = read(whole.get(..cut).unwrap_or(&whole));
            prop_assert!(read.is_none_or(|r| r.original == connection.original && r.reply == connection.reply));
        }
    }

    #[test]
    fn a_filter_wants_all_bits_of_a_mark() {
        let none = Direction {
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::UNSPECIFIED,
        };
        let connection = Connection {
            original: none,
            reply: none,
            mark: 0x4080,
            source_translated: false,
            ended: false,
        };
        assert!(Filter::Marked(0x80).takes(&connection));
        assert!(!Filter::Marked(0x180).takes(&connection));
        assert!(!Filter::SourceTranslated.takes(&connection));
    }
}
