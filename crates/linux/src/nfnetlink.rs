//! nftables by netlink, as far as chains and rules of others are read and taken away: the `nft` program shows what
//! `iptables-nft` has written without its comments, and a node need not have either program.
//!
//! Layouts: linux/netfilter/nf_tables.h and nfnetlink.h. Numbers are big-endian there, unlike in rtnetlink.

use netlink_packet_core::Emitable;

use crate::netlink::{NetlinkError, Socket, parse};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(crate) const IPV4: u8 = 2;
pub(crate) const IPV6: u8 = 10;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

// `enum nf_tables_msg_types`.
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;

/// `NFTA_TABLE_NAME`; also the first attribute of chains and rules.
const TABLE: u16 = 1;
// `enum nft_chain_attributes`.
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
// `enum nft_rule_attributes`.
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USER_DATA: u16 = 7;
// `enum nft_expr_attributes`.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

fn kind(message: u16) -> u16 {
    u16::from(SUBSYSTEM) << 8 | message
}

/// A table of any family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: u8,
    pub(crate) name: String,
}

/// A chain of the family `ip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) table: String,
    pub(crate) name: String,
    /// The kind of a chain that hangs on a hook (`nat`, `filter`); none for one that is jumped to.
    pub(crate) base: Option<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: String,
    pub(crate) handle: u64,
    /// Name and attributes of each expression.
    pub(crate) expressions: Vec<(String, Vec<u8>)>,
    /// What the program that wrote it has added for itself.
    pub(crate) user_data: Vec<u8>,
}

/// nftables in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Nfnetlink(Socket);

impl Nfnetlink {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Socket::of(netlink_sys::protocols::NETLINK_NETFILTER).map(Self)
    }

    /// All tables.
    pub(crate) fn tables(&mut self) -> Result<Vec<Table>, NetlinkError> {
        let all = Body::new(0);
        self.0
            .dump(kind(GET_TABLE), &all, "list nftables tables", |body| {
                Some(Table {
                    family: *body.first()?,
                    name: text(attribute(body, HEADER, TABLE)?),
                })
            })
    }

    /// All chains of the family `ip`.
    pub(crate) fn chains(&mut self) -> Result<Vec<Chain>, NetlinkError> {
        let all = Body::new(IPV4);
        let chains = self
            .0
            .dump(kind(GET_CHAIN), &all, "list nftables chains", |body| {
                (body.first() == Some(&IPV4)).then_some(())?;
                let hangs = attribute(body, HEADER, CHAIN_HOOK).is_some();
                Some(Chain {
                    table: text(attribute(body, HEADER, TABLE)?),
                    name: text(attribute(body, HEADER, CHAIN_NAME)?),
                    base: hangs.then(|| attribute(body, HEADER, CHAIN_TYPE).map(text).unwrap_or_default()),
                })
            })?;
        Ok(chains)
    }

    /// The rules of a table of the family `ip`, or of one of its chains, in their order. None, if there is no such table.
    pub(crate) fn rules(&mut self, table: &str, chain: Option<&str>) -> Result<Vec<Rule>, NetlinkError> {
        self.rules_of(IPV4, table, chain)
    }

    /// The same of another family.
    pub(crate) fn rules_of(
        &mut self,
        family: u8,
        table: &str,
        chain: Option<&str>,
    ) -> Result<Vec<Rule>, NetlinkError> {
        let mut question = Body::new(family);
        question.text(TABLE, table);
        if let Some(chain) = chain {
            question.text(RULE_CHAIN, chain);
        }
        self.0
            .dump(kind(GET_RULE), &question, "list nftables rules", |body| {
                // Old kernels pass the question's attributes over and give all.
                let wanted = body.first() == Some(&family) && text(attribute(body, HEADER, TABLE)?) == table;
                let rule = rule(body)?;
                (wanted && chain.is_none_or(|chain| rule.chain == chain)).then_some(rule)
            })
    }

    /// Carries out the changes as one transaction: all of them, or none.
    pub(crate) fn commit(&mut self, changes: &[Delete], what: &str) -> Result<(), NetlinkError> {
        let messages = changes
            .iter()
            .map(|change| (kind(change.message()), 0, change.body()));
        self.0.transaction(SUBSYSTEM, messages, what)
    }
}

