//! From the configuration to the objects of the table. Pure.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::batch::Batch;
use nftables::expr::{
    BinaryOperation, CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload,
    PayloadField, Prefix,
};
use nftables::schema::{Chain, NfListObject, Nftables, Rule, Set, SetFlag, SetType, SetTypeValue, Table};
use nftables::stmt::{Mangle, Match, NAT, NATFlag, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::Value;

use super::{NftError, Randomize, SnatConfig, TABLE};

const EXEMPT: &str = "exempt";
pub(crate) const RESTORE_MARK: &str = "restore_mark";
const SET_MARK: &str = "set_mark";
pub(crate) const SOURCE_NAT: &str = "source_nat";

/// Refuses what would make a harmful table.
pub(super) fn validate(config: &SnatConfig) -> Result<(), NftError> {
    let refuse = |reason| Err(NftError::Invalid { reason });
    if config.mark == 0 || config.earlier.marks.contains(&0) {
        return refuse("the mark is 0, so no packet could be told from another");
    }
    if config.vpc_cidrs.is_empty() && !config.external_snat {
        return refuse("no CIDR of the VPC is known, so traffic inside the VPC would be translated too");
    }
    let names = [&config.veth_prefix, &config.primary_link];
    for name in names.into_iter().chain(&config.earlier.prefixes) {
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '"' | '\\' | '/');
        if name.is_empty() || name.len() > 15 || name.contains(odd) {
            return refuse("the primary link's name or the prefix of pods' links is not one a link can have");
        }
    }
    Ok(())
}

/// The table and all in it.
pub(super) fn table(config: &SnatConfig) -> Vec<NfListObject<'static>> {
    let mut objects = vec![
        NfListObject::Table(the_table()),
        NfListObject::Chain(base_chain(
            RESTORE_MARK,
            NfChainType::Filter,
            NfHook::Prerouting,
            -150,
        )),
    ];
    if config.translates() || config.earlier.translation {
        objects.push(NfListObject::Chain(base_chain(
            SOURCE_NAT,
            NfChainType::NAT,
            NfHook::Postrouting,
            110,
        )));
    }
    if config.node_port {
        objects.push(rule(
            RESTORE_MARK,
            [
                is(meta(MetaKey::Iifname), text(&config.primary_link)),
                original(),
                // The address of this very interface, as it was before kube-proxy's DNAT.
                is(address_type([FibFlag::Daddr, FibFlag::Iif]), text("local")),
                or_in(ct("mark"), config.mark),
            ],
        ));
    }
    let marks: BTreeSet<u32> = std::iter::once(config.mark)
        .chain(config.earlier.marks.iter().copied())
        .collect();
    let prefixes = prefixes(config);
    for prefix in &prefixes {
        for mark in &marks {
            let carried = is(bits(ct("mark"), *mark), Expression::Number(*mark));
            let statements = [from_pod(prefix), carried, or_in(meta(MetaKey::Mark), *mark)];
            objects.push(rule(RESTORE_MARK, statements));
        }
    }
    if config.translates() {
        translation(&mut objects, config, &prefixes);
    }
    objects
}

/// What marks new connections to outside, and translates them.
fn translation(objects: &mut Vec<NfListObject<'static>>, config: &SnatConfig, prefixes: &BTreeSet<&str>) {
    let chain = base_chain(SET_MARK, NfChainType::Filter, NfHook::Prerouting, -90);
    objects.push(NfListObject::Chain(chain));
    objects.insert(1, NfListObject::Set(Box::new(exempt_set(&exempt(config)))));
    // Only a connection's very first packet: one that nobody has answered yet stays "new", and may have begun when SNAT was off.
    let known = compare(Operator::IN, ct("status"), text("confirmed"));
    objects.push(rule(SET_MARK, [known, Statement::Return(None)]));
    for prefix in prefixes {
        // First the connection, then the packet: nft 1.0.6 takes no single expression for both.
        for mark in [ct("mark"), meta(MetaKey::Mark)] {
            let new = compare(Operator::IN, ct("state"), text("new"));
            let statements = [from_pod(prefix), new, original()]
                .into_iter()
                .chain(to_outside());
            objects.push(rule(SET_MARK, statements.chain([or_in(mark, config.mark)])));
        }
    }
    let by_primary = is(meta(MetaKey::Oifname), text(&config.primary_link));
    // What the node itself sends has the address already, and keeps its port.
    let by_others = compare(
        Operator::NEQ,
        address("saddr"),
        text(&config.primary_ip.to_string()),
    );
    let statements = [by_primary, by_others].into_iter().chain(to_outside());
    objects.push(rule(
        SOURCE_NAT,
        statements.chain([translate(config.primary_ip, config.randomize)]),
    ));
}

/// Whether there is nothing outside.
pub(super) fn exempts_everything(config: &SnatConfig) -> bool {
    exempt(config).first().is_some_and(|net| net.prefix_len() == 0)
}

