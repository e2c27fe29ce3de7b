//! What the table for egress is to say, and what a rule of the kernel's says. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::nf::{self, Attribute};
use crate::Randomize;
use crate::netlink::parse;

pub(super) const SOURCE_NAT: &str = "source_nat";
pub(super) const REFUSE_NEW: &str = "refuse_new";

const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const POLICY_ACCEPT: u32 = 1;
/// Of a rule: the list of its expressions.
pub(super) const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
// `NF_NAT_RANGE_*`; the kernel adds the first by itself, and shows it.
const MAP_ADDRESS: u32 = 1;
const RANDOM: u32 = 4;
const RANDOM_FULLY: u32 = 16;

/// A base chain: name, type, hook (`NF_INET_*`), priority.
pub(super) const CHAINS: [(&str, &str, u32, i32); 2] =
    [(SOURCE_NAT, "nat", 4, 110), (REFUSE_NEW, "filter", 2, 0)];

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

/// Whether the kernel's rule has just these expressions.
pub(super) fn is_shown(wanted: &[Expression], rule: &[u8]) -> bool {
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
pub(super) struct Expression {
    name: &'static str,
    data: Vec<Attribute>,
}

impl Expression {
    /// As an element of a rule's list.
    pub(super) fn into_attribute(self) -> Attribute {
        let name = Attribute::text(EXPRESSION_NAME, self.name);
        Attribute::nested(
            LIST_ELEMENT,
            [name, Attribute::nested(EXPRESSION_DATA, self.data)],
        )
    }
}

/// What the rule of `source_nat` was made from; none if it is another.
pub(super) fn read(rule: &[u8]) -> Option<Snat> {
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

pub(super) fn number(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_be_bytes)
}

impl Snat {
    pub(super) fn v6(&self) -> bool {
        self.range.addr().is_ipv6()
    }

    /// Name and attributes of each chain.
    pub(super) fn chains(&self) -> [(&'static str, Vec<Attribute>); 2] {
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
    pub(super) fn rule(&self, chain: &str) -> Vec<Expression> {
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
            IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::egress::nf::{Do, Message};

    /// A rule's body as the kernel shows it.
    fn body(expressions: Vec<Expression>) -> Vec<u8> {
        let list = expressions.into_iter().map(Expression::into_attribute);
        let message = Message {
            kind: Do::NewRule,
            v6: false,
            attributes: vec![Attribute::nested(RULE_EXPRESSIONS, list.collect::<Vec<_>>())],
        };
        message.body()
    }

    fn any_snat() -> impl Strategy<Value = Snat> {
        let v4 = (any::<[u8; 4]>(), 1_u8..=30, any::<[u8; 4]>());
        let v6 = (any::<[u8; 16]>(), 1_u8..=126, any::<[u8; 16]>());
        let net = |address: IpAddr, length| IpNet::new(address, length).unwrap().trunc();
        let ways = prop_oneof![
            v4.prop_map(move |(a, length, node)| (net(a.into(), length), IpAddr::from(node))),
            v6.prop_map(move |(a, length, node)| (net(a.into(), length), IpAddr::from(node))),
        ];
        (ways, 0_usize..3).prop_map(|((range, node), mode)| Snat {
            range,
            gateway: range.network(),
            node,
            randomize: [Randomize::Prng, Randomize::Hashrandom, Randomize::None][mode],
        })
    }

    proptest! {
        #[test]
        fn a_rule_reads_back_as_what_it_was_made_from(snat in any_snat()) {
            let rule = body(snat.rule(SOURCE_NAT));
            prop_assert_eq!(read(&rule), Some(snat));
            prop_assert!(is_shown(&snat.rule(SOURCE_NAT), &rule));
            prop_assert_eq!(read(&body(snat.rule(REFUSE_NEW))), None);
        }

        #[test]
        fn another_rule_is_not_taken_for_it(one in any_snat(), other in any_snat(), cut: usize) {
            for chain in [SOURCE_NAT, REFUSE_NEW] {
                let range_only = chain == REFUSE_NEW && one.range == other.range;
                let same = one == other || range_only;
                prop_assert_eq!(is_shown(&one.rule(chain), &body(other.rule(chain))), same);
                let mut shorter = one.rule(chain);
                shorter.remove(cut % shorter.len());
                prop_assert!(!is_shown(&one.rule(chain), &body(shorter)));
            }
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes: Vec<u8>, snat in any_snat()) {
            let _ = (read(&bytes), is_shown(&snat.rule(SOURCE_NAT), &bytes));
        }
    }
}