/// What is to be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delete {
    /// A table of any family and all in it.
    Table(Table),
    /// A chain of the family `ip`, which nobody jumps to any more.
    Chain { table: String, chain: String },
    /// All rules of a chain of the family `ip`.
    Rules { table: String, chain: String },
    /// A rule.
    Rule {
        family: u8,
        table: String,
        chain: String,
        handle: u64,
    },
}

impl Delete {
    fn message(&self) -> u16 {
        match self {
            Self::Table(_) => DELETE_TABLE,
            Self::Chain { .. } => DELETE_CHAIN,
            Self::Rules { .. } | Self::Rule { .. } => DELETE_RULE,
        }
    }

    fn body(&self) -> Body {
        match self {
            Self::Table(table) => {
                let mut body = Body::new(table.family);
                body.text(TABLE, &table.name);
                body
            }
            Self::Chain { table, chain } => {
                let mut body = Body::new(IPV4);
                body.text(TABLE, table);
                body.text(CHAIN_NAME, chain);
                body
            }
            Self::Rules { table, chain } => {
                let mut body = Body::new(IPV4);
                body.text(TABLE, table);
                body.text(RULE_CHAIN, chain);
                body
            }
            Self::Rule {
                family,
                table,
                chain,
                handle,
            } => {
                let mut body = Body::new(*family);
                body.text(TABLE, table);
                body.text(RULE_CHAIN, chain);
                body.attribute(RULE_HANDLE, &handle.to_be_bytes());
                body
            }
        }
    }
}

/// A message's body: `struct nfgenmsg` and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(family: u8) -> Self {
        Self(vec![family, 0, 0, 0])
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        // Names and numbers: far from the 64 KiB that an attribute may have.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }
}

impl Emitable for Body {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(&self.0) {
            *to = *from;
        }
    }
}

fn rule(body: &[u8]) -> Option<Rule> {
    let handle = attribute(body, HEADER, RULE_HANDLE)?;
    let list = attribute(body, HEADER, RULE_EXPRESSIONS).unwrap_or_default();
    Some(Rule {
        chain: text(attribute(body, HEADER, RULE_CHAIN)?),
        handle: u64::from_be_bytes(handle.try_into().ok()?),
        expressions: parse::attributes(list, 0)
            .filter_map(|(_, one)| {
                let name = text(attribute(one, 0, EXPRESSION_NAME)?);
                let data = attribute(one, 0, EXPRESSION_DATA).unwrap_or_default();
                Some((name, data.to_vec()))
            })
            .collect(),
        user_data: attribute(body, HEADER, RULE_USER_DATA)
            .unwrap_or_default()
            .to_vec(),
    })
}

/// The value of an attribute after a fixed header.
pub(crate) fn attribute(body: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    parse::attributes(body, fixed).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Up to the terminating zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_named_by_table_chain_and_handle() {
        let change = Delete::Rule {
            family: IPV4,
            table: "nat".into(),
            chain: "POSTROUTING".into(),
            handle: 0x0102_0304,
        };
        let Body(bytes) = change.body();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(attribute(&bytes, HEADER, TABLE), Some(&b"nat\0"[..]));
        assert_eq!(attribute(&bytes, HEADER, RULE_CHAIN), Some(&b"POSTROUTING\0"[..]));
        assert_eq!(
            attribute(&bytes, HEADER, RULE_HANDLE),
            Some(&[0, 0, 0, 0, 1, 2, 3, 4][..])
        );
    }

    #[test]
    fn a_rule_reads_back_with_its_expressions() {
        let mut expression = Body(Vec::new());
        expression.text(EXPRESSION_NAME, "counter");
        expression.attribute(EXPRESSION_DATA | 0x8000, &[1, 2, 3, 4]);
        let mut list = Body(Vec::new());
        list.attribute(1 | 0x8000, &expression.0);
        let mut body = Body::new(IPV4);
        body.text(TABLE, "nat");
        body.text(RULE_CHAIN, "PREROUTING");
        body.attribute(RULE_HANDLE, &7_u64.to_be_bytes());
        body.attribute(RULE_EXPRESSIONS | 0x8000, &list.0);
        let read = rule(&body.0).unwrap();
        assert_eq!((read.chain.as_str(), read.handle), ("PREROUTING", 7));
        assert_eq!(read.expressions, [("counter".to_owned(), vec![1, 2, 3, 4])]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = rule(&bytes);
        }
    }
}
