//! Giving the node back to amazon-vpc-cni-k8s: once its rules are in force, ours go, in one transaction.
//!
//! What else is on the node is the original's as well as ours: links, addresses, routes, pods' rules. Rules 1024 for marks that
//! it does not restore are only ours, and go too, when no connection needs them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::conntrack::{Conntrack, Filter};
use crate::earlier::{self, Earlier, Present};
use crate::host::{self, MARK_RULE};
use crate::netlink::{Errno, MAIN, NetlinkError, Request, Rule, Socket};
use crate::nfnetlink::{Delete, IPV4, Nfnetlink, Table};
use crate::nft::{RESTORE_MARK, SOURCE_NAT, TABLE};
use crate::original::{Found, InForce, Programs};

/// Older tables that translate; this namespace has one if the file names it.
const LEGACY_NAMES: &str = "/proc/thread-self/net/ip_tables_names";

/// What the original is going to do, as its settings say; none: as our table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// Translate connections to outside (`AWS_VPC_K8S_CNI_EXTERNALSNAT` is false).
    pub translation: Option<bool>,
    /// Bring NodePort connections back by the primary interface (`AWS_VPC_CNI_NODE_PORT_SUPPORT` is true).
    pub node_ports: Option<bool>,
}

/// What has to come, or to end, before ours can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// The original has not set the node up.
    Beginning,
    /// It does not translate.
    Translation,
    /// It does not mark pods' connections to outside.
    OutgoingMark,
    /// It does not mark connections that come in for the node.
    IncomingMark,
    /// It does not restore the mark.
    Restoring,
    /// No rule leads what has this mark to the main table.
    Rule(u32),
    /// Connections have a mark that it does not restore.
    Connections {
        /// Which.
        mark: u32,
        /// How many.
        count: usize,
    },
    /// Connections are translated, and without our table nobody would translate any.
    Translated {
        /// How many.
        count: usize,
    },
    /// The older tables cannot be read; it may have its rules there.
    Unread(String),
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("its chain AWS-SNAT-CHAIN-0 is not there: its agent (the DaemonSet aws-node) has not set this node up"),
            Self::Translation => f.write_str("its chain AWS-SNAT-CHAIN-0 does not translate yet (if it is not to, say --external-snat true)"),
            Self::OutgoingMark => f.write_str("it does not mark pods' connections to outside yet (AWS-CONNMARK-CHAIN-0, or the nftables table ip aws-cni)"),
            Self::IncomingMark => f.write_str("it does not mark NodePort connections yet (in mangle PREROUTING; if it is not to, say --node-ports false)"),
            Self::Restoring => f.write_str("it does not restore the connection mark yet (in mangle PREROUTING)"),
            Self::Rule(mark) => write!(f, "the rule {MARK_RULE} for its mark {mark:#x} is not there"),
            Self::Connections { mark, count } => write!(f, "connections with mark {mark:#x}, which it does not restore: {count} have to end"),
            Self::Translated { count } => write!(f, "translated connections that nobody would translate any more: {count} have to end"),
            Self::Unread(why) => write!(f, "it may have its rules in the legacy tables: {why}"),
        }
    }
}

/// What is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ours {
    /// Our tables, of any family.
    tables: Vec<Table>,
    /// New connections to outside are translated.
    translates: bool,
    /// There is a chain that translates, or has.
    translation: bool,
    node_ports: bool,
    /// Rules for marks that are not the original's.
    marks: BTreeSet<u32>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    ours: Ours,
    /// What of the original is in force.
    pub original: InForce,
    /// What has to come or to end; ours can go when it is nothing.
    pub lacking: Vec<Lacking>,
}

impl Situation {
    /// Nothing of ours is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ours.tables.is_empty() && (self.ours.marks.is_empty() || !self.original.begun)
    }
}

