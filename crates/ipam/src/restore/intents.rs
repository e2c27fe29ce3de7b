//! EC2 calls that an earlier life had under way.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::note::RestoreNote;
use crate::ids::EniId;
use crate::intent::{Intent, IntentId, Phase, What};
use crate::interface::{Interface, State};
use crate::kind::Kind;
use crate::pool::Pool;
use crate::time::{Mono, Now};

impl Pool {
    /// Takes intents up again: creations with what they had achieved, releases and deletions as they were; what an
    /// assignment achieved has to be asked.
    pub(super) fn settle_intents(&mut self, now: Now, notes: &mut Vec<RestoreNote>) {
        let mut dropped: Vec<(IntentId, EniId)> = Vec::new();
        let mut ask: Vec<EniId> = Vec::new();
        let interfaces = &self.interfaces;
        for (id, intent) in &mut self.intents {
            match &mut intent.what {
                What::Create(create) => create.unsure = true,
                What::Assign { eni, count, kind } => {
                    let (unsure, unsure_prefixes) = match kind {
                        Kind::Address => (*count, 0),
                        Kind::Prefix => (0, *count),
                    };
                    intent.what = What::Describe {
                        eni: eni.clone(),
                        unsure,
                        unsure_prefixes,
                        doubt: true,
                    };
                }
                What::AssignIpv6 { eni } => {
                    intent.what = What::Describe {
                        eni: eni.clone(),
                        unsure: 0,
                        unsure_prefixes: 0,
                        doubt: true,
                    };
                }
                What::Release {
                    eni,
                    prefixes,
                    unsure,
                    ..
                } if !prefixes.is_empty() => {
                    // The rest of a prefix that a pod lives in is given to nobody before EC2 says what is there.
                    let lived_in = |p: &Ipv4Net| {
                        let mut all = interfaces.get(eni).into_iter().flat_map(|i| i.of_prefix(*p));
                        all.any(|(_, a)| a.state == State::Owned)
                    };
                    if prefixes.iter().any(lived_in) || !interfaces.contains_key(eni) {
                        dropped.push((*id, eni.clone()));
                    } else {
                        *unsure = true;
                    }
                }
                What::Release {
                    eni,
                    addresses,
                    unsure,
                    ..
                } => {
                    *unsure = true;
                    let leaves = |at: &std::net::Ipv4Addr| {
                        let a = interfaces.get(eni).and_then(|i| i.addresses.get(at));
                        a.is_some_and(|a| a.state != State::Owned)
                    };
                    let before = addresses.len();
                    addresses.retain(leaves);
                    if addresses.len() < before {
                        ask.push(eni.clone()); // What a pod has may be gone.
                    }
                    if addresses.is_empty() {
                        dropped.push((*id, eni.clone()));
                    }
                }
                What::Delete { .. } | What::Describe { .. } => {}
            }
            if let Phase::Running(_) = intent.phase {
                intent.phase = Phase::Paused(now.mono);
            }
        }
        for (id, eni) in dropped {
            let what = What::Describe {
                eni,
                unsure: 0,
                unsure_prefixes: 0,
                doubt: true,
            };
            let phase = Phase::Paused(now.mono);
            self.intents.insert(
                id,
                Intent {
                    what,
                    since: now.mono,
                    phase,
                    trouble: None,
                },
            );
        }
        for eni in ask {
            if let Some(interface) = self.interfaces.get_mut(&eni) {
                interface.verify_at = Some(now.mono);
            }
        }
        let intents = &self.intents;
        for interface in self.interfaces.values_mut() {
            settle_interface(interface, intents, now.mono);
        }
        notes.extend(
            self.intents
                .values()
                .map(|i| RestoreNote::Resumed { what: i.title() }),
        );
    }
}

/// Makes an interface's states agree with the intents there are.
fn settle_interface(interface: &mut Interface, intents: &BTreeMap<IntentId, Intent>, now: Mono) {
    let deletes = |by: &IntentId| matches!(intents.get(by).map(|i| &i.what), Some(What::Delete { .. }));
    interface.deleting = interface.deleting.filter(deletes);
    for a in interface.addresses.values_mut() {
        if let State::Leaving { by } = a.state
            && !intents.contains_key(&by)
        {
            a.state = State::Free { since: now };
        }
    }
}
