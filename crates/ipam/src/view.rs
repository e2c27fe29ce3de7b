//! The pool as people and programs look at it: for introspection, `vpcnet status` and metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::action::RefusalCause;
use crate::event::{FailureClass, InterfaceKind, RequestId};
use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};
use crate::intent::Phase;
use crate::interface::{Address, Interface, State};
use crate::owner::Standing;
use crate::plan::Tally;
use crate::pool::Pool;
use crate::refuse;
use crate::sums::SubnetView;
use crate::targets::{Limits, Targets};
use crate::time::{Mono, Now};

/// The whole pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PoolView {
    /// What it aims at.
    pub targets: Targets,
    /// What the machine allows.
    pub limits: Limits,
    /// Interfaces the cards may have under `limits` and `targets`.
    pub max_interfaces: u32,
    /// Sums.
    pub totals: Tally,
    /// By card and device.
    pub interfaces: Vec<InterfaceView>,
    /// By id.
    #[serde(default)]
    pub subnets: Vec<SubnetView>,
    /// Oldest first.
    pub waiting: Vec<WaitingView>,
    /// What was set out to be done with EC2 and is not settled.
    pub intents: Vec<IntentView>,
    /// What is not tried before when.
    pub backoffs: Vec<BackoffView>,
    /// Where evidence and owners disagree.
    pub contradictions: Vec<Contradiction>,
    /// When the pool looks again by itself, milliseconds from now; `None`: when something changes.
    pub next_wake_in_ms: Option<u64>,
}

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its id.
    pub id: EniId,
    /// Its MAC address.
    pub mac: String,
    /// Its position.
    pub device: DeviceIndex,
    /// Its card.
    pub card: CardIndex,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its own address.
    pub primary_address: Ipv4Addr,
    /// The instance's primary interface?
    pub is_primary: bool,
    /// What it is for.
    pub kind: InterfaceKind,
    /// False: somebody else looks after it.
    pub managed: bool,
    /// It is being detached and deleted.
    pub deleting: bool,
    /// The routing table of its pods.
    pub route_table: u32,
    /// How long the pool has known it.
    pub age_ms: u64,
    /// Its addresses for pods.
    pub addresses: Vec<AddressView>,
    /// Delegated IPv4 prefixes.
    pub prefixes: Vec<Ipv4Net>,
    /// Delegated IPv6 prefixes.
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// Of these the addresses that pods have, or had lately.
    #[serde(default)]
    pub ipv6: Vec<Ipv6AddressView>,
}

/// An address of an IPv6 prefix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ipv6AddressView {
    /// The address.
    pub address: Ipv6Addr,
    /// What may be done with it.
    pub state: AddressState,
    /// Who has it, or had it last.
    pub owner: Option<OwnerView>,
    /// EC2 says the interface does not have its prefix.
    pub disputed: bool,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressView {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix it is of, if it is of one.
    #[serde(default)]
    pub prefix: Option<Ipv4Net>,
    /// What may be done with it.
    pub state: AddressState,
    /// Who has it, or had it last.
    pub owner: Option<OwnerView>,
    /// EC2 says the interface does not have it.
    pub disputed: bool,
    /// Found by a start without own state, and given to nobody before EC2 has said again that the interface has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
}

/// What may be done with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AddressState {
    /// It may be handed out.
    Free,
    /// A pod has it.
    Assigned,
    /// Handed to nobody for this long.
    Cooling {
        /// Milliseconds.
        for_ms: u64,
    },
    /// It is being given back to EC2.
    Releasing,
}

/// Who has an address, or had it last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnerView {
    /// The sandbox.
    pub key: PodKey,
    /// The pod.
    pub meta: PodMeta,
    /// When it was given, nanoseconds since the Unix epoch; 0: not known.
    pub assigned_ns: i64,
    /// When it was given back; 0: it was not.
    pub released_ns: i64,
}

/// A sandbox without an address yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitingView {
    /// The sandbox.
    pub key: PodKey,
    /// The pod.
    pub meta: PodMeta,
    /// Its callers.
    pub requests: Vec<RequestId>,
    /// Waits this long.
    pub for_ms: u64,
    /// Will wait this long yet.
    pub left_ms: u64,
    /// Why it waits.
    pub cause: RefusalCause,
    /// Why it waits, for people.
    pub message: String,
    /// When what it waits for is tried again, milliseconds from now; `None`: it is under way, or something must change first.
    #[serde(default)]
    pub retry_in_ms: Option<u64>,
}