/// Whether a table as the kernel shows it has the chain that translates.
pub(super) fn has_translation(shown: &Value) -> bool {
    let objects = shown.as_array().into_iter().flatten();
    let mut names = objects.filter_map(|object| object.pointer("/chain/name")?.as_str());
    names.any(|name| name == SOURCE_NAT)
}

/// Of pods' host ends, of the present setting and of earlier ones.
fn prefixes(config: &SnatConfig) -> BTreeSet<&str> {
    let earlier = config.earlier.prefixes.iter().map(String::as_str);
    std::iter::once(config.veth_prefix.as_str())
        .chain(earlier)
        .collect()
}

/// One transaction that puts the objects in the place of whatever the table holds.
pub(super) fn replacing(objects: Vec<NfListObject<'static>>) -> Nftables<'static> {
    let mut batch = gone();
    objects.into_iter().for_each(|object| batch.add(object));
    batch.to_nftables()
}

/// One transaction after which there is no table.
pub(super) fn removing() -> Nftables<'static> {
    gone().to_nftables()
}

/// Added first, so that deleting it cannot fail.
fn gone() -> Batch<'static> {
    let mut batch = Batch::new();
    batch.add(NfListObject::Table(the_table()));
    batch.delete(NfListObject::Table(the_table()));
    batch
}

/// The CIDRs whose hosts see the pods' own addresses, none inside another: a set of intervals takes no overlaps.
fn exempt(config: &SnatConfig) -> Vec<Ipv4Net> {
    let all: Vec<Ipv4Net> = config
        .vpc_cidrs
        .iter()
        .chain(&config.exclude)
        .map(Ipv4Net::trunc)
        .collect();
    Ipv4Net::aggregate(&all)
}

fn the_table() -> Table<'static> {
    Table {
        family: NfFamily::IP,
        name: TABLE.into(),
        handle: None,
    }
}

fn base_chain(name: &'static str, kind: NfChainType, hook: NfHook, priority: i32) -> Chain<'static> {
    Chain {
        family: NfFamily::IP,
        table: TABLE.into(),
        name: name.into(),
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    }
}

fn exempt_set(nets: &[Ipv4Net]) -> Set<'static> {
    Set {
        family: NfFamily::IP,
        table: TABLE.into(),
        name: EXEMPT.into(),
        set_type: SetTypeValue::Single(SetType::Ipv4Addr),
        flags: Some(HashSet::from([SetFlag::Interval])),
        elem: Some(nets.iter().map(prefix).collect::<Vec<_>>().into()),
        ..Set::default()
    }
}

/// As `nft` shows it: a prefix of one address is an address.
fn prefix(net: &Ipv4Net) -> Expression<'static> {
    let address = text(&net.addr().to_string());
    if net.prefix_len() == 32 {
        return address;
    }
    let prefix = Prefix {
        addr: Box::new(address),
        len: u32::from(net.prefix_len()),
    };
    Expression::Named(NamedExpression::Prefix(prefix))
}

fn rule(
    chain: &'static str,
    statements: impl IntoIterator<Item = Statement<'static>>,
) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: NfFamily::IP,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into_iter().collect::<Vec<_>>().into(),
        ..Rule::default()
    })
}

fn text(text: &str) -> Expression<'static> {
    Expression::String(Cow::Owned(text.to_owned()))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn ct(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }))
}

fn address_type<const N: usize>(flags: [FibFlag; N]) -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib {
        result: FibResult::Type,
        flags: HashSet::from(flags),
    }))
}

fn bits(of: Expression<'static>, mask: u32) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(of, Expression::Number(mask))))
}

fn compare(op: Operator, left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    compare(Operator::EQ, left, right)
}

/// The packet goes the way of the connection's first one.
fn original() -> Statement<'static> {
    is(ct("direction"), text("original"))
}

fn from_pod(prefix: &str) -> Statement<'static> {
    is(meta(MetaKey::Iifname), text(&format!("{prefix}*")))
}

/// `saddr` or `daddr`.
fn address(field: &'static str) -> Expression<'static> {
    let field = PayloadField {
        protocol: "ip".into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn to_outside() -> [Statement<'static>; 2] {
    [
        compare(Operator::NEQ, address("daddr"), text(&format!("@{EXEMPT}"))),
        compare(Operator::NEQ, address_type([FibFlag::Daddr]), text("local")),
    ]
}

fn or_in(mark: Expression<'static>, value: u32) -> Statement<'static> {
    let both = BinaryOperation::OR(vec![mark.clone(), Expression::Number(value)]);
    Statement::Mangle(Mangle {
        key: mark,
        value: Expression::BinaryOperation(Box::new(both)),
    })
}

fn translate(to: Ipv4Addr, randomize: Randomize) -> Statement<'static> {
    let flag = match randomize {
        Randomize::Prng => Some(NATFlag::FullyRandom),
        Randomize::Hashrandom => Some(NATFlag::Random),
        Randomize::None => None,
    };
    Statement::SNAT(Some(NAT {
        addr: Some(text(&to.to_string())),
        family: None,
        port: None,
        flags: flag.map(|flag| HashSet::from([flag])),
    }))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
