//! The node's nftables table for egress, one of each family: `ip vpcnet_egress` and `ip6 vpcnet_egress`.
//!
//! | chain | hook, priority | does |
//! |---|---|---|
//! | `source_nat` | postrouting nat 110 (after kube-proxy's) | what comes from the range, but from its gateway, and goes to no multicast group: SNAT to the node's address |
//! | `refuse_new` | forward filter 0 | new connections *to* the range are rejected: its addresses mean something on this node alone, and to the pod that has them alone |
//!
//! The rules speak of the range, not of pods, so a pod's ADD only looks whether they are there (some 50 µs) and writes nothing,
//! but for the first pod. A commit costs 10 ms of the kernel's time, and the AWS VPC CNI makes three for each pod.

use super::nf::{self, Attribute, Do, Message, Nf};
use super::rules::{self, CHAINS, Expression, RULE_EXPRESSIONS, SOURCE_NAT, Snat, number};
use crate::netlink::{Errno, NetlinkError, parse};
use crate::pod::Finding;

/// The table's name, in the families `ip` and `ip6`.
pub const TABLE: &str = "vpcnet_egress";
/// How often the table is written when others write it too.
const TRIES: u32 = 5;

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
        match kernel.transact(&messages(wanted, there), &format!("write {}", name(v6))) {
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
    for rule in list_rules(&mut kernel, v6)? {
        if is_of_chain(&rule, SOURCE_NAT)
            && let Some(found) = rules::read(&rule)
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

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
/// `NFT_TABLE_F_DORMANT`: it is there and does nothing.
const DORMANT: u32 = 1;

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
    let rules = list_rules(kernel, v6)?;
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
            (Some(one), None) if !rules::is_shown(&ours, one) => {
                return Ok(Some(differs(what, "its rule")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The bodies of the table's rules.
fn list_rules(kernel: &mut Nf, v6: bool) -> Result<Vec<Vec<u8>>, NetlinkError> {
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

fn differs(what: String, part: &str) -> Finding {
    Finding::Differs {
        what: format!("{what}: {part}"),
        wanted: "ours".to_owned(),
        found: "another".to_owned(),
    }
}

/// The whole table, in the place of the one that is there.
fn messages(wanted: &Snat, there: bool) -> Vec<Message> {
    let v6 = wanted.v6();
    let mut all = Vec::new();
    if there {
        all.push(about_table(Do::DeleteTable, v6));
    }
    all.push(about_table(Do::NewTable, v6));
    for (chain, attributes) in wanted.chains() {
        let attributes = chain_id(chain).into_iter().chain(attributes).collect();
        all.push(Message {
            kind: Do::NewChain,
            v6,
            attributes,
        });
    }
    for (chain, ..) in CHAINS {
        let expressions: Vec<Attribute> = wanted
            .rule(chain)
            .into_iter()
            .map(Expression::into_attribute)
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

fn chain_id(chain: &str) -> [Attribute; 2] {
    [
        Attribute::text(CHAIN_TABLE, TABLE),
        Attribute::text(CHAIN_NAME, chain),
    ]
}