/// Something set out to be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IntentView {
    /// For people.
    pub what: String,
    /// Under way for this long.
    pub for_ms: u64,
    /// Addresses it will bring.
    pub brings: u32,
    /// Tried again in this many milliseconds; `None`: an executor is at it.
    pub paused_ms: Option<u64>,
    /// What went wrong so far.
    pub trouble: Option<BackoffView>,
}

/// What is not tried before when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackoffView {
    /// What.
    pub what: String,
    /// Why, for programs.
    pub class: FailureClass,
    /// Why: EC2's code and message.
    pub message: String,
    /// Failures in a row.
    pub failures: u32,
    /// Tried again in this many milliseconds; 0: as soon as it is wanted.
    pub retry_in_ms: u64,
}

/// Evidence that contradicts an owner. The owner stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contradiction {
    /// The address.
    pub address: IpAddr,
    /// Its owner.
    pub key: PodKey,
    /// Its owner's pod.
    pub meta: PodMeta,
    /// What contradicts.
    pub message: String,
}

impl Pool {
    /// The pool as it is now.
    #[must_use]
    pub fn view(&self, now: Now) -> PoolView {
        let subnets = self.subnets(now);
        let now = now.mono;
        let mut interfaces: Vec<&Interface> = self.interfaces.values().collect();
        interfaces.sort_by_key(|i| (i.card, i.device, &i.id));
        PoolView {
            targets: self.targets.clone(),
            limits: self.limits.clone(),
            max_interfaces: self.limits.max_interfaces(&self.targets),
            totals: Tally::of(self, now),
            interfaces: interfaces
                .into_iter()
                .map(|i| self.interface_view(i, now))
                .collect(),
            subnets,
            waiting: self.waiting_view(now),
            intents: self.intents.values().map(|i| intent_view(i, now)).collect(),
            backoffs: self.backoff_view(now),
            contradictions: self.contradictions(),
            next_wake_in_ms: self.wake.map(|at| ms(at, now)),
        }
    }

    fn interface_view(&self, i: &Interface, now: Mono) -> InterfaceView {
        InterfaceView {
            id: i.id.clone(),
            mac: i.mac.clone(),
            device: i.device,
            card: i.card,
            subnet: i.subnet.clone(),
            primary_address: i.primary_address,
            is_primary: i.is_primary,
            kind: i.kind,
            managed: i.managed,
            deleting: i.deleting.is_some(),
            route_table: i.table(),
            age_ms: ms(now, i.since),
            addresses: i
                .addresses
                .iter()
                .map(|(a, address)| self.address_view(*a, i.prefix_of(*a), address, now))
                .collect(),
            prefixes: i.prefixes.iter().copied().collect(),
            ipv6_prefixes: i.ipv6_prefixes.iter().copied().collect(),
            ipv6: i
                .ipv6
                .iter()
                .map(|(at, address)| Ipv6AddressView {
                    address: *at,
                    state: state_of(address, now),
                    owner: self.owner_of(IpAddr::V6(*at), address),
                    disputed: address.disputed,
                })
                .collect(),
        }
    }

    fn address_view(
        &self,
        at: Ipv4Addr,
        prefix: Option<Ipv4Net>,
        address: &Address,
        now: Mono,
    ) -> AddressView {
        AddressView {
            address: at,
            prefix,
            state: state_of(address, now),
            owner: self.owner_of(IpAddr::V4(at), address),
            disputed: address.disputed,
            unsure: address.unsure,
        }
    }

    /// Who has an address, or had it last.
    fn owner_of(&self, at: IpAddr, address: &Address) -> Option<OwnerView> {
        if address.state == State::Owned {
            return self.owner_view(at);
        }
        address.last.as_ref().map(|last| OwnerView {
            key: last.key.clone(),
            meta: last.meta.clone(),
            assigned_ns: last.allocated_ns,
            released_ns: last.released_ns,
        })
    }

    fn owner_view(&self, address: IpAddr) -> Option<OwnerView> {
        let key = self.by_address.get(&address)?;
        let owner = self.owners.get(key)?;
        let held = owner.held.iter().find(|h| h.address == address)?;
        Some(OwnerView {
            key: key.clone(),
            meta: owner.meta.clone(),
            assigned_ns: held.allocated_ns,
            released_ns: 0,
        })
    }

