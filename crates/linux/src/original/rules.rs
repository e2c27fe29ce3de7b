//! Rules of old releases: they led a pod's packets to its interface's table by destination, one rule for each CIDR of the VPC, and
//! left all others to the main table. Present ones lead all packets of a pod to its table, but those with the mark.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::conntrack::{Connection, Conntrack, Filter};
use crate::netlink::{Errno, MAIN, NetlinkError, Request, Rule, Socket};
use crate::pod::FROM_POD_RULE;

/// The rules of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// The pod's address.
    pub pod: Ipv4Addr,
    /// Where the last of them leads.
    pub table: u32,
    rules: Vec<Rule>,
}

/// The pods with such rules.
///
/// # Errors
/// Netlink's.
pub fn old_rules(socket: &mut Socket) -> Result<Vec<Old>, NetlinkError> {
    let mut pods: Vec<Old> = Vec::new();
    for rule in socket.rules(false)? {
        let Some((pod, table)) = by_destination(&rule) else {
            continue;
        };
        match pods.iter_mut().find(|old| old.pod == pod) {
            Some(old) => {
                old.table = table;
                old.rules.push(rule);
            }
            None => pods.push(Old {
                pod,
                table,
                rules: vec![rule],
            }),
        }
    }
    Ok(pods)
}

fn by_destination(rule: &Rule) -> Option<(Ipv4Addr, u32)> {
    let (Some(from), Some(_), Some(table)) = (rule.from, rule.to, rule.table) else {
        return None;
    };
    let IpAddr::V4(pod) = from.addr() else {
        return None;
    };
    let plain = Rule {
        to: rule.to,
        ..Rule::from(FROM_POD_RULE, pod.into(), table)
    };
    (from.prefix_len() == 32 && table != MAIN && *rule == plain).then_some((pod, table))
}

/// Puts one rule in the place of a pod's old ones. Connections that are translated and have no mark yet get it first: by the old
/// rules they leave by the primary interface, whose address they have. Says whether it was done: it is not while there are such
/// connections and `mark` is none, as then no mark leads back to the primary interface.
///
/// `mark` is to be restored into packets, and set in new connections, already.
///
/// # Errors
/// Netlink's. Whatever was done before, the pod's packets are led to its table.
pub fn collapse(socket: &mut Socket, old: &Old, mark: Option<u32>) -> Result<bool, NetlinkError> {
    let bits = mark.unwrap_or(0);
    let unmarked = |c: &Connection| needs_mark(c, old, bits);
    let mut conntrack = Conntrack::open()?;
    match mark {
        Some(bits) => {
            conntrack.mark(Filter::SourceTranslated, unmarked, bits)?;
        }
        None if conntrack.count(Filter::SourceTranslated, unmarked)? > 0 => return Ok(false),
        None => {}
    }
    // Beside a rule with a destination the kernel takes the same one without for the same, and refuses it. So one at the next
    // priority leads while there is none.
    let plain = |priority| Rule::from(priority, old.pod.into(), old.table);
    add(socket, plain(FROM_POD_RULE + 1))?;
    for rule in &old.rules {
        delete(socket, rule.clone())?;
    }
    add(socket, plain(FROM_POD_RULE))?;
    delete(socket, plain(FROM_POD_RULE + 1))?;
    Ok(true)
}

fn add(socket: &mut Socket, rule: Rule) -> Result<(), NetlinkError> {
    match socket.run_one(Request::AddRule(rule)) {
        Err(error) if error.errno() == Some(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}

fn delete(socket: &mut Socket, rule: Rule) -> Result<(), NetlinkError> {
    match socket.run_one(Request::DeleteRule(rule)) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

/// The pod's, to where no old rule leads.
fn needs_mark(connection: &Connection, old: &Old, bits: u32) -> bool {
    let to = IpNet::from(IpAddr::V4(connection.reply.source));
    let led = old
        .rules
        .iter()
        .any(|r| r.to.is_some_and(|net| net.contains(&to)));
    let has = bits != 0 && connection.mark & bits == bits;
    connection.original.source == old.pod && connection.source_translated && !connection.ended && !has && !led
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Direction;

    const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 77);

    fn rule(to: Option<&str>) -> Rule {
        Rule {
            to: to.map(|net| net.parse().unwrap()),
            ..Rule::from(FROM_POD_RULE, POD.into(), 2)
        }
    }

    #[test]
    fn only_rules_that_look_at_the_destination_are_old() {
        assert_eq!(by_destination(&rule(Some("10.0.0.0/16"))), Some((POD, 2)));
        assert_eq!(by_destination(&rule(None)), None);
        let marked = Rule {
            mark: Some((1, 1)),
            ..rule(Some("10.0.0.0/16"))
        };
        assert_eq!(by_destination(&marked), None, "somebody else's");
        let earlier = Rule {
            priority: 1500,
            ..rule(Some("10.0.0.0/16"))
        };
        assert_eq!(by_destination(&earlier), None, "somebody else's");
    }

    #[test]
    fn a_connection_needs_the_mark_if_it_is_translated_and_no_old_rule_leads_it() {
        let old = Old {
            pod: POD,
            table: 2,
            rules: vec![rule(Some("10.0.0.0/16")), rule(Some("172.31.0.0/16"))],
        };
        let outside = Connection {
            original: Direction {
                source: POD,
                destination: Ipv4Addr::new(203, 0, 113, 5),
            },
            reply: Direction {
                source: Ipv4Addr::new(203, 0, 113, 5),
                destination: Ipv4Addr::new(10, 0, 0, 10),
            },
            mark: 0,
            source_translated: true,
            ended: false,
        };
        assert!(needs_mark(&outside, &old, 0x80));
        let marked = Connection {
            mark: 0x480,
            ..outside
        };
        assert!(!needs_mark(&marked, &old, 0x80));
        assert!(needs_mark(&marked, &old, 0x180));
        assert!(
            needs_mark(&outside, &old, 0),
            "without a mark it stays in need of one"
        );
        let mut excluded = outside;
        excluded.reply.source = Ipv4Addr::new(172, 31, 0, 5);
        assert!(!needs_mark(&excluded, &old, 0x80));
        let mut other = outside;
        other.original.source = Ipv4Addr::new(10, 0, 16, 78);
        assert!(!needs_mark(&other, &old, 0x80));
        assert!(!needs_mark(
            &Connection {
                ended: true,
                ..outside
            },
            &old,
            0x80
        ));
    }
}
