//! What `iptables-nft` wrote, and the table `ip aws-cni`: read and taken away by netlink.

use super::rejects::{self, FILTER, FORWARD};
use super::theirs::{Does, InTable, Listing, MANGLE, NAT, POSTROUTING, PREROUTING, Seen, Theirs, is_chain};
use super::{Backend, InForce, Removed};
use crate::netlink::{NetlinkError, parse};
use crate::nfnetlink::{Delete, IPV4, IPV6, Nfnetlink, Rule, Table, attribute, text};

/// The table of the releases that mark by nftables.
const NATIVE: &str = "aws-cni";
/// Its chains, and how many rules the first has when it is whole.
const NATIVE_BASE: &str = "nat-prerouting";
const NATIVE_MARK: &str = "snat-mark";
const NATIVE_RULES: usize = 3;

// Attributes of the expressions `match` and `target` (iptables' own modules), `immediate`, `nat` and `ct`.
const MODULE_NAME: u16 = 1;
const MODULE_REVISION: u16 = 2;
const MODULE_DATA: u16 = 3;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
const NAT_KIND: u16 = 1;
const CT_SOURCE: u16 = 4;
/// `NFTNL_UDATA_RULE_COMMENT`: where `nft` and some releases of iptables put the comment.
const USER_COMMENT: u8 = 0;

/// Found in nftables.
#[derive(Debug)]
pub(super) struct Parts {
    theirs: Theirs<u64>,
    /// The table of their own, if there is one, and whether it marks.
    native: Option<bool>,
}

impl Parts {
    pub(super) fn is_nothing(&self) -> bool {
        self.native.is_none() && self.theirs.is_nothing()
    }

    pub(super) fn in_force(&self) -> InForce {
        let mut found = self.theirs.in_force();
        found.marks_outgoing |= self.native == Some(true);
        found
    }

    pub(super) fn removed(&self) -> Removed {
        let tables = self.native.map(|_| format!("ip {NATIVE}"));
        self.theirs
            .removed(Backend::Nftables, tables.into_iter().collect())
    }
}

pub(super) fn look(netlink: &mut Nfnetlink) -> Result<Parts, NetlinkError> {
    let chains = netlink.chains()?;
    let of = |table: &'static str| chains.iter().filter(move |chain| chain.table == table);
    let tables = netlink.tables()?;
    let native = tables.iter().any(|t| t.family == IPV4 && t.name == NATIVE);
    let mut nat = Listing {
        chains: of(NAT).map(|chain| chain.name.clone()).collect(),
        rules: Vec::new(),
    };
    // All rules of a node with many services are megabytes; they are read only where somebody may lead to a chain of theirs.
    let places: &[Option<&str>] = if nat.chains.iter().any(|chain| is_chain(chain)) {
        &[None]
    } else {
        &[Some(PREROUTING), Some(POSTROUTING)]
    };
    for place in places {
        if !nat.chains.is_empty() {
            nat.rules.extend(netlink.rules(NAT, *place)?.iter().map(seen));
        }
    }
    let mut mangle = Listing::default();
    if of(MANGLE).any(|chain| chain.name == PREROUTING) {
        let rules = netlink.rules(MANGLE, Some(PREROUTING))?;
        mangle.rules = rules.iter().map(seen).collect();
    }
    Ok(Parts {
        theirs: Theirs::of(nat, mangle),
        native: if native { Some(marks(netlink)?) } else { None },
    })
}

/// Whether their own table is whole.
fn marks(netlink: &mut Nfnetlink) -> Result<bool, NetlinkError> {
    let base = netlink.rules(NATIVE, Some(NATIVE_BASE))?;
    let mark = netlink.rules(NATIVE, Some(NATIVE_MARK))?;
    let sets = |rule: &Rule| {
        let mut all = rule.expressions.iter();
        all.any(|(name, data)| name == "ct" && attribute(data, 0, CT_SOURCE).is_some())
    };
    Ok(base.len() >= NATIVE_RULES && mark.iter().any(sets))
}

/// In one transaction.
pub(super) fn remove(netlink: &mut Nfnetlink, parts: &Parts) -> Result<(), NetlinkError> {
    let mut changes = Vec::new();
    for InTable { table, chains, rules } in parts.theirs.tables() {
        // First whatever leads to a chain, then what is in the chains, which may lead to one another.
        changes.extend(rules.into_iter().map(|rule| Delete::Rule {
            family: IPV4,
            table: table.into(),
            chain: rule.chain.clone(),
            handle: rule.id,
        }));
        changes.extend(chains.iter().map(|chain| Delete::Rules {
            table: table.into(),
            chain: chain.clone(),
        }));
        changes.extend(chains.iter().map(|chain| Delete::Chain {
            table: table.into(),
            chain: chain.clone(),
        }));
    }
    if parts.native.is_some() {
        changes.push(Delete::Table(Table {
            family: IPV4,
            name: NATIVE.into(),
        }));
    }
    netlink.commit(&changes, "remove the chains of amazon-vpc-cni-k8s from nftables")
}

