//! nftables over netlink: just enough to write a few rules in one transaction and to read them back, without the `nft`
//! program, which nodes need not have.
//!
//! Numbers are those of linux/netfilter/nf_tables.h and nfnetlink.h; numbers in attributes are in network byte order there.

use netlink_packet_core::Emitable;

use crate::netlink::{Errno, NetlinkError, Socket, parse};

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(super) fn family(v6: bool) -> u8 {
    if v6 { 10 } else { 2 }
}

/// What a message does: `NFT_MSG_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Do {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
}

const NFT_SUBSYSTEM: u8 = 10;
/// Length of `struct nfgenmsg`: family, version, resource.
pub(super) const HEADER: usize = 4;
const NESTED: u16 = 0x8000;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// An attribute to be written, or looked for in what the kernel shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Nested(Vec<Attribute>),
}

impl Attribute {
    pub(super) fn bytes(kind: u16, value: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            value: Value::Bytes(value.into()),
        }
    }

    pub(super) fn number(kind: u16, value: u32) -> Self {
        Self::bytes(kind, value.to_be_bytes())
    }

    /// The kernel's names end with a zero byte.
    pub(super) fn text(kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        Self::bytes(kind, bytes)
    }

    pub(super) fn nested(kind: u16, value: impl Into<Vec<Self>>) -> Self {
        Self {
            kind,
            value: Value::Nested(value.into()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match &self.value {
            Value::Bytes(_) => self.kind,
            Value::Nested(_) => self.kind | NESTED,
        };
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&kind.to_ne_bytes());
        match &self.value {
            Value::Bytes(bytes) => out.extend_from_slice(bytes),
            Value::Nested(inner) => inner.iter().for_each(|one| one.encode(out)),
        }
        // What we write is far shorter than an attribute can be.
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = out.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }

    /// Whether the kernel shows this attribute with this value. It may show more beside it: newer kernels do.
    fn is_in(&self, found: &[u8]) -> bool {
        parse::attributes(found, 0).any(|(kind, value)| {
            kind == self.kind
                && match &self.value {
                    Value::Bytes(bytes) => bytes == value,
                    Value::Nested(inner) => all_in(inner, value),
                }
        })
    }
}

/// Whether the kernel shows all these attributes.
pub(super) fn all_in(wanted: &[Attribute], found: &[u8]) -> bool {
    wanted.iter().all(|one| one.is_in(found))
}

/// A message about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Do,
    pub(super) v6: bool,
    pub(super) attributes: Vec<Attribute>,
}

impl Message {
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = vec![family(self.v6), 0, 0, 0];
        self.attributes.iter().for_each(|one| one.encode(&mut body));
        body
    }

    fn kind(&self) -> u16 {
        u16::from(NFT_SUBSYSTEM) << 8 | self.kind as u16
    }

    fn flags(&self) -> u16 {
        match self.kind {
            // Another writer's table is not added to.
            Do::NewTable => CREATE | EXCL,
            Do::NewChain => CREATE,
            Do::NewRule => CREATE | APPEND,
            _ => 0,
        }
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.body().len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(self.body()) {
            *to = from;
        }
    }
}

/// A socket to nftables in the namespace it was opened in.
#[derive(Debug)]
pub(super) struct Nf(Socket);

impl Nf {
    /// In the namespace of the calling thread.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Socket::of(netlink_sys::protocols::NETLINK_NETFILTER).map(Self)
    }

    /// All of the messages or none. `what` names the change in errors.
    pub(super) fn transact(&mut self, messages: &[Message], what: &str) -> Result<(), NetlinkError> {
        let messages = messages.iter().map(|one| (one.kind(), one.flags(), one.clone()));
        self.0.transaction(NFT_SUBSYSTEM, messages, what)
    }

    /// The body of the object that is asked for; none if there is none.
    pub(super) fn get(&mut self, question: &Message, what: &str) -> Result<Option<Vec<u8>>, NetlinkError> {
        let mut found = None;
        match self.0.query(
            question.kind(),
            question,
            || what.to_owned(),
            |body| found = Some(body.to_vec()),
        ) {
            Ok(()) => Ok(found),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bodies of all the objects that are asked for.
    pub(super) fn list(&mut self, question: &Message, what: &str) -> Result<Vec<Vec<u8>>, NetlinkError> {
        match self
            .0
            .dump(question.kind(), question, what, |body| Some(body.to_vec()))
        {
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(Vec::new()),
            other => other,
        }
    }
}

/// The value of an attribute of an object's body.
pub(super) fn attribute(body: &[u8], wanted: u16) -> Option<&[u8]> {
    parse::attributes(body, HEADER).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// The value of an attribute inside another.
pub(super) fn inside(value: &[u8], wanted: u16) -> Option<&[u8]> {
    parse::attributes(value, 0).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(attributes: &[Attribute]) -> Vec<u8> {
        let mut out = Vec::new();
        attributes.iter().for_each(|one| one.encode(&mut out));
        out
    }

    fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
        let kinds = proptest::collection::btree_set(1_u16..50, 0..5);
        let leaf = (kinds, any::<Vec<u8>>()).prop_map(|(kinds, bytes)| {
            let one = |kind| Attribute::bytes(kind, bytes.clone());
            kinds.into_iter().map(one).collect::<Vec<_>>()
        });
        leaf.prop_recursive(3, 20, 4, |inner| {
            (any::<[u8; 3]>(), inner)
                .prop_map(|(bytes, inner)| vec![Attribute::bytes(60, bytes), Attribute::nested(61, inner)])
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_found_in_it_also_beside_more(wanted in attributes(), more: [u8; 5]) {
            prop_assert!(all_in(&wanted, &encoded(&wanted)));
            let beside = [vec![Attribute::bytes(99, more)], wanted.clone()].concat();
            prop_assert!(all_in(&wanted, &encoded(&beside)));
        }

        #[test]
        fn a_changed_byte_is_seen(value in proptest::collection::vec(any::<u8>(), 1..20), at: usize) {
            let wanted = [Attribute::nested(2, [Attribute::bytes(1, value.clone())])];
            let mut other = value;
            let at = at % other.len();
            other[at] ^= 1;
            prop_assert!(!all_in(&wanted, &encoded(&[Attribute::nested(2, [Attribute::bytes(1, other)])])));
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes: Vec<u8>, wanted in attributes()) {
            let _ = (all_in(&wanted, &bytes), attribute(&bytes, 1), inside(&bytes, 1));
        }
    }
}
