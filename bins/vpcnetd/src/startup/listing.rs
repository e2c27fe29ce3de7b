//! The interfaces of the instance. IMDS tells them, and lags: where it leaves out what pods already use, or where there is
//! more than the primary interface, EC2 is asked, in one call, what is attached, whose it is and what it has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use vpcnet_cloud::{Attachment, Ec2, Ec2Error, Filter, ImdsError, ImdsInterface, NetworkInterface, Tag};
use vpcnet_ipam::{
    CardIndex, Checkpoint, DeviceIndex, EniId, Event, Evidence, InterfaceFacts, InterfaceKind,
    KernelEvidence, SubnetId, route_table,
};

use super::Surroundings;
use crate::cards;
use crate::executor::{self, Cloud, Ownership, kind_of, manages};
use crate::state::Machine;

/// First and longest pause between attempts to list.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// An interface, and who says what it is and has.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) facts: InterfaceFacts,
    pub(super) evidence: Evidence,
}

impl Seen {
    pub(super) fn event(self) -> Event {
        Event::InterfaceSeen {
            facts: self.facts,
            evidence: self.evidence,
        }
    }
}

/// What pods use already, as far as files and kernel tell.
pub(super) struct InUse<'a> {
    pub(super) checkpoint: Option<&'a Checkpoint>,
    pub(super) kernel: &'a KernelEvidence,
}

/// All interfaces with an IPv4 address. What is in use tells ours where EC2 is silent.
pub(super) async fn list(
    around: &Surroundings,
    ec2: &Ec2,
    machine: &Machine,
    in_use: &InUse<'_>,
) -> Result<Vec<Seen>, ImdsError> {
    let mut seen = look(around, ec2, machine, in_use).await?;
    cards::adopt_tables(seen.iter_mut().map(|s| &mut s.facts), machine);
    Ok(seen)
}

async fn look(
    around: &Surroundings,
    ec2: &Ec2,
    machine: &Machine,
    in_use: &InUse<'_>,
) -> Result<Vec<Seen>, ImdsError> {
    let listed = by_imds(around).await?;
    if around.config.pool.imds_only {
        return Ok(of_imds_alone(around, &listed, in_use));
    }
    let alone = listed.iter().all(|i| i.primary);
    if alone && in_use.is_within(&listed) {
        return Ok(listed
            .iter()
            .filter_map(|i| of_imds(i, i.primary, InterfaceKind::Interface))
            .collect());
    }
    if alone {
        tracing::info!("pods use addresses that IMDS does not list: asking EC2 what is attached");
    }
    match by_ec2(around, ec2, machine, &listed).await {
        Ok(seen) => Ok(seen),
        Err(error) => {
            tracing::warn!(%error, "tags of the interfaces not known: only those that pods already use are used");
            let ownership = around.ownership(machine);
            let ours = |i: &ImdsInterface| ownership.covers(CardIndex(i.card)) && in_use.of(i);
            Ok(listed
                .iter()
                .filter_map(|i| of_imds(i, ours(i), InterfaceKind::Interface))
                .collect())
        }
    }
}

/// Where EC2 must not be asked nobody knows tags: what is there is used, unless what has no tags is not to be.
fn of_imds_alone(around: &Surroundings, listed: &[ImdsInterface], in_use: &InUse<'_>) -> Vec<Seen> {
    let on_used_card = |i: &ImdsInterface| around.config.uses_all_cards() || i.card == 0;
    let managed =
        |i: &ImdsInterface| on_used_card(i) && (around.config.cloud.manage_untagged || in_use.of(i));
    listed
        .iter()
        .filter_map(|i| of_imds(i, managed(i), InterfaceKind::Interface))
        .collect()
}

