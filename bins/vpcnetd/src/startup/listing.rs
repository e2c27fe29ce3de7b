//! The interfaces of the instance, from IMDS, with EC2's word on whose they are and what they are for.

use std::collections::BTreeMap;
use std::time::Duration;

use vpcnet_cloud::{Ec2, ImdsError, ImdsInterface, NetworkInterface};
use vpcnet_ipam::{
    CardIndex, Checkpoint, DeviceIndex, EniId, Event, Evidence, InterfaceFacts, InterfaceKind,
    KernelEvidence, SubnetId, route_table,
};

use super::Surroundings;
use crate::executor::{Cloud, kind_of, manages};
use crate::state::Machine;

/// First and longest pause between attempts to list.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// All interfaces with an IPv4 address. `checkpoint` and `kernel` tell ours where EC2 is silent.
pub(super) async fn list(
    around: &Surroundings,
    ec2: &Ec2,
    machine: &Machine,
    checkpoint: Option<&Checkpoint>,
    kernel: &KernelEvidence,
) -> Result<Vec<InterfaceFacts>, ImdsError> {
    let listing = around.imds.interfaces().await?;
    for skipped in &listing.skipped {
        tracing::warn!(mac = %skipped.mac, cause = %skipped.cause, "IMDS lists an interface and does not describe it");
    }
    let described = describe(ec2, &listing.interfaces).await;
    let facts = |i| facts_of(around, machine, i, described.as_ref(), checkpoint, kernel);
    Ok(listing.interfaces.iter().filter_map(facts).collect())
}

/// Tells the pool what is there, after EC2 or the kernel showed that the pool is wrong about it.
pub async fn relist(cloud: &Cloud) {
    let around = &cloud.around;
    let kernel = KernelEvidence::default();
    let mut pause = RETRY.0;
    let found = loop {
        match list(around, &cloud.ec2, &cloud.machine, None, &kernel).await {
            Ok(found) => break found,
            Err(error) => tracing::warn!(%error, "the interfaces could not be listed"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    };
    let known = around.core.look(|view| {
        view.pool
            .map(|p| p.interfaces().map(|i| i.id).collect::<Vec<_>>())
    });
    let known = known.await.ok().flatten().unwrap_or_default();
    let ids = found.iter().map(|i| i.id.clone()).collect();
    for facts in found.into_iter().filter(|i| !known.contains(&i.id)) {
        tracing::info!(eni = %facts.id, managed = facts.managed, "an interface that was not known");
        if let Err(error) = around.host.set_up(&facts).await {
            tracing::warn!(eni = %facts.id, %error, "not set up on the host, and not used");
            continue;
        }
        around.core.event(Event::InterfaceSeen {
            facts,
            evidence: Evidence::Imds,
        });
    }
    around.core.event(Event::InterfacesListed {
        ids,
        evidence: Evidence::Imds,
    });
}

/// EC2's word on all interfaces, for their tags and kinds. Not asked when there is only the primary one.
async fn describe(ec2: &Ec2, interfaces: &[ImdsInterface]) -> Option<BTreeMap<String, NetworkInterface>> {
    if interfaces.iter().all(|i| i.primary) {
        return Some(BTreeMap::new());
    }
    let ids: Vec<String> = interfaces.iter().map(|i| i.id.clone()).collect();
    match ec2.describe_present_network_interfaces(&ids).await {
        Ok(present) => Some(present.found.into_iter().map(|i| (i.id.clone(), i)).collect()),
        Err(error) => {
            tracing::warn!(%error, "tags of the interfaces not known: only those that pods already use are used");
            None
        }
    }
}

fn facts_of(
    around: &Surroundings,
    machine: &Machine,
    seen: &ImdsInterface,
    described: Option<&BTreeMap<String, NetworkInterface>>,
    checkpoint: Option<&Checkpoint>,
    kernel: &KernelEvidence,
) -> Option<InterfaceFacts> {
    let (card, device) = (CardIndex(seen.card), DeviceIndex(seen.device));
    let (primary_address, others) = seen.local_ipv4s.split_first()?;
    let described = described.map(|all| all.get(&seen.id));
    let (managed, kind) = match described {
        _ if seen.primary => (true, InterfaceKind::Interface),
        // EC2 does not know it: IMDS lists what is gone.
        Some(None) => return None,
        Some(Some(eni)) => (
            manages(&around.ownership(machine), eni, false),
            kind_of(&eni.interface_type),
        ),
        None => (is_used(seen, checkpoint, kernel), InterfaceKind::Interface),
    };
    Some(InterfaceFacts {
        id: EniId(seen.id.clone()),
        mac: seen.mac.clone(),
        device,
        card,
        subnet: SubnetId(seen.subnet_id.clone()),
        subnet_cidr: seen.subnet_ipv4_cidr?,
        primary_address: *primary_address,
        is_primary: seen.primary,
        kind,
        managed,
        addresses: others.to_vec(),
        prefixes: seen.ipv4_prefixes.clone(),
        ipv6_prefixes: seen.ipv6_prefixes.clone(),
    })
}

/// Without EC2's word an interface counts as ours if a pod already has one of its addresses: nobody else puts pods there.
fn is_used(seen: &ImdsInterface, checkpoint: Option<&Checkpoint>, kernel: &KernelEvidence) -> bool {
    let owned = |address: &std::net::Ipv4Addr| {
        let address = std::net::IpAddr::V4(*address);
        checkpoint.is_some_and(|c| c.allocations.iter().any(|a| a.address == address))
            || kernel.pods.iter().any(|p| p.address == address)
    };
    let table = route_table(CardIndex(seen.card), DeviceIndex(seen.device));
    seen.local_ipv4s.iter().any(owned) || kernel.from_rules.iter().any(|r| r.table == table)
}
