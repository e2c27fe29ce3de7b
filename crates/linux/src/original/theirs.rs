//! Which chains and rules are the original's. Pure: both back ends are judged by the same words.

use super::{Backend, InForce, Removed};

/// Tables in which it works.
pub(super) const NAT: &str = "nat";
pub(super) const MANGLE: &str = "mangle";
/// Hook chains in which it has rules.
pub(super) const PREROUTING: &str = "PREROUTING";
pub(super) const POSTROUTING: &str = "POSTROUTING";

/// What the names of its chains begin with; a number follows.
const SNAT_CHAIN: &str = "AWS-SNAT-CHAIN-";
const MARK_CHAIN: &str = "AWS-CONNMARK-CHAIN-";
/// Comments of its rules in chains of others that do not lead to one of its chains.
const PRIMARY: &str = "AWS, primary ENI";
const RESTORE: &str = "AWS, CONNMARK";
/// In `POSTROUTING` itself: the first releases had no chain.
const SNAT: &str = "AWS, SNAT";

/// What a rule does, as far as that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Does {
    /// Leads to a chain.
    Lead(String),
    /// Replaces the source.
    Translate,
    /// Sets bits in the connection's mark.
    SetMark(u32),
    /// Copies these bits of the connection's mark into the packet's.
    RestoreMark(u32),
    /// Something else.
    Other,
}

/// A rule of either back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen<Id> {
    pub(super) chain: String,
    pub(super) comment: Option<String>,
    pub(super) does: Does,
    /// By which it is taken away.
    pub(super) id: Id,
}

/// A table's chains and rules; perhaps not all of them, but at least all that concern the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing<Id> {
    pub(super) chains: Vec<String>,
    pub(super) rules: Vec<Seen<Id>>,
}