/// Tells the pool what is there, after EC2 or the kernel showed that the pool is wrong about it.
pub async fn relist(cloud: &Cloud) {
    let around = &cloud.around;
    let mut pause = RETRY.0;
    let mut found = loop {
        let seen = match by_imds(around).await {
            Ok(listed) if around.config.pool.imds_only => {
                Ok(of_imds_alone(around, &listed, &InUse::nothing()))
            }
            Ok(listed) => by_ec2(around, &cloud.ec2, &cloud.machine, &listed)
                .await
                .map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match seen {
            Ok(seen) => break seen,
            Err(why) => tracing::warn!(%why, "the interfaces could not be listed"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    };
    cards::adopt_tables(found.iter_mut().map(|s| &mut s.facts), &cloud.machine);
    let known = around.core.look(|view| {
        // One on a card that was not used before is known, and not as what it is now.
        view.pool
            .map(|p| p.interfaces().map(|i| (i.id, i.managed)).collect::<Vec<_>>())
    });
    let known = known.await.ok().flatten().unwrap_or_default();
    let ids = found.iter().map(|i| i.facts.id.clone()).collect();
    // Where the agent itself changes nothing, what is known may have been changed by others.
    let others_assign = !around.config.pool.provisioning;
    for seen in found {
        let facts = &seen.facts;
        let before = known.iter().find(|(id, _)| *id == facts.id);
        if before.is_some_and(|(_, managed)| *managed == facts.managed) {
            if others_assign {
                around.core.event(seen.event());
            }
            continue;
        }
        tracing::info!(eni = %facts.id, managed = facts.managed, "an interface that was not known");
        if let Err(error) = around.host.set_up(facts).await {
            tracing::warn!(eni = %facts.id, %error, "not set up on the host, and not used");
            continue;
        }
        around.core.event(seen.event());
    }
    let evidence = if around.config.pool.imds_only {
        Evidence::Imds
    } else {
        Evidence::Ec2
    };
    around.core.event(Event::InterfacesListed { ids, evidence });
}

async fn by_imds(around: &Surroundings) -> Result<Vec<ImdsInterface>, ImdsError> {
    let listing = around.imds.interfaces().await?;
    for skipped in &listing.skipped {
        tracing::warn!(mac = %skipped.mac, cause = %skipped.cause, "IMDS lists an interface and does not describe it");
    }
    Ok(listing.interfaces)
}

/// What EC2 says is attached; and of what only IMDS lists, what EC2 at least knows.
async fn by_ec2(
    around: &Surroundings,
    ec2: &Ec2,
    machine: &Machine,
    listed: &[ImdsInterface],
) -> Result<Vec<Seen>, Ec2Error> {
    let filter = Filter::new("attachment.instance-id", &machine.instance_id);
    let mut attached = ec2.find_network_interfaces(&[filter]).await?;
    attached.retain(|i| {
        i.attachment
            .as_ref()
            .is_some_and(|a| !a.status.starts_with("detach"))
    });
    let cidrs = cidrs(ec2, listed, &attached).await?;
    let ownership = around.ownership(machine);
    if around.config.pool.provisioning {
        tag(around, ec2, machine, &ownership, &attached);
    }
    let mut all: Vec<Seen> = attached
        .iter()
        .filter_map(|eni| {
            let place = eni.attachment.as_ref()?;
            let (card, device) = (place.network_card_index.unwrap_or_default(), place.device_index?);
            let cidr = *cidrs.get(&eni.subnet_id)?;
            let facts = executor::facts_of(eni, CardIndex(card), DeviceIndex(device), cidr, &ownership)?;
            let evidence = Evidence::Ec2;
            Some(Seen { facts, evidence })
        })
        .collect();
    let unread: Vec<&ImdsInterface> = listed
        .iter()
        .filter(|i| !attached.iter().any(|eni| eni.id == i.id))
        .collect();
    if unread.is_empty() {
        return Ok(all);
    }
    // EC2's reads may lag too. What it does not know at all is gone, and IMDS the one behind.
    let ids: Vec<String> = unread.iter().map(|i| i.id.clone()).collect();
    let present = ec2.describe_present_network_interfaces(&ids).await?.found;
    let known: BTreeMap<&str, &NetworkInterface> = present.iter().map(|i| (i.id.as_str(), i)).collect();
    all.extend(unread.into_iter().filter_map(|seen| {
        let eni = known.get(seen.id.as_str())?;
        let managed = ownership.covers(CardIndex(seen.card)) && manages(&ownership, eni, seen.primary);
        of_imds(seen, managed, kind_of(&eni.interface_type))
    }));
    Ok(all)
}

/// Gives what is managed the tags it lacks, while the start goes on.
fn tag(
    around: &Surroundings,
    ec2: &Ec2,
    machine: &Machine,
    ownership: &Ownership,
    attached: &[NetworkInterface],
) {
    let wanted = around.tags(machine);
    let not_ours = [InterfaceKind::Trunk, InterfaceKind::EfaOnly];
    let card = |eni: &NetworkInterface| CardIndex(eni.attachment.as_ref().map_or(0, card_of));
    let ours = attached
        .iter()
        .filter(|eni| !not_ours.contains(&kind_of(&eni.interface_type)))
        .filter(|eni| ownership.covers(card(eni)))
        .filter(|eni| manages(ownership, eni, is_primary(eni)));
    let lacking: Vec<(String, Vec<Tag>)> = ours
        .map(|eni| (eni.id.clone(), executor::tags::missing(&wanted, eni)))
        .filter(|(_, missing)| !missing.is_empty())
        .collect();
    let ec2 = ec2.clone();
    tokio::spawn(async move {
        for (eni, tags) in lacking {
            executor::tags::add(&ec2, &eni, &tags).await;
        }
    });
}

fn is_primary(eni: &NetworkInterface) -> bool {
    let at_first = |place: &Attachment| card_of(place) == 0 && place.device_index == Some(0);
    eni.attachment.as_ref().is_some_and(at_first)
}

fn card_of(place: &Attachment) -> u32 {
    place.network_card_index.unwrap_or_default()
}

/// The CIDRs of the interfaces' subnets: IMDS tells those of the interfaces it lists.
async fn cidrs(
    ec2: &Ec2,
    listed: &[ImdsInterface],
    attached: &[NetworkInterface],
) -> Result<BTreeMap<String, Ipv4Net>, Ec2Error> {
    let mut cidrs: BTreeMap<String, Ipv4Net> = listed
        .iter()
        .filter_map(|i| Some((i.subnet_id.clone(), i.subnet_ipv4_cidr?)))
        .collect();
    let mut unknown: Vec<String> = attached.iter().map(|i| i.subnet_id.clone()).collect();
    unknown.retain(|id| !cidrs.contains_key(id));
    unknown.sort();
    unknown.dedup();
    if !unknown.is_empty() {
        let subnets = ec2.describe_subnets(&unknown, &[]).await?;
        cidrs.extend(subnets.into_iter().filter_map(|s| Some((s.id, s.ipv4_cidr?))));
    }
    Ok(cidrs)
}

fn of_imds(seen: &ImdsInterface, managed: bool, kind: InterfaceKind) -> Option<Seen> {
    let (primary_address, others) = seen.local_ipv4s.split_first()?;
    let facts = InterfaceFacts {
        id: EniId(seen.id.clone()),
        mac: seen.mac.clone(),
        device: DeviceIndex(seen.device),
        card: CardIndex(seen.card),
        subnet: SubnetId(seen.subnet_id.clone()),
        subnet_cidr: seen.subnet_ipv4_cidr?,
        primary_address: *primary_address,
        is_primary: seen.primary,
        kind,
        managed,
        addresses: others.to_vec(),
        prefixes: seen.ipv4_prefixes.clone(),
        ipv6_prefixes: seen.ipv6_prefixes.clone(),
        table: None,
    };
    let evidence = Evidence::Imds;
    Some(Seen { facts, evidence })
}

/// Whether pods' addresses of the interface hold this one.
fn has_ipv6(seen: &ImdsInterface, at: Ipv6Addr) -> bool {
    seen.ipv6_prefixes.iter().any(|prefix| prefix.contains(&at))
}

impl InUse<'static> {
    /// Where it is not asked for.
    fn nothing() -> Self {
        static NO_KERNEL: KernelEvidence = KernelEvidence {
            pods: Vec::new(),
            from_rules: Vec::new(),
            veths: Vec::new(),
        };
        Self {
            checkpoint: None,
            kernel: &NO_KERNEL,
        }
    }
}

impl InUse<'_> {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let owned = self.checkpoint.into_iter().flat_map(|c| c.allocations.iter());
        owned
            .map(|a| a.address)
            .chain(self.kernel.pods.iter().map(|p| p.address))
    }

    /// Whether these interfaces have all of it.
    fn is_within(&self, listed: &[ImdsInterface]) -> bool {
        let has = |at: Ipv4Addr| {
            listed.iter().any(|i| {
                i.local_ipv4s.contains(&at) || i.ipv4_prefixes.iter().any(|prefix| prefix.contains(&at))
            })
        };
        let has_ipv6 = |at: Ipv6Addr| listed.iter().any(|i| has_ipv6(i, at));
        self.addresses().all(|at| match at {
            IpAddr::V4(at) => has(at),
            IpAddr::V6(at) => has_ipv6(at),
        })
    }

    /// Without EC2's word an interface counts as ours if a pod already has one of its addresses: nobody else puts pods there.
    fn of(&self, seen: &ImdsInterface) -> bool {
        let table = route_table(CardIndex(seen.card), DeviceIndex(seen.device));
        seen.primary
            || self.addresses().any(|at| match at {
                IpAddr::V4(at) => seen.local_ipv4s.contains(&at),
                IpAddr::V6(at) => has_ipv6(seen, at),
            })
            || self.kernel.from_rules.iter().any(|r| r.table == table)
    }
}
