//! What of the settings of an earlier time is still needed: by connections that began then, and by pods that were made then.
//!
//! The kernel itself remembers the earlier settings: a mark by its rule, a prefix by the names of pods' links, translation by the
//! table's chain. So nothing is written down for the next start. [`look()`] reads; who needs what is decided purely.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::conntrack::{Connection, Conntrack, Filter};
use crate::netlink::{MAIN, NetlinkError, Rule, Socket};
use crate::observe;
use crate::pod::TO_POD_RULE;

/// Parts of earlier settings that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Earlier {
    /// Marks that connections may carry: each is restored into packets from pods, and its packets go to the main table.
    pub marks: BTreeSet<u32>,
    /// What the names of some pods' host ends begin with.
    pub prefixes: BTreeSet<String>,
    /// Translated connections may live though none is translated any more.
    pub translation: bool,
}

impl Earlier {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether what carries this mark is led as the present one says anyway, as it has all its bits.
#[must_use]
pub fn covers(present: Option<u32>, mark: u32) -> bool {
    present.is_some_and(|present| mark & present == present)
}

/// The settings in force, as far as they take the place of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The mark that connections get; none where none gets one.
    pub mark: Option<u32>,
    /// The node's address, which is what a translated connection has outside.
    pub node: Option<Ipv4Addr>,
    /// The VPC's CIDRs; nobody in there sees translated connections of ours.
    pub vpc_cidrs: Vec<Ipv4Net>,
}

/// How many connections or pods need each part of [`Earlier`]; what nobody needs is not listed, or 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Connections with a mark.
    pub marks: BTreeMap<u32, usize>,
    /// Pods with links of a prefix.
    pub prefixes: BTreeMap<String, usize>,
    /// Translated connections.
    pub translation: usize,
}

impl Needs {
    /// The parts that somebody needs.
    #[must_use]
    pub fn still(&self) -> Earlier {
        Earlier {
            marks: needed(&self.marks),
            prefixes: needed(&self.prefixes),
            translation: self.translation > 0,
        }
    }
}

fn needed<T: Ord + Clone>(users: &BTreeMap<T, usize>) -> BTreeSet<T> {
    let needed = users.iter().filter(|(_, n)| **n > 0);
    needed.map(|(part, _)| part.clone()).collect()
}

/// Looks who needs what of `earlier`.
///
/// # Errors
/// Netlink's.
pub fn look(earlier: &Earlier, present: &Present) -> Result<Needs, NetlinkError> {
    let mut socket = Socket::open()?;
    let pods = pods(&socket.rules(false)?);
    let mut needs = Needs::default();
    if !earlier.marks.is_empty() || earlier.translation {
        let mut conntrack = Conntrack::open()?;
        for mark in &earlier.marks {
            let needing = conntrack.count(Filter::Marked(*mark), |c| needs_mark(c, present, &pods))?;
            needs.marks.insert(*mark, needing);
        }
        if earlier.translation {
            needs.translation =
                conntrack.count(Filter::SourceTranslated, |c| needs_translation(c, present, &pods))?;
        }
    }
    if !earlier.prefixes.is_empty() {
        needs.prefixes = observe::prefixes(&mut socket)?;
        needs
            .prefixes
            .retain(|prefix, _| earlier.prefixes.contains(prefix));
    }
    Ok(needs)
}