/// Takes away the rules that reject new connections to the addresses of egress, in one transaction; says how many there were.
pub(super) fn remove_rejects(netlink: &mut Nfnetlink, v6: bool) -> Result<usize, NetlinkError> {
    let family = if v6 { IPV6 } else { IPV4 };
    let mut rules = netlink.rules_of(family, FILTER, Some(FORWARD))?;
    rules.retain(|rule| comment(rule).as_deref() == Some(rejects::comment(v6)));
    if rules.is_empty() {
        return Ok(0);
    }
    let changes: Vec<Delete> = rules
        .iter()
        .map(|rule| Delete::Rule {
            family,
            table: FILTER.into(),
            chain: FORWARD.into(),
            handle: rule.handle,
        })
        .collect();
    netlink.commit(
        &changes,
        "remove the rule of amazon-vpc-cni-k8s for addresses of egress from nftables",
    )?;
    Ok(rules.len())
}

fn seen(rule: &Rule) -> Seen<u64> {
    Seen {
        chain: rule.chain.clone(),
        comment: comment(rule),
        does: does(rule),
        id: rule.handle,
    }
}

/// One of iptables' own modules in a rule.
struct Module<'a> {
    name: String,
    revision: u32,
    data: &'a [u8],
}

fn modules<'a>(rule: &'a Rule, kind: &'a str) -> impl Iterator<Item = Module<'a>> {
    let of_kind = rule.expressions.iter().filter(move |(name, _)| name == kind);
    of_kind.filter_map(|(_, data)| {
        let revision = attribute(data, 0, MODULE_REVISION).and_then(|r| r.try_into().ok());
        Some(Module {
            name: text(attribute(data, 0, MODULE_NAME)?),
            revision: revision.map_or(0, u32::from_be_bytes),
            data: attribute(data, 0, MODULE_DATA).unwrap_or_default(),
        })
    })
}

fn comment(rule: &Rule) -> Option<String> {
    let module = modules(rule, "match").find(|module| module.name == "comment");
    module
        .map(|module| text(module.data))
        .or_else(|| user_comment(&rule.user_data))
}

/// Entries of a kind, a length, and as many bytes.
fn user_comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (&[kind, length], rest) = data.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        if kind == USER_COMMENT {
            return Some(text(value));
        }
        data = rest;
    }
}

fn does(rule: &Rule) -> Does {
    if let Some(target) = modules(rule, "target").last() {
        return match target.name.as_str() {
            "SNAT" => Does::Translate,
            "CONNMARK" => mark(target.revision, target.data).unwrap_or(Does::Other),
            _ => Does::Other,
        };
    }
    match rule.expressions.last() {
        Some((name, data)) if name == "immediate" => {
            let verdict = attribute(data, 0, IMMEDIATE_DATA).and_then(|d| attribute(d, 0, DATA_VERDICT));
            let chain = verdict.and_then(|v| attribute(v, 0, VERDICT_CHAIN));
            chain.map_or(Does::Other, |chain| Does::Lead(text(chain)))
        }
        // Newer releases of iptables may say it in nftables' own words. Kind 0 is the source.
        Some((name, data)) if name == "nat" && attribute(data, 0, NAT_KIND) == Some(&[0; 4]) => {
            Does::Translate
        }
        _ => Does::Other,
    }
}

/// `struct xt_connmark_tginfo1`: value, mask of the connection's mark, mask of the packet's, mode. From revision 2 on two bytes
/// that shift stand before the mode.
fn mark(revision: u32, data: &[u8]) -> Option<Does> {
    const SET: u8 = 0;
    const RESTORE: u8 = 2;
    match *data.get(if revision < 2 { 12 } else { 14 })? {
        SET => Some(Does::SetMark(parse::read_u32(data, 0)?)),
        RESTORE => Some(Does::RestoreMark(parse::read_u32(data, 4)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_comment_that_nft_wrote_is_read() {
        let data = [&[1, 2, 9, 9], &[USER_COMMENT, 4][..], b"AWS\0"].concat();
        assert_eq!(user_comment(&data).as_deref(), Some("AWS"));
        assert_eq!(user_comment(&[USER_COMMENT, 200, b'A']), None);
    }

    #[test]
    fn a_mark_is_set_or_restored_by_its_mode() {
        let data = |last: [u8; 4]| {
            let mut data = Vec::new();
            for number in [0x80_u32, 0x180, 0xff] {
                data.extend_from_slice(&number.to_ne_bytes());
            }
            data.extend_from_slice(&last);
            data
        };
        assert_eq!(mark(1, &data([0, 0, 0, 0])), Some(Does::SetMark(0x80)));
        assert_eq!(mark(1, &data([2, 0, 0, 0])), Some(Does::RestoreMark(0x180)));
        assert_eq!(mark(2, &data([0, 0, 2, 0])), Some(Does::RestoreMark(0x180)));
        assert_eq!(mark(1, &data([1, 0, 0, 0])), None);
        assert_eq!(mark(1, &[0; 12]), None);
    }

    proptest! {
        #[test]
        fn no_rule_panics(names in proptest::collection::vec(prop_oneof!["match", "target", "immediate", "nat"], 0..3), data: Vec<u8>, user_data: Vec<u8>) {
            let expressions = names.into_iter().map(|name| (name, data.clone())).collect();
            let rule = Rule { chain: "PREROUTING".into(), handle: 1, expressions, user_data };
            let _ = seen(&rule);
        }
    }
}
