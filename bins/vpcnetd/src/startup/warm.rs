//! A start on a machine that our own files know: no call to anybody before pods are served.

use std::os::unix::process::CommandExt;
use std::time::Duration;

use vpcnet_ipam::{InterfaceFacts, KernelEvidence, Pool, Restored};

use super::{Surroundings, identity, tell};
use crate::config::Family;
use crate::core::Started;
use crate::files::Found;
use crate::limits;
use crate::state::Facts;
use crate::store::FileStore;
use crate::{cards, clock};

/// Tries. `Err` gives back what was found, for the other way.
///
/// # Errors
/// The reason, when our files do not know this machine or the kernel contradicts them.
pub fn warm(
    around: &Surroundings,
    found: &Found,
    kernel: &KernelEvidence,
) -> Result<(Started, Vec<InterfaceFacts>, bool), String> {
    let state = found
        .state
        .as_ref()
        .ok_or("there is no state of an earlier life")?;
    let mut facts: Facts = state.facts.clone();
    facts.tags = around.tags(&facts.machine);
    if around.config.family == Family::V6 && facts.machine.local_ipv6.is_none() {
        return Err("pods had IPv4 addresses in an earlier life, and are to have IPv6 ones".into());
    }
    // The table may know more by now than the agent that wrote the state.
    if let Some(known) = vpcnet_limits::lookup(&facts.machine.instance_type) {
        facts.limits = limits::of_type(known);
    }
    let limits = cards::managed(&facts.limits, around.config.uses_all_cards());
    let mut known = state.pool.interfaces();
    let primary = known.find(|i| i.is_primary).map(|i| i.subnet);
    let kind = &facts.machine.instance_type;
    around
        .aims
        .set_machine(kind, &limits, primary, facts.zone.clone());
    let targets = around.aims.targets();
    let restored = Restored {
        checkpoint: found.checkpoint.clone(),
        journal: Some(state.pool.clone()),
        kernel: kernel.clone(),
    };
    let identity = identity(&facts.machine, &facts.token_salt);
    let now = clock::now();
    let (mut pool, notes, mut actions) =
        Pool::restore(identity, limits, targets, restored, now).map_err(|error| error.to_string())?;
    for fact in around.aims.facts() {
        actions.extend(pool.handle(now, fact));
    }
    let interfaces: Vec<InterfaceFacts> = pool.interfaces().collect();
    if !interfaces.iter().any(|i| i.is_primary) {
        return Err("the state of an earlier life is of no use now: another agent wrote the checkpoint since, or the machine was started anew".into());
    }
    let (changes, missing) = around
        .host
        .set_up_now(&interfaces)
        .map_err(|error| error.to_string())?;
    for mac in &missing {
        tracing::warn!(%mac, "an interface of the pool has no link");
    }
    let knows_all = pool.knows_interfaces();
    if !knows_all {
        tracing::info!(
            "more network cards are to be used than in the earlier life: asking EC2 what is on them"
        );
    }
    let notes = tell(&notes, &around.metrics);
    tracing::info!(
        changes,
        interfaces = interfaces.len(),
        "started from the state of an earlier life"
    );
    Ok((
        Started {
            pool,
            actions,
            facts,
            rewrite: true,
            notes,
        },
        interfaces,
        !missing.is_empty() || !knows_all,
    ))
}

/// Asks IMDS, when it is there to be asked, whether this still is the instance the state was written on. If it is not (the
/// disk was copied), the state is thrown away and the agent starts over.
pub async fn verify(around: Surroundings, known: String, state: FileStore) {
    let mut pause = Duration::from_secs(1);
    let told = loop {
        match around.imds.require("instance-id").await {
            Ok(told) => break told,
            Err(error) => tracing::debug!(%error, "instance not verified yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    };
    if told == known {
        return;
    }
    tracing::error!(%known, %told, "this is another instance than the one the state was written on: starting over without it");
    if let Err(error) = std::fs::remove_file(state.path()) {
        tracing::error!(%error, path = %state.path().display(), "the state of the other instance cannot be removed: it is used until it can");
        return;
    }
    // The same process number and environment: whoever watches us sees no exit.
    let error = std::process::Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .exec();
    tracing::error!(%error, "cannot start over");
}