impl<Id> Default for Listing<Id> {
    fn default() -> Self {
        Self {
            chains: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// What is theirs in both tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Theirs<Id> {
    nat: Listing<Id>,
    mangle: Listing<Id>,
}

/// What is theirs in one table.
pub(super) struct InTable<'a, Id> {
    pub(super) table: &'static str,
    /// Their chains.
    pub(super) chains: &'a [String],
    /// Their rules in chains of others.
    pub(super) rules: Vec<&'a Seen<Id>>,
}

/// Whether a chain is theirs.
pub(super) fn is_chain(name: &str) -> bool {
    is_numbered(name, SNAT_CHAIN) || is_numbered(name, MARK_CHAIN)
}

fn is_numbered(name: &str, beginning: &str) -> bool {
    name.strip_prefix(beginning)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

impl<Id: Clone> Theirs<Id> {
    /// Of these tables.
    pub(super) fn of(nat: Listing<Id>, mangle: Listing<Id>) -> Self {
        let keep = |mut listing: Listing<Id>, is_theirs: fn(&Seen<Id>) -> bool| {
            listing.chains.retain(|chain| is_chain(chain));
            listing.rules.retain(is_theirs);
            listing
        };
        Self {
            nat: keep(nat, is_nat_rule),
            mangle: keep(mangle, is_mangle_rule),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        [&self.nat, &self.mangle]
            .iter()
            .all(|listing| listing.chains.is_empty() && listing.rules.is_empty())
    }

    /// What is theirs, by table.
    pub(super) fn tables(&self) -> [InTable<'_, Id>; 2] {
        [(NAT, &self.nat), (MANGLE, &self.mangle)].map(|(table, listing)| {
            let elsewhere = listing.rules.iter().filter(|rule| !is_chain(&rule.chain));
            InTable {
                table,
                chains: &listing.chains,
                rules: elsewhere.collect(),
            }
        })
    }

    pub(super) fn in_force(&self) -> InForce {
        let nat = || self.nat.rules.iter();
        let mangle = || self.mangle.rules.iter();
        let leads = |from: &str, to: &str| {
            nat().any(|r| r.chain == from && matches!(&r.does, Does::Lead(chain) if is_numbered(chain, to)))
        };
        let translates = nat().any(|r| is_numbered(&r.chain, SNAT_CHAIN) && r.does == Does::Translate);
        let marks = nat().any(|r| is_numbered(&r.chain, MARK_CHAIN) && matches!(r.does, Does::SetMark(_)));
        let restores = |r: &Seen<Id>| match r.does {
            Does::RestoreMark(mark) => Some(mark),
            _ => None,
        };
        let restored_once = nat().any(|r| r.chain == PREROUTING && restores(r).is_some());
        InForce {
            begun: self.nat.chains.iter().any(|chain| is_numbered(chain, SNAT_CHAIN)),
            translates: leads(POSTROUTING, SNAT_CHAIN) && translates,
            marks_outgoing: leads(PREROUTING, MARK_CHAIN) && marks && restored_once,
            marks_incoming: mangle().any(|r| matches!(r.does, Does::SetMark(_))),
            restores: mangle().filter_map(restores).collect(),
        }
    }

    pub(super) fn removed(&self, backend: Backend, tables: Vec<String>) -> Removed {
        let all = self.tables();
        Removed {
            backend,
            tables,
            chains: all.iter().flat_map(|one| one.chains.iter().cloned()).collect(),
            rules: all.iter().map(|one| one.rules.len()).sum(),
        }
    }
}

/// In a chain of theirs, or leading to one, wherever it stands: without the chain it means nothing.
fn is_nat_rule<Id>(rule: &Seen<Id>) -> bool {
    let leads = matches!(&rule.does, Does::Lead(chain) if is_chain(chain));
    let named = match (rule.chain.as_str(), rule.comment.as_deref()) {
        (PREROUTING, Some(RESTORE)) => matches!(rule.does, Does::RestoreMark(_)),
        (POSTROUTING, Some(SNAT)) => rule.does == Does::Translate,
        _ => false,
    };
    is_chain(&rule.chain) || leads || named
}

fn is_mangle_rule<Id>(rule: &Seen<Id>) -> bool {
    let marks = matches!(rule.does, Does::SetMark(_) | Does::RestoreMark(_));
    rule.chain == PREROUTING && rule.comment.as_deref() == Some(PRIMARY) && marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(chain: &str, comment: &str, does: Does) -> Seen<usize> {
        Seen {
            chain: chain.into(),
            comment: Some(comment.into()),
            does,
            id: 0,
        }
    }

    fn lead(to: &str) -> Does {
        Does::Lead(to.into())
    }

    /// As of the present release with iptables for the mark.
    fn whole() -> (Listing<usize>, Listing<usize>) {
        let nat = Listing {
            chains: [
                "PREROUTING",
                "AWS-SNAT-CHAIN-0",
                "AWS-CONNMARK-CHAIN-0",
                "KUBE-SERVICES",
            ]
            .map(str::to_owned)
            .into(),
            rules: vec![
                seen(POSTROUTING, "AWS SNAT CHAIN", lead("AWS-SNAT-CHAIN-0")),
                seen("AWS-SNAT-CHAIN-0", "AWS SNAT CHAIN", Does::Other),
                seen("AWS-SNAT-CHAIN-0", "AWS, SNAT", Does::Translate),
                seen(
                    PREROUTING,
                    "AWS, outbound connections",
                    lead("AWS-CONNMARK-CHAIN-0"),
                ),
                seen(PREROUTING, "AWS, CONNMARK", Does::RestoreMark(0x80)),
                seen("AWS-CONNMARK-CHAIN-0", "AWS, CONNMARK", Does::SetMark(0x80)),
                seen(PREROUTING, "kubernetes service portals", lead("KUBE-SERVICES")),
                seen(POSTROUTING, "mine", Does::Translate),
            ],
        };
        let mangle = Listing {
            chains: vec![],
            rules: vec![
                seen(PREROUTING, PRIMARY, Does::SetMark(0x80)),
                seen(PREROUTING, PRIMARY, Does::RestoreMark(0x80)),
                seen(PREROUTING, "mine", Does::SetMark(0x80)),
            ],
        };
        (nat, mangle)
    }

    #[test]
    fn what_is_theirs_is_told_from_what_is_not() {
        let (nat, mangle) = whole();
        let theirs = Theirs::of(nat, mangle);
        let removed = theirs.removed(Backend::Legacy, vec![]);
        assert_eq!(removed.chains, ["AWS-SNAT-CHAIN-0", "AWS-CONNMARK-CHAIN-0"]);
        assert_eq!(removed.rules, 3 + 2, "two jumps and a restore; two of mangle");
        assert_eq!(
            removed.to_string(),
            "chains AWS-SNAT-CHAIN-0, AWS-CONNMARK-CHAIN-0; 5 rules in other chains (legacy)"
        );
        let whole = InForce {
            begun: true,
            translates: true,
            marks_outgoing: true,
            marks_incoming: true,
            restores: [0x80].into(),
        };
        assert_eq!(theirs.in_force(), whole);
    }

    #[test]
    fn it_is_not_in_force_while_a_rule_is_lacking() {
        let (nat, mangle) = whole();
        // Without the jump, without the translation, without the mark's jump, its setting, its restoring.
        for (lacking, translates, marks) in [
            (0, false, true),
            (2, false, true),
            (3, true, false),
            (4, true, false),
            (5, true, false),
        ] {
            let mut nat = nat.clone();
            nat.rules.remove(lacking);
            let found = Theirs::of(nat, mangle.clone()).in_force();
            assert_eq!(
                (found.translates, found.marks_outgoing),
                (translates, marks),
                "{lacking}"
            );
        }
    }

    #[test]
    fn chains_of_old_releases_are_theirs_and_similar_names_are_not() {
        for theirs in ["AWS-SNAT-CHAIN-0", "AWS-SNAT-CHAIN-12", "AWS-CONNMARK-CHAIN-3"] {
            assert!(is_chain(theirs));
        }
        for other in [
            "AWS-SNAT-CHAIN-",
            "AWS-SNAT-CHAIN",
            "AWS-SNAT-CHAIN-0x",
            "MY-AWS-SNAT-CHAIN-0",
        ] {
            assert!(!is_chain(other), "{other}");
        }
    }

    #[test]
    fn the_rule_of_the_first_releases_without_a_chain_is_theirs() {
        let nat = Listing {
            chains: vec![],
            rules: vec![seen(POSTROUTING, "AWS, SNAT", Does::Translate)],
        };
        let theirs = Theirs::of(nat, Listing::default());
        assert_eq!(theirs.removed(Backend::Nftables, vec![]).rules, 1);
    }
}
