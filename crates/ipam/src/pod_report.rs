//! One pod, for people: what it has and why, what it waits for and until when, what it had a moment ago. For
//! `vpcnet explain pod`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::{CardIndex, DeviceIndex, EniId, PodKey, PodMeta, SubnetId};
use crate::interface::Interface;
use crate::owner::{Held, Owner, Standing};
use crate::pool::Pool;
use crate::time::Now;
use crate::view::{AddressState, OwnerView, WaitingView};

/// All that the pool knows of one pod.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PodReport {
    /// The addresses it has; several for a pod on several network cards, or with an old sandbox that is not gone yet.
    pub holds: Vec<HeldAddress>,
    /// Its sandboxes that wait for one.
    pub waits: Vec<WaitingView>,
    /// Addresses it had, as far as they cool down or nobody else had them since.
    pub had: Vec<LeftAddress>,
}

impl PodReport {
    /// Does the pool know nothing of this pod?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty() && self.waits.is_empty() && self.had.is_empty()
    }
}

/// An address that a pod has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldAddress {
    /// The sandbox.
    pub key: PodKey,
    /// The pod.
    pub meta: PodMeta,
    /// Which of the pod's addresses, counted from 0: host veths are named by it.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Its interface; empty: not known.
    pub eni: EniId,
    /// The interface's MAC address; empty while the interface is not known.
    pub mac: String,
    /// The interface's subnet; empty while the interface is not known.
    pub subnet: SubnetId,
    /// The interface's card.
    pub card: CardIndex,
    /// Its position there.
    pub device: DeviceIndex,
    /// The prefix that the address is of.
    pub prefix: Option<IpNet>,
    /// The routing table of the pod's packets.
    pub route_table: u32,
    /// When it was given, nanoseconds since the Unix epoch; 0: not known.
    pub assigned_ns: i64,
    /// Why this address; `None`: it was given before the agent's last start, which is not remembered.
    pub why: Option<String>,
    /// How sure it is that the pod lives.
    pub standing: String,
    /// Where evidence and the pool disagree about it.
    pub contradictions: Vec<String>,
}

/// An address that a pod had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeftAddress {
    /// The address.
    pub address: IpAddr,
    /// Its interface.
    pub eni: EniId,
    /// What may be done with it now.
    pub state: AddressState,
    /// The sandbox, and from when until when.
    pub owner: OwnerView,
}

impl Pool {
    /// What is known of a pod, by its namespace and name. Owners that were rebuilt from the kernel have no name: they are
    /// found by `host_veths`, the names that the pod's host ends may have.
    #[must_use]
    pub fn explain_pod(&self, now: Now, namespace: &str, name: &str, host_veths: &[String]) -> PodReport {
        let is_it = |meta: &PodMeta| meta.namespace == namespace && meta.name == name;
        let rebuilt =
            |key: &PodKey, owner: &Owner| owner.is_rebuilt() && host_veths.contains(&key.container_id);
        let owners = self
            .owners
            .iter()
            .filter(|(key, owner)| is_it(&owner.meta) || rebuilt(key, owner));
        let view = self.view(now);
        let holds = owners.flat_map(|(key, owner)| {
            let of_it = view.contradictions.iter().filter(|c| c.key == *key);
            let contradictions: Vec<_> = of_it.collect();
            owner.held.iter().zip(0..).map(move |(held, index)| {
                let about = contradictions.iter().filter(|c| c.address == held.address);
                let about = about.map(|c| c.message.clone()).collect();
                self.held_address(key, owner, held, index, about)
            })
        });
        PodReport {
            holds: holds.collect(),
            waits: view.waiting.into_iter().filter(|w| is_it(&w.meta)).collect(),
            had: view
                .interfaces
                .iter()
                .flat_map(|i| {
                    let v4 = i.addresses.iter();
                    let v4 = v4.map(|a| (IpAddr::V4(a.address), a.state, &a.owner));
                    let v6 = i.ipv6.iter();
                    let v6 = v6.map(|a| (IpAddr::V6(a.address), a.state, &a.owner));
                    v4.chain(v6)
                        .map(move |(address, state, owner)| (i, address, state, owner))
                })
                .filter(|(.., state, _)| *state != AddressState::Assigned)
                .filter_map(|(i, address, state, owner)| {
                    let owner = owner.clone().filter(|o| is_it(&o.meta))?;
                    Some(LeftAddress {
                        address,
                        eni: i.id.clone(),
                        state,
                        owner,
                    })
                })
                .collect(),
        }
    }

    fn held_address(
        &self,
        key: &PodKey,
        owner: &Owner,
        held: &Held,
        index: u32,
        contradictions: Vec<String>,
    ) -> HeldAddress {
        let place = self.interfaces.get(&held.eni);
        HeldAddress {
            key: key.clone(),
            meta: owner.meta.clone(),
            index,
            address: held.address,
            eni: held.eni.clone(),
            mac: place.map(|i| i.mac.clone()).unwrap_or_default(),
            subnet: place.map_or_else(|| SubnetId(String::new()), |i| i.subnet.clone()),
            card: held.card,
            device: held.device,
            prefix: place.and_then(|i| i.prefix_with(held.address)),
            route_table: held.table,
            assigned_ns: held.allocated_ns,
            why: held.why.as_ref().map(ToString::to_string),
            standing: sentence(&owner.standing),
            contradictions,
        }
    }
}

impl Interface {
    /// The prefix of either family that an address is of.
    fn prefix_with(&self, address: IpAddr) -> Option<IpNet> {
        match address {
            IpAddr::V4(at) => self.prefix_of(at).map(IpNet::V4),
            IpAddr::V6(at) => {
                let mut all = self.ipv6_prefixes.iter();
                all.find(|p| p.contains(&at)).copied().map(IpNet::V6)
            }
        }
    }
}

fn sentence(standing: &Standing) -> String {
    match standing {
        Standing::Confirmed => "it asked for the address in this life of the agent".to_owned(),
        Standing::Seen => "the checkpoint names it and the kernel shows its link".to_owned(),
        Standing::Unconfirmed { .. } => {
            "the checkpoint names it and the kernel does not show its link: it is given up unless the link comes".to_owned()
        }
        Standing::Rebuilt { superseded: None } => {
            "the kernel shows it and no record named it: known by its host veth only".to_owned()
        }
        Standing::Rebuilt { superseded: Some(s) } => {
            format!("known by its host veth only, and superseded by sandbox {}", s.by)
        }
    }
}