/// Looks, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel cannot be asked.
pub fn look(programs: &Programs, wants: Wants) -> Result<Situation, NetlinkError> {
    let found = Found::look(programs)?;
    let original = found.in_force();
    let mut netlink = Nfnetlink::open()?;
    let mut ours = ours(&mut netlink)?;
    let rules = host::marks(&Socket::open()?.rules(false)?);
    ours.marks = rules.difference(&original.restores).copied().collect();
    let mut lacking = settings_lacking(&ours, &original, wants, &rules);
    if lacking.is_empty() {
        // Only now is it known which marks it restores.
        let held = Held {
            marks: connections_with(&ours.marks, mark_in_force(&original, &rules))?,
            translated: translated(&mut netlink, &ours, &original)?,
        };
        lacking = held.lacking();
    } else {
        lacking.extend(found.unread().map(|why| Lacking::Unread(why.to_string())));
    }
    Ok(Situation {
        ours,
        original,
        lacking,
    })
}

/// Takes ours away. To be called when nothing is lacking.
///
/// # Errors
/// The kernel refused; the tables are gone all together or all there.
pub fn remove(situation: &Situation) -> Result<Vec<String>, NetlinkError> {
    let ours = &situation.ours;
    let changes: Vec<Delete> = ours.tables.iter().cloned().map(Delete::Table).collect();
    Nfnetlink::open()?.commit(&changes, "remove the nftables table vpcnet")?;
    let mut done: Vec<String> = ours
        .tables
        .iter()
        .map(|t| format!("table {} {}", family(t.family), t.name))
        .collect();
    let mut socket = Socket::open()?;
    for mark in &ours.marks {
        match socket.run_one(Request::DeleteRule(rule(*mark))) {
            Ok(()) => done.push(format!("rule {MARK_RULE} for mark {mark:#x}")),
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn rule(mark: u32) -> Rule {
    Rule {
        mark: Some((mark, mark)),
        ..Rule::bare(MARK_RULE, false, Some(MAIN))
    }
}

/// `NFPROTO_*` as `nft` names them.
fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        IPV4 => "ip",
        10 => "ip6",
        _ => "of another family",
    }
}

fn ours(netlink: &mut Nfnetlink) -> Result<Ours, NetlinkError> {
    let mut tables = netlink.tables()?;
    tables.retain(|table| table.name == TABLE);
    let chains = netlink.chains()?;
    let restoring = netlink.rules(TABLE, Some(RESTORE_MARK))?;
    let translating = netlink.rules(TABLE, Some(SOURCE_NAT))?;
    // Only the rule that marks NodePort connections asks whether an address is the node's.
    let asks = |(name, _): &(String, Vec<u8>)| name == "fib";
    Ok(Ours {
        tables,
        translates: !translating.is_empty(),
        translation: chains.iter().any(|c| c.table == TABLE && c.name == SOURCE_NAT),
        node_ports: restoring.iter().any(|rule| rule.expressions.iter().any(asks)),
        marks: BTreeSet::new(),
    })
}

/// The mark that it restores, and that a rule leads to the main table.
fn mark_in_force(original: &InForce, rules: &BTreeSet<u32>) -> Option<u32> {
    original.restores.intersection(rules).next().copied()
}

/// What the original's settings make it do and it does not yet.
fn settings_lacking(ours: &Ours, original: &InForce, wants: Wants, rules: &BTreeSet<u32>) -> Vec<Lacking> {
    let translation = wants.translation.unwrap_or(ours.translates);
    let node_ports = wants.node_ports.unwrap_or(ours.node_ports);
    let mut lacking = Vec::new();
    let mut need = |there: bool, what: Lacking| {
        if !there {
            lacking.push(what);
        }
    };
    need(original.begun, Lacking::Beginning);
    if translation {
        need(original.translates, Lacking::Translation);
        need(original.marks_outgoing, Lacking::OutgoingMark);
    }
    if node_ports {
        need(original.marks_incoming, Lacking::IncomingMark);
    }
    if translation || node_ports {
        need(!original.restores.is_empty(), Lacking::Restoring);
    }
    // It never removes what it restored by earlier settings, for which there is no rule any more.
    if let (None, Some(mark)) = (mark_in_force(original, rules), original.restores.first()) {
        need(false, Lacking::Rule(*mark));
    }
    lacking
}

/// What connections of our time hold.
struct Held {
    marks: BTreeMap<u32, usize>,
    translated: usize,
}

impl Held {
    fn lacking(&self) -> Vec<Lacking> {
        let marks = self.marks.iter().filter(|(_, count)| **count > 0);
        let mut lacking: Vec<Lacking> = marks
            .map(|(mark, count)| Lacking::Connections {
                mark: *mark,
                count: *count,
            })
            .collect();
        if self.translated > 0 {
            lacking.push(Lacking::Translated {
                count: self.translated,
            });
        }
        lacking
    }
}

fn connections_with(
    marks: &BTreeSet<u32>,
    present: Option<u32>,
) -> Result<BTreeMap<u32, usize>, NetlinkError> {
    let earlier = Earlier {
        marks: marks.clone(),
        ..Earlier::default()
    };
    let present = Present {
        mark: present,
        node: None,
        vpc_cidrs: Vec::new(),
    };
    Ok(earlier::look(&earlier, &present)?.marks)
}

/// Translated connections, where ours is the only chain that keeps the kernel translating.
fn translated(netlink: &mut Nfnetlink, ours: &Ours, original: &InForce) -> Result<usize, NetlinkError> {
    if !ours.translation || original.translates {
        return Ok(0);
    }
    let chains = netlink.chains()?;
    let others = chains
        .iter()
        .any(|chain| chain.table != TABLE && chain.base.as_deref() == Some("nat"));
    let legacy = std::fs::read_to_string(LEGACY_NAMES).is_ok_and(|names| names.lines().any(|n| n == "nat"));
    if others || legacy {
        return Ok(0);
    }
    Conntrack::open()?.count(Filter::SourceTranslated, |c| !c.ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> InForce {
        InForce {
            begun: true,
            translates: true,
            marks_outgoing: true,
            marks_incoming: true,
            restores: [0x80].into(),
        }
    }

    fn ours() -> Ours {
        Ours {
            tables: vec![Table {
                family: IPV4,
                name: TABLE.into(),
            }],
            translates: true,
            translation: true,
            node_ports: true,
            marks: BTreeSet::new(),
        }
    }

    fn lacking(original: &InForce, wants: Wants) -> Vec<Lacking> {
        settings_lacking(&ours(), original, wants, &[0x80].into())
    }

    #[test]
    fn nothing_is_lacking_when_all_that_ours_does_is_in_force() {
        assert_eq!(lacking(&original(), Wants::default()), []);
    }

    #[test]
    fn each_part_that_is_not_in_force_is_waited_for() {
        let without = |take: fn(&mut InForce)| {
            let mut all = original();
            take(&mut all);
            lacking(&all, Wants::default())
        };
        assert_eq!(without(|o| o.begun = false), [Lacking::Beginning]);
        assert_eq!(without(|o| o.translates = false), [Lacking::Translation]);
        assert_eq!(without(|o| o.marks_outgoing = false), [Lacking::OutgoingMark]);
        assert_eq!(without(|o| o.marks_incoming = false), [Lacking::IncomingMark]);
        assert_eq!(without(|o| o.restores.clear()), [Lacking::Restoring]);
        assert_eq!(without(|o| o.restores = [0x100].into()), [Lacking::Rule(0x100)]);
        assert_eq!(
            without(|o| o.restores = [0x80, 0x100].into()),
            [],
            "of earlier settings"
        );
        assert_eq!(
            lacking(&InForce::default(), Wants::default()).len(),
            5,
            "an original that has not begun"
        );
    }

    #[test]
    fn what_it_is_not_going_to_do_is_not_waited_for() {
        let bare = InForce {
            begun: true,
            ..InForce::default()
        };
        let wants = Wants {
            translation: Some(false),
            node_ports: Some(false),
        };
        assert_eq!(lacking(&bare, wants), []);
        let node_ports = Wants {
            node_ports: Some(true),
            ..wants
        };
        assert_eq!(
            lacking(&bare, node_ports),
            [Lacking::IncomingMark, Lacking::Restoring]
        );
    }

    #[test]
    fn connections_that_would_break_are_waited_for() {
        let held = Held {
            marks: [(0x100, 2), (0x200, 0)].into(),
            translated: 1,
        };
        let lacking = held.lacking();
        assert_eq!(
            lacking,
            [
                Lacking::Connections {
                    mark: 0x100,
                    count: 2
                },
                Lacking::Translated { count: 1 }
            ]
        );
    }
}
