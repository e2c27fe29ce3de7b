//! Looking for leaked interfaces and freeing them. When to look, and what is leaked, `vpcnet_ipam::leaked` decides.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vpcnet_cloud::{Filter, NetworkInterface, Tag, parse_rfc3339};
use vpcnet_ipam::leaked::{Cause, Looker, Looks, Loose, MIN_AGE, Verdict, judge};
use vpcnet_ipam::{EniId, FailureClass, Outcome};

use super::create::CREATED_TAG;
use super::delete::again;
use super::{Cloud, Failure, INSTANCE_TAG};
use crate::clock;
use crate::logging::lock;

/// Tag with the cluster's name.
pub(crate) const CLUSTER_TAG: &str = "cluster.k8s.amazonaws.com/name";

/// What is remembered of looks.
#[derive(Default)]
pub struct Leaks(Mutex<Looks>);

/// An action ended: is that a cause to look? If so it is done now, while the node is busy, or not at all.
pub(super) fn notice(cloud: &Arc<Cloud>, result: &Result<Outcome, Failure>) {
    let cause = match result {
        Err(failure) if is_scarcity(failure) => Cause::NothingLeft,
        Ok(Outcome::InterfaceReady(facts)) => Cause::Made(&facts.id),
        Ok(_) => Cause::Called,
        // What EC2 did not do, for whatever reason, it is not asked more for.
        Err(_) => return,
    };
    if !cloud.around.config.pool.leaked_cleanup || cloud.machine.vpc_id.is_empty() {
        return;
    }
    if lock(&cloud.leaks.0).is_due(cause, clock::mono()) {
        let cloud = Arc::clone(cloud);
        tokio::spawn(async move { look_and_note(&cloud).await });
    }
}

/// No address, or no interface, is left in the subnet or the account. An instance that is full says nothing of leaks.
fn is_scarcity(failure: &Failure) -> bool {
    match failure.class {
        FailureClass::SubnetExhausted => true,
        FailureClass::LimitReached => failure.message.contains("NetworkInterfaceLimitExceeded"),
        _ => false,
    }
}

async fn look_and_note(cloud: &Cloud) {
    match look(cloud).await {
        Ok((freed, young)) => lock(&cloud.leaks.0).looked(freed, young, clock::mono()),
        Err(failure) => {
            tracing::warn!(message = %failure.message, "leaked interfaces could not be looked for");
            cloud.around.metrics.error("leakedInterfaces");
        }
    }
}

/// One look. Returns how many were freed, and in how long those that were too young will not be.
async fn look(cloud: &Cloud) -> Result<(usize, Option<Duration>), Failure> {
    let looker = Looker {
        instance: &cloud.machine.instance_id,
        cluster: cloud.around.config.cloud.cluster.as_deref(),
    };
    let mut filters = vec![
        Filter::new("tag-key", INSTANCE_TAG),
        Filter::new("status", "available"),
        Filter::new("vpc-id", &cloud.machine.vpc_id),
    ];
    filters.extend(
        looker
            .cluster
            .map(|name| Filter::new(format!("tag:{CLUSTER_TAG}"), name)),
    );
    let found = cloud.ec2.find_network_interfaces(&filters).await?;
    let (mut freed, mut soon) = (0, None);
    for eni in &found {
        match judge(&loose(eni), looker, clock::now().wall_ns) {
            Verdict::Leave => {}
            Verdict::Young(left) => soon = Some(soon.map_or(left, |s: Duration| s.max(left))),
            Verdict::Stamp => match stamp(cloud, eni).await {
                Ok(()) => soon = Some(MIN_AGE),
                Err(failure) => tracing::warn!(eni = %eni.id, message = %failure.message, "not stamped"),
            },
            Verdict::Free => match free(cloud, eni).await {
                Ok(()) => {
                    freed += 1;
                    cloud.around.metrics.leaked_freed.inc();
                    tracing::info!(
                        eni = %eni.id,
                        subnet = %eni.subnet_id,
                        of = %eni.description,
                        "a leaked interface was deleted"
                    );
                }
                Err(failure) => {
                    tracing::warn!(eni = %eni.id, message = %failure.message, "a leaked interface stays");
                    cloud.around.metrics.error("leakedInterfaces");
                }
            },
        }
    }
    Ok((freed, soon))
}

/// EC2's word in the terms of the judgement.
fn loose(eni: &NetworkInterface) -> Loose {
    let created = eni.tag(CREATED_TAG).and_then(parse_rfc3339);
    let since_epoch = created.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    Loose {
        status: eni.status.clone(),
        attached: eni.attachment.is_some(),
        description: eni.description.clone(),
        instance: eni.tag(INSTANCE_TAG).map(str::to_owned),
        cluster: eni.tag(CLUSTER_TAG).map(str::to_owned),
        created_ns: since_epoch.and_then(|d| i64::try_from(d.as_nanos()).ok()),
    }
}

async fn stamp(cloud: &Cloud, eni: &NetworkInterface) -> Result<(), Failure> {
    let tag = Tag::new(CREATED_TAG, clock::rfc3339(clock::now().wall_ns));
    let mut tries = 0;
    loop {
        let resources = std::slice::from_ref(&eni.id);
        match cloud.ec2.create_tags(resources, std::slice::from_ref(&tag)).await {
            Ok(()) => return Ok(()),
            Err(error) => again(error, &mut tries).await?,
        }
    }
}

/// Deletes it. If somebody attaches it meanwhile, EC2 refuses, and it stays.
async fn free(cloud: &Cloud, eni: &NetworkInterface) -> Result<(), Failure> {
    super::delete::delete_free(cloud, &EniId(eni.id.clone())).await
}
