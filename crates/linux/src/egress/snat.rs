//! The node's nftables table for egress, one of each family: `ip vpcnet_egress` and `ip6 vpcnet_egress`.
//!
//! | chain | hook, priority | does |
//! |---|---|---|
//! | `source_nat` | postrouting nat 110 (after kube-proxy's) | what comes from the range, but from its gateway, and goes to no multicast group: SNAT to the node's address |
//! | `refuse_new` | forward filter 0 | new connections *to* the range are rejected: its addresses mean something on this node alone, and to the pod that has them alone |
//!
//! The rules speak of the range, not of pods, so a pod's ADD only looks whether they are there (some 50 µs) and writes nothing,
//! but for the first pod. A commit costs 10 ms of the kernel's time, and the AWS VPC CNI makes three for each pod.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::nf::{self, Attribute, Do, Message, Nf};
use crate::Randomize;
use crate::netlink::{Errno, NetlinkError, parse};
use crate::pod::Finding;

/// The table's name, in the families `ip` and `ip6`.
pub const TABLE: &str = "vpcnet_egress";
const SOURCE_NAT: &str = "source_nat";
/// How often the table is written when others write it too.
const TRIES: u32 = 5;
const REFUSE_NEW: &str = "refuse_new";

/// What the table shall do. Range, gateway and node are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snat {
    /// The pods' addresses.
    pub range: IpNet,
    /// The one of them that is the node's end of each link.
    pub gateway: IpAddr,
    /// The node's address, which outside sees.
    pub node: IpAddr,
    /// How source ports are chosen.
    pub randomize: Randomize,
}

/// What [`ensure`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// Nothing: the kernel has the table as wanted.
    Unchanged,
    /// Wrote it, as there was none.
    Created,
    /// Wrote it anew, for this.
    Replaced(Finding),
}

