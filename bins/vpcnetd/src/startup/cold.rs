//! A start on a machine nothing is known of: IMDS says what it is, and is asked until it does.

use std::time::Duration;

use ipnet::Ipv6Net;
use vpcnet_cloud::{Ec2, InstanceFacts};
use vpcnet_ipam::{Event, Evidence, InterfaceFacts, KernelEvidence, Limits, Pool, Restored};

use super::listing::{InUse, Seen, list};
use super::{Surroundings, identity, tell};
use crate::aims::Zone;
use crate::clock;
use crate::config::Family;
use crate::core::Started;
use crate::files::Found;
use crate::limits;
use crate::state::{Facts, Machine};
use crate::zone;

/// First and longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Goes on until the pool is there.
pub async fn cold(
    around: &Surroundings,
    found: Found,
    kernel: KernelEvidence,
) -> (Started, Vec<InterfaceFacts>, Ec2) {
    let mut pause = PAUSE.0;
    loop {
        match attempt(around, &found, &kernel).await {
            Ok(done) => return done,
            Err(why) => {
                tracing::warn!(%why, retry_in_ms = pause.as_millis(), "not started yet");
                around.core.starting(why);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(
    around: &Surroundings,
    found: &Found,
    kernel: &KernelEvidence,
) -> Result<(Started, Vec<InterfaceFacts>, Ec2), String> {
    let instance = around.imds.instance_facts().await.map_err(|e| e.to_string())?;
    let mut machine = machine(&instance);
    let vpc_ipv6_cidrs = ipv6_facts(around, &mut machine).await?;
    let ec2 = around.ec2(&machine.region).map_err(|e| e.to_string())?;
    let limits = limits_of(around, &ec2, &machine, found).await?;
    let in_use = InUse {
        checkpoint: found.checkpoint.as_ref(),
        kernel,
    };
    let seen = list(around, &ec2, &machine, &in_use)
        .await
        .map_err(|e| e.to_string())?;
    let zone = zone_of(around, &ec2, &machine, found).await;
    let interfaces: Vec<InterfaceFacts> = seen.iter().map(|i| i.facts.clone()).collect();
    if !interfaces.iter().any(|i| i.is_primary) {
        return Err("IMDS does not show the primary interface with its address yet".into());
    }
    around.host.set_up_now(&interfaces).map_err(|e| e.to_string())?;
    around.snat.set_source(machine.local_ipv4, &machine.mac);
    around.snat.ensure(&instance.vpc_ipv4_cidrs).await;

    let salt = found
        .state
        .as_ref()
        .map_or_else(salt, |s| s.facts.token_salt.clone());
    let facts = Facts {
        token_salt: salt,
        vpc_cidrs: instance.vpc_ipv4_cidrs,
        vpc_ipv6_cidrs,
        applied_groups: applied(found, &instance.security_groups, interfaces.len()),
        groups: instance.security_groups,
        limits: limits.clone(),
        zone,
        tags: around.tags(&machine),
        intents: found
            .state
            .as_ref()
            .map(|s| s.facts.intents.clone())
            .unwrap_or_default(),
        machine,
    };
    let started = restore(around, found, kernel, facts, limits, seen)?;
    Ok((started, interfaces, ec2))
}

/// A pool that knows the owners and the interfaces.
fn restore(
    around: &Surroundings,
    found: &Found,
    kernel: &KernelEvidence,
    facts: Facts,
    limits: Limits,
    seen: Vec<Seen>,
) -> Result<Started, String> {
    let primary = seen.iter().find(|i| i.facts.is_primary);
    let primary = primary.map(|i| i.facts.subnet.clone());
    let machine = &facts.machine;
    around
        .aims
        .set_machine(&machine.instance_type, &limits, primary, facts.zone.clone());
    let targets = around.aims.targets();
    let restored = Restored {
        checkpoint: found.checkpoint.clone(),
        journal: found.state.as_ref().map(|s| s.pool.clone()),
        kernel: kernel.clone(),
    };
    let identity = identity(&facts.machine, &facts.token_salt);
    let now = clock::now();
    let (mut pool, notes, mut actions) =
        Pool::restore(identity, limits, targets, restored, now).map_err(|e| e.to_string())?;
    for fact in around.aims.facts() {
        actions.extend(pool.handle(now, fact));
    }
    let ids = seen.iter().map(|i| i.facts.id.clone()).collect();
    for one in seen {
        actions.extend(pool.handle(now, one.event()));
    }
    actions.extend(pool.handle(
        now,
        Event::InterfacesListed {
            ids,
            evidence: Evidence::Imds,
        },
    ));
    let notes = tell(&notes, &around.metrics);
    Ok(Started {
        pool,
        actions,
        facts,
        rewrite: true,
        notes,
    })
}

/// Where pods have IPv6 addresses: the node's own goes into the machine, the VPC's CIDRs are returned.
async fn ipv6_facts(around: &Surroundings, machine: &mut Machine) -> Result<Vec<Ipv6Net>, String> {
    if around.config.family != Family::V6 {
        return Ok(Vec::new());
    }
    let kind = &machine.instance_type;
    if !limits::takes_prefixes(kind) {
        return Err(format!(
            "ENABLE_IPv6 is set, but interfaces of instance type {kind} take no prefixes: use one on the Nitro hypervisor"
        ));
    }
    let own = around.imds.primary_ipv6().await.map_err(|e| e.to_string())?;
    machine.local_ipv6 = Some(own.ok_or_else(|| {
        "ENABLE_IPv6 is set, but the instance has no IPv6 address: give its primary interface one, and its subnet an IPv6 CIDR"
            .to_owned()
    })?);
    let cidrs = around.imds.vpc_ipv6_cidrs(&machine.mac).await;
    cidrs.map_err(|e| e.to_string())
}

fn machine(instance: &InstanceFacts) -> Machine {
    let id = &instance.identity;
    Machine {
        instance_id: id.instance_id.clone(),
        instance_type: id.instance_type.clone(),
        region: id.region.clone(),
        availability_zone: id.availability_zone.clone(),
        vpc_id: instance.vpc_id.clone(),
        mac: id.mac.clone(),
        local_ipv4: Some(id.local_ipv4),
        local_ipv6: None,
    }
}

/// What an earlier life on this instance knew is good enough to begin with: it is asked for again when it matters.
async fn zone_of(around: &Surroundings, ec2: &Ec2, machine: &Machine, found: &Found) -> Option<Zone> {
    if !around.aims.needs_zone() {
        return None;
    }
    let earlier = found.state.as_ref().map(|s| &s.facts);
    let earlier = earlier.filter(|f| f.machine.instance_id == machine.instance_id);
    match earlier.and_then(|f| f.zone.clone()) {
        Some(zone) => Some(zone),
        None => zone::describe_at_start(ec2, machine).await,
    }
}

/// From the table, else from an earlier life, else from EC2.
async fn limits_of(
    around: &Surroundings,
    ec2: &Ec2,
    machine: &Machine,
    found: &Found,
) -> Result<Limits, String> {
    if let Some(known) = vpcnet_limits::lookup(&machine.instance_type) {
        return Ok(limits::of_type(known));
    }
    if let Some(state) = found
        .state
        .as_ref()
        .filter(|s| s.facts.machine.instance_type == machine.instance_type)
    {
        return Ok(state.facts.limits.clone());
    }
    if around.config.pool.imds_only {
        return Err(format!(
            "the limits of instance type {} are not in the built-in table, and ENABLE_IMDS_ONLY_MODE forbids to ask EC2 for them",
            machine.instance_type
        ));
    }
    match ec2.instance_limits(&machine.instance_type).await {
        Ok(limits) => Ok(limits::of_type(&limits)),
        Err(error) => Err(format!(
            "the limits of instance type {} are not in the built-in table and EC2 does not tell them: {error}",
            machine.instance_type
        )),
    }
}

/// With only the primary interface there is nothing to apply groups to. Otherwise, unless we remember, the first look at
/// them applies them, as the original does.
fn applied(found: &Found, groups: &[String], interfaces: usize) -> Vec<String> {
    match &found.state {
        _ if interfaces <= 1 => groups.to_vec(),
        Some(state) => state.facts.applied_groups.clone(),
        None => Vec::new(),
    }
}

/// Random, so that a life without memory of an earlier one asks EC2 for new things and not for the old ones.
fn salt() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness the boot's id and the clock must do.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        return format!("{}-{}", super::boot_id(), clock::now().wall_ns);
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