    fn waiting_view(&self, now: Mono) -> Vec<WaitingView> {
        let why = |wait| refuse::why(self, wait, now);
        self.waiting
            .values()
            .map(|w| {
                let why = why(w);
                WaitingView {
                    key: w.key.clone(),
                    meta: w.meta.clone(),
                    requests: w.askers.iter().map(|a| a.request).collect(),
                    for_ms: ms(now, w.since),
                    left_ms: ms(w.deadline(), now),
                    cause: w.cause,
                    message: why.message,
                    retry_in_ms: why
                        .retry_in
                        .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
                }
            })
            .collect()
    }

    fn backoff_view(&self, now: Mono) -> Vec<BackoffView> {
        let mut all = Vec::new();
        let mut add = |what: String, block: Option<&crate::backoff::Block>| {
            all.extend(block.map(|b| block_view(what, b, now)));
        };
        add("creating interfaces".into(), self.backoffs.create.as_ref());
        add("assigning addresses".into(), self.backoffs.assign.as_ref());
        add("releasing addresses".into(), self.backoffs.release.as_ref());
        add(
            "addresses that no pod waits for".into(),
            self.backoffs.pressure.at(now),
        );
        for (subnet, block) in &self.backoffs.subnets {
            add(format!("addresses of {subnet}"), block.addresses.full.as_ref());
            add(format!("prefixes of {subnet}"), block.prefixes.full.as_ref());
        }
        for interface in self.interfaces.values() {
            add(
                format!("addresses for {}", interface.id),
                interface.block.as_ref(),
            );
        }
        all
    }

    /// Owners whose address is not where evidence says it should be.
    fn contradictions(&self) -> Vec<Contradiction> {
        let mut all = Vec::new();
        for (key, owner) in &self.owners {
            for held in &owner.held {
                let place = self.interfaces.get(&held.eni);
                let address = place.and_then(|i| i.address(held.address));
                let message = match (place, address) {
                    (Some(i), Some(a)) if a.disputed => {
                        format!("EC2 says {} does not have it; the pod keeps it", i.id)
                    }
                    (Some(_), Some(_)) => continue,
                    _ if held.eni.0.is_empty() => {
                        "no interface that is known has it; it is given to nobody else".to_owned()
                    }
                    (None, _) => {
                        format!(
                            "its interface {} is not known or gone; it is given to nobody else",
                            held.eni
                        )
                    }
                    (Some(i), None) => format!("{} no longer lists it; it is given to nobody else", i.id),
                };
                all.push(Contradiction {
                    address: held.address,
                    key: key.clone(),
                    meta: owner.meta.clone(),
                    message,
                });
            }
            if let Standing::Unconfirmed { .. } = owner.standing {
                all.extend(owner.held.iter().map(|held| Contradiction {
                    address: held.address,
                    key: key.clone(),
                    meta: owner.meta.clone(),
                    message: "the checkpoint names this pod but the kernel shows no link of it; given up after a grace"
                        .to_owned(),
                }));
            }
        }
        all
    }
}

fn state_of(address: &Address, now: Mono) -> AddressState {
    match address.state {
        State::Owned => AddressState::Assigned,
        State::Leaving { .. } => AddressState::Releasing,
        State::Cooling { until } if until > now => AddressState::Cooling {
            for_ms: ms(until, now),
        },
        State::Cooling { .. } | State::Free { .. } => AddressState::Free,
    }
}

fn intent_view(intent: &crate::intent::Intent, now: Mono) -> IntentView {
    IntentView {
        what: intent.title(),
        for_ms: ms(now, intent.since),
        brings: intent.brings(),
        paused_ms: match intent.phase {
            Phase::Running(_) => None,
            Phase::Paused(until) => Some(ms(until, now)),
        },
        trouble: intent
            .trouble
            .as_ref()
            .map(|b| block_view(intent.title(), b, now)),
    }
}

fn block_view(what: String, b: &crate::backoff::Block, now: Mono) -> BackoffView {
    BackoffView {
        what,
        class: b.class,
        message: b.message.clone(),
        failures: b.failures,
        retry_in_ms: ms(b.until, now),
    }
}

/// From `from` to `to`, in milliseconds.
fn ms(to: Mono, from: Mono) -> u64 {
    to.0.saturating_sub(from.0)
}