/// Makes the table as wanted, in the namespace of the calling thread, in one transaction; writes only if it differs.
///
/// # Errors
/// [`NetlinkError`]; the table is then as before.
pub fn ensure(wanted: &Snat) -> Result<Ensured, NetlinkError> {
    let mut kernel = Nf::open()?;
    let v6 = wanted.v6();
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(finding) = look(&mut kernel, wanted)? else {
            return Ok(Ensured::Unchanged);
        };
        let there = table(&mut kernel, v6)?.is_some();
        match kernel.transact(&wanted.messages(there), &format!("write {}", name(v6))) {
            Ok(()) if there => return Ok(Ensured::Replaced(finding)),
            Ok(()) => return Ok(Ensured::Created),
            // Somebody made or deleted the table since we looked: another pod's ADD, or the agent.
            Err(error) if tries < TRIES && matches!(error.errno(), Some(Errno::NOENT | Errno::EXIST)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first thing in which the kernel's table is not as wanted.
///
/// # Errors
/// It cannot be read.
pub fn check(wanted: &Snat) -> Result<Option<Finding>, NetlinkError> {
    look(&mut Nf::open()?, wanted)
}

/// What the kernel's table does, if it is whole: one that [`ensure`] wrote, and nobody changed.
///
/// # Errors
/// It cannot be read.
pub fn observe(v6: bool) -> Result<Option<Snat>, NetlinkError> {
    let mut kernel = Nf::open()?;
    for rule in rules(&mut kernel, v6)? {
        if is_of_chain(&rule, SOURCE_NAT)
            && let Some(found) = read(&rule)
        {
            // What it says is taken only if all of the table says so.
            return Ok(look(&mut kernel, &found)?.is_none().then_some(found));
        }
    }
    Ok(None)
}

/// Whether there is such a table at all. An error means that this kernel, or this process, cannot use nftables.
///
/// # Errors
/// It cannot be read.
pub fn is_there(v6: bool) -> Result<bool, NetlinkError> {
    Ok(table(&mut Nf::open()?, v6)?.is_some())
}

/// Takes the table away, if it is there.
///
/// # Errors
/// [`NetlinkError`]; the table is then as before.
pub fn remove(v6: bool) -> Result<(), NetlinkError> {
    let mut kernel = Nf::open()?;
    if table(&mut kernel, v6)?.is_none() {
        return Ok(());
    }
    let message = about_table(Do::DeleteTable, v6);
    match kernel.transact(&[message], &format!("delete {}", name(v6))) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

fn name(v6: bool) -> String {
    format!("nftables table {} {TABLE}", if v6 { "ip6" } else { "ip" })
}

// Attributes of tables, chains and their hooks.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NFT_TABLE_F_DORMANT`: it is there and does nothing.
const DORMANT: u32 = 1;
const POLICY_ACCEPT: u32 = 1;
// Attributes of rules, and of the expressions in them.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
// `NF_NAT_RANGE_*`; the kernel adds the first by itself, and shows it.
const MAP_ADDRESS: u32 = 1;
const RANDOM: u32 = 4;
const RANDOM_FULLY: u32 = 16;

/// A base chain: name, type, hook (`NF_INET_*`), priority.
const CHAINS: [(&str, &str, u32, i32); 2] = [(SOURCE_NAT, "nat", 4, 110), (REFUSE_NEW, "filter", 2, 0)];

fn about_table(kind: Do, v6: bool) -> Message {
    Message {
        kind,
        v6,
        attributes: vec![Attribute::text(TABLE_NAME, TABLE)],
    }
}

fn table(kernel: &mut Nf, v6: bool) -> Result<Option<Vec<u8>>, NetlinkError> {
    kernel.get(&about_table(Do::GetTable, v6), &format!("look for {}", name(v6)))
}

fn look(kernel: &mut Nf, wanted: &Snat) -> Result<Option<Finding>, NetlinkError> {
    let v6 = wanted.v6();
    let table_name = name(v6);
    let Some(found) = table(kernel, v6)? else {
        return Ok(Some(Finding::Missing { what: table_name }));
    };
    let flags = nf::attribute(&found, TABLE_FLAGS).map_or(0, number);
    if flags & DORMANT != 0 {
        return Ok(Some(Finding::Differs {
            what: table_name,
            wanted: "in force".to_owned(),
            found: "dormant".to_owned(),
        }));
    }
    let rules = rules(kernel, v6)?;
    for (chain, attributes) in wanted.chains() {
        let question = Message {
            kind: Do::GetChain,
            v6,
            attributes: chain_id(chain).into(),
        };
        let what = format!("chain {chain} of {table_name}");
        let Some(found) = kernel.get(&question, &format!("look for {what}"))? else {
            return Ok(Some(Finding::Missing { what }));
        };
        if !nf::all_in(&attributes, found.get(nf::HEADER..).unwrap_or_default()) {
            return Ok(Some(differs(what, "its type, hook or priority")));
        }
        let mut of_chain = rules.iter().filter(|rule| is_of_chain(rule, chain));
        let ours = wanted.rule(chain);
        match (of_chain.next(), of_chain.next()) {
            (None, _) => {
                return Ok(Some(Finding::Missing {
                    what: format!("the rule of {what}"),
                }));
            }
            (Some(_), Some(_)) => return Ok(Some(differs(what, "its rules: there is more than ours"))),
            (Some(one), None) if !is_shown(&ours, one) => {
                return Ok(Some(differs(what, "its rule")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The bodies of the table's rules.
fn rules(kernel: &mut Nf, v6: bool) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let question = Message {
        kind: Do::GetRule,
        v6,
        attributes: vec![Attribute::text(RULE_TABLE, TABLE)],
    };
    let mut rules = kernel.list(&question, &format!("list {}", name(v6)))?;
    // Kernels before 4.19 give the rules of all tables.
    rules.retain(|rule| nf::attribute(rule, RULE_TABLE).is_some_and(|name| parse::text(name) == TABLE));
    Ok(rules)
}

fn is_of_chain(rule: &[u8], chain: &str) -> bool {
    nf::attribute(rule, RULE_CHAIN).is_some_and(|name| parse::text(name) == chain)
}

/// What the rule of `source_nat` was made from; none if it is another.
fn read(rule: &[u8]) -> Option<Snat> {
    let mut data = parse::attributes(nf::attribute(rule, RULE_EXPRESSIONS)?, 0)
        .map(|(_, expression)| nf::inside(expression, EXPRESSION_DATA).unwrap_or_default());
    let mut value_at = |skip: usize, attribute: u16| {
        address(nf::inside(nf::inside(data.nth(skip)?, attribute)?, DATA_VALUE)?)
    };
    // Payload; mask of the range, its network; payload, gateway; payload, mask, multicast groups; the node's address.
    let (mask, network) = (value_at(1, 4)?, value_at(0, 3)?);
    let gateway = value_at(1, 3)?;
    let node = value_at(3, 2)?;
    let flags = nf::inside(data.next()?, 7).map_or(0, number);
    Some(Snat {
        range: IpNet::with_netmask(network, mask).ok()?,
        gateway,
        node,
        randomize: match flags {
            f if f & RANDOM_FULLY != 0 => Randomize::Prng,
            f if f & RANDOM != 0 => Randomize::Hashrandom,
            _ => Randomize::None,
        },
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

fn differs(what: String, part: &str) -> Finding {
    Finding::Differs {
        what: format!("{what}: {part}"),
        wanted: "ours".to_owned(),
        found: "another".to_owned(),
    }
}

fn number(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_be_bytes)
}

fn chain_id(chain: &str) -> [Attribute; 2] {
    [
        Attribute::text(CHAIN_TABLE, TABLE),
        Attribute::text(CHAIN_NAME, chain),
    ]
}

/// Whether the kernel's rule has just these expressions.
fn is_shown(wanted: &[Expression], rule: &[u8]) -> bool {
    let list = nf::attribute(rule, RULE_EXPRESSIONS).unwrap_or_default();
    let found: Vec<&[u8]> = parse::attributes(list, 0).map(|(_, one)| one).collect();
    found.len() == wanted.len()
        && wanted.iter().zip(found).all(|(wanted, found)| {
            let name = nf::inside(found, EXPRESSION_NAME).map(parse::text);
            let data = nf::inside(found, EXPRESSION_DATA).unwrap_or_default();
            name.as_deref() == Some(wanted.name) && nf::all_in(&wanted.data, data)
        })
}

/// One step of a rule.
struct Expression {
    name: &'static str,
    data: Vec<Attribute>,
}

impl Snat {
    fn v6(&self) -> bool {
        self.range.addr().is_ipv6()
    }

    /// The whole table, in the place of the one that is there.
    fn messages(&self, there: bool) -> Vec<Message> {
        let v6 = self.v6();
        let mut all = Vec::new();
        if there {
            all.push(about_table(Do::DeleteTable, v6));
        }
        all.push(about_table(Do::NewTable, v6));
        for (chain, attributes) in self.chains() {
            let attributes = chain_id(chain).into_iter().chain(attributes).collect();
            all.push(Message {
                kind: Do::NewChain,
                v6,
                attributes,
            });
        }
        for (chain, ..) in CHAINS {
            let expressions: Vec<Attribute> = self
                .rule(chain)
                .into_iter()
                .map(|one| {
                    let name = Attribute::text(EXPRESSION_NAME, one.name);
                    Attribute::nested(LIST_ELEMENT, [name, Attribute::nested(EXPRESSION_DATA, one.data)])
                })
                .collect();
            all.push(Message {
                kind: Do::NewRule,
                v6,
                attributes: vec![
                    Attribute::text(RULE_TABLE, TABLE),
                    Attribute::text(RULE_CHAIN, chain),
                    Attribute::nested(RULE_EXPRESSIONS, expressions),
                ],
            });
        }
        all
    }

    fn chains(&self) -> [(&'static str, Vec<Attribute>); 2] {
        CHAINS.map(|(chain, kind, hook, priority)| {
            let hook = [
                Attribute::number(HOOK_NUMBER, hook),
                Attribute::number(HOOK_PRIORITY, priority.cast_unsigned()),
            ];
            let attributes = vec![
                Attribute::nested(CHAIN_HOOK, hook),
                Attribute::number(CHAIN_POLICY, POLICY_ACCEPT),
                Attribute::text(CHAIN_TYPE, kind),
            ];
            (chain, attributes)
        })
    }

    /// The one rule of a chain.
    fn rule(&self, chain: &str) -> Vec<Expression> {
        let (source, destination) = if self.v6() { (8, 24) } else { (12, 16) };
        if chain == REFUSE_NEW {
            return [
                is_new(),
                address_in(destination, self.range, true),
                vec![refuse(self.v6())],
            ]
            .into_iter()
            .flatten()
            .collect();
        }
        let multicast = match self.node {
            IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::new(224, 0, 0, 0).into(), 4),
            IpAddr::V6(_) => {
                IpNet::new_assert(std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8)
            }
        };
        [
            address_in(source, self.range, true),
            address_in(source, self.gateway.into(), false),
            address_in(destination, multicast, false),
            self.translate(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn translate(&self) -> Vec<Expression> {
        let flags = match self.randomize {
            Randomize::Prng => MAP_ADDRESS | RANDOM_FULLY,
            Randomize::Hashrandom => MAP_ADDRESS | RANDOM,
            Randomize::None => MAP_ADDRESS,
        };
        let immediate = Expression {
            name: "immediate",
            data: vec![
                Attribute::number(1, REGISTER),
                Attribute::nested(2, [Attribute::bytes(DATA_VALUE, octets(self.node))]),
            ],
        };
        let nat = Expression {
            name: "nat",
            data: vec![
                Attribute::number(1, 0), // NFT_NAT_SNAT
                Attribute::number(2, u32::from(nf::family(self.v6()))),
                Attribute::number(3, REGISTER),
                Attribute::number(4, REGISTER),
                Attribute::number(7, flags),
            ],
        };
        vec![immediate, nat]
    }
}

/// `NFT_REG_1`, 16 bytes: one step of a rule writes it, the next reads it.
const REGISTER: u32 = 1;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Goes on if the address at this offset of the network header is in the net (or is not).
fn address_in(offset: u32, net: IpNet, wanted: bool) -> Vec<Expression> {
    let value = octets(net.network());
    let length = u32::try_from(value.len()).unwrap_or_default();
    let mut steps = vec![Expression {
        name: "payload",
        data: vec![
            Attribute::number(1, REGISTER),
            Attribute::number(2, 1), // NFT_PAYLOAD_NETWORK_HEADER
            Attribute::number(3, offset),
            Attribute::number(4, length),
        ],
    }];
    if net.prefix_len() < net.max_prefix_len() {
        steps.push(masked(octets(net.netmask())));
    }
    steps.push(compare(wanted, value));
    steps
}

fn masked(mask: Vec<u8>) -> Expression {
    let zero = vec![0; mask.len()];
    Expression {
        name: "bitwise",
        data: vec![
            Attribute::number(1, REGISTER),
            Attribute::number(2, REGISTER),
            Attribute::number(3, u32::try_from(mask.len()).unwrap_or_default()),
            Attribute::nested(4, [Attribute::bytes(DATA_VALUE, mask)]),
            Attribute::nested(5, [Attribute::bytes(DATA_VALUE, zero)]),
        ],
    }
}

fn compare(equal: bool, value: Vec<u8>) -> Expression {
    Expression {
        name: "cmp",
        data: vec![
            Attribute::number(1, REGISTER),
            Attribute::number(2, u32::from(!equal)), // NFT_CMP_EQ, NFT_CMP_NEQ
            Attribute::nested(3, [Attribute::bytes(DATA_VALUE, value)]),
        ],
    }
}

/// Goes on with a connection's first packets. The state is a number of the host's byte order in the register.
fn is_new() -> Vec<Expression> {
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`
    const NEW: u32 = 8;
    let state = Expression {
        name: "ct",
        data: vec![Attribute::number(1, REGISTER), Attribute::number(2, 0)], // NFT_CT_STATE
    };
    vec![
        state,
        masked(NEW.to_ne_bytes().to_vec()),
        compare(false, vec![0; 4]),
    ]
}

fn refuse(v6: bool) -> Expression {
    // Port unreachable, as iptables' REJECT.
    let code = if v6 { 4 } else { 3 };
    Expression {
        name: "reject",
        data: vec![Attribute::number(1, 0), Attribute::bytes(2, [code])], // NFT_REJECT_ICMP_UNREACH
    }
}