/// Addresses of pods that live on this node.
fn pods(rules: &[Rule]) -> BTreeSet<Ipv4Addr> {
    let to_pods = rules
        .iter()
        .filter(|r| r.priority == TO_POD_RULE && r.table == Some(MAIN));
    let addresses = to_pods.filter_map(|r| r.to).filter(|to| to.prefix_len() == 32);
    addresses
        .filter_map(|to| match to.addr() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// Only what comes from a pod has its mark restored. Connections to the node itself have one too, and do not need it.
fn needs_mark(connection: &Connection, present: &Present, pods: &BTreeSet<Ipv4Addr>) -> bool {
    let of_pod = pods.contains(&connection.original.source) || pods.contains(&connection.reply.source);
    of_pod && !connection.ended && !covers(present.mark, connection.mark)
}

/// Translated to the node's address for somebody outside the VPC, by whoever is still there: an entry of a pod that is gone lasts
/// for days and is used by nobody.
fn needs_translation(connection: &Connection, present: &Present, pods: &BTreeSet<Ipv4Addr>) -> bool {
    let in_vpc = |address| present.vpc_cidrs.iter().any(|net| net.contains(&address));
    let source = connection.original.source;
    let lives = pods.contains(&source) || !in_vpc(source) || Some(source) == present.node;
    !connection.ended
        && connection.source_translated
        && Some(connection.reply.destination) == present.node
        && !in_vpc(connection.reply.source)
        && lives
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Direction;

    const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 77);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

    fn present(mark: Option<u32>) -> Present {
        Present {
            mark,
            node: Some(NODE),
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        }
    }

    /// A pod's connection to the internet.
    fn out() -> Connection {
        Connection {
            original: Direction {
                source: POD,
                destination: OUTSIDE,
            },
            reply: Direction {
                source: OUTSIDE,
                destination: NODE,
            },
            mark: 0x80,
            source_translated: true,
            ended: false,
        }
    }

    /// A client's connection to a NodePort; `backend` answers.
    fn node_port(backend: Ipv4Addr) -> Connection {
        Connection {
            original: Direction {
                source: OUTSIDE,
                destination: NODE,
            },
            reply: Direction {
                source: backend,
                destination: OUTSIDE,
            },
            source_translated: false,
            ..out()
        }
    }

    fn pods() -> BTreeSet<Ipv4Addr> {
        BTreeSet::from([POD])
    }

    #[test]
    fn connections_of_living_pods_need_their_mark_until_they_end() {
        let external = present(None);
        assert!(needs_mark(&out(), &external, &pods()));
        assert!(needs_mark(&node_port(POD), &external, &pods()));
        let ended = Connection { ended: true, ..out() };
        assert!(!needs_mark(&ended, &external, &pods()));
        assert!(
            !needs_mark(&out(), &external, &BTreeSet::new()),
            "a pod that is gone"
        );
        assert!(!needs_mark(&node_port(NODE), &external, &pods()), "as by ssh");
    }

    #[test]
    fn a_connection_that_has_the_present_mark_too_does_not_need_the_earlier_one() {
        let marked = |mark| Connection { mark, ..out() };
        assert!(needs_mark(&marked(0x80), &present(Some(0x100)), &pods()));
        assert!(!needs_mark(&marked(0x180), &present(Some(0x100)), &pods()));
        // Of two bits of the present mark one is not enough.
        assert!(needs_mark(&marked(0x80), &present(Some(0x180)), &pods()));
        assert!(covers(Some(0x80), 0x180) && !covers(Some(0x180), 0x80) && !covers(None, 0x80));
    }

    #[test]
    fn translated_connections_to_outside_need_translation_until_they_end() {
        let present = present(None);
        assert!(needs_translation(&out(), &present, &pods()));
        let host = Connection {
            original: Direction {
                source: NODE,
                ..out().original
            },
            ..out()
        };
        assert!(needs_translation(&host, &present, &pods()), "the node's own");
        let others = [
            Connection { ended: true, ..out() },
            Connection {
                source_translated: false,
                ..out()
            },
            // kube-proxy's: to a backend in the VPC, or from another address of the node.
            Connection {
                reply: Direction {
                    source: Ipv4Addr::new(10, 0, 200, 5),
                    destination: NODE,
                },
                ..out()
            },
            Connection {
                reply: Direction {
                    source: OUTSIDE,
                    destination: Ipv4Addr::new(10, 0, 0, 11),
                },
                ..out()
            },
        ];
        for other in others {
            assert!(!needs_translation(&other, &present, &pods()), "{other:?}");
        }
        assert!(
            !needs_translation(&out(), &present, &BTreeSet::new()),
            "a pod that is gone"
        );
    }

    #[test]
    fn what_nobody_needs_is_not_kept() {
        let needs = Needs {
            marks: BTreeMap::from([(0x80, 0), (0x100, 2)]),
            prefixes: BTreeMap::from([("abc".to_owned(), 1), ("eni".to_owned(), 0)]),
            translation: 0,
        };
        let still = needs.still();
        assert_eq!(still.marks, BTreeSet::from([0x100]));
        assert_eq!(still.prefixes, BTreeSet::from(["abc".to_owned()]));
        assert!(!still.translation && !still.is_nothing());
        assert!(Needs::default().still().is_nothing());
    }
}
