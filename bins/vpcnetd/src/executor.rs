//! Carries the pool's EC2 actions out and reports how they ended. It decides nothing: when to try again is the pool's business.

mod addresses;
mod create;
mod delete;
mod facts;
mod failure;
mod leaked;
mod stall;
pub mod tags;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use tokio::sync::mpsc;
use vpcnet_cloud::Ec2;
use vpcnet_ipam::{Action, ActionId, EniId, Event, FailureClass, Outcome, SubnetId};

use crate::core::Order;
use crate::logging::lock;
use crate::news::News;
use crate::refresh;
use crate::startup::{Surroundings, relist};
use crate::state::Machine;
use crate::zone::ZoneWatch;

pub(crate) use create::go_with_instance;
pub use facts::{INSTANCE_TAG, Ownership, facts_of, kind_of, manages};
pub use failure::Failure;
pub(crate) use leaked::CLUSTER_TAG;
pub use leaked::Leaks;

/// What every action needs.
pub struct Cloud {
    /// EC2.
    pub ec2: Ec2,
    /// The pool's loop, the host, IMDS, counters.
    pub around: Surroundings,
    /// Our instance.
    pub machine: Machine,
    /// Subnet of the primary interface.
    pub primary_subnet: SubnetId,
    /// How interfaces of others are told from ours.
    pub ownership: Ownership,
    /// The zone's subnets.
    pub zone: Arc<ZoneWatch>,
    /// What is remembered of looks for leaked interfaces.
    pub leaks: Leaks,
    /// CIDRs of subnets seen so far.
    pub subnets: Mutex<BTreeMap<SubnetId, Ipv4Net>>,
}

/// Carries orders out side by side until the core ends.
pub async fn run(cloud: Arc<Cloud>, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        // What EC2 is asked for now should not rest on values half a minute old.
        cloud.around.causes.ask();
        tokio::spawn(carry_out(Arc::clone(&cloud), order));
    }
}

/// Under which name the original counts a failure of such an action.
fn error_place(action: &Action) -> &'static str {
    match action {
        Action::CreateInterface { .. } => "increaseIPPoolAllocENI",
        Action::AssignAddresses { .. } | Action::AssignPrefixes { .. } | Action::AssignIpv6Prefix { .. } => {
            "increaseIPPoolAllocIPAddressesFailed"
        }
        Action::DeleteInterface { .. } => "decreaseIPPoolFreeENIFailed",
        Action::ReleaseAddresses { .. } | Action::ReleasePrefixes { .. } => "decreaseIPPool",
        Action::Describe { .. } | Action::Reply { .. } => "increaseIPPoolGetENIaddressesFailed",
    }
}

async fn carry_out(cloud: Arc<Cloud>, order: Order) {
    let place = error_place(&order.action);
    // The core answers callers itself.
    let Some(id) = order.action.id() else {
        return;
    };
    let core = cloud.around.core.clone();
    let result = stall::telling(core, id, perform(&cloud, order)).await;
    if result.is_err() {
        cloud.around.metrics.error(place);
    }
    let made = result.as_ref().ok().and_then(|done| done.made.clone());
    report(&cloud, id, result.map(|done| done.outcome));
    // The pool has it by now.
    if let Some((eni, groups)) = made.filter(|_| cloud.around.follows_groups()) {
        refresh::made(&cloud.around.core, &cloud.around.causes, eni, groups);
    }
}

/// What an action achieved.
struct Done {
    outcome: Outcome,
    /// An interface it made, and that one's security groups.
    made: Option<(EniId, Vec<String>)>,
}

impl From<Outcome> for Done {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, made: None }
    }
}

async fn perform(cloud: &Cloud, order: Order) -> Result<Done, Failure> {
    let outcome = match order.action {
        Action::CreateInterface {
            id,
            card,
            device,
            subnet,
            // They are in the order's intent.
            groups: _,
            addresses,
            prefixes,
            client_token,
            done,
        } => {
            let wish = create::Wish {
                id,
                card,
                device,
                subnet,
                addresses,
                prefixes,
                client_token,
                intent: order.intent.unwrap_or_default(),
            };
            let (facts, groups) = create::create(cloud, wish, &done).await?;
            return Ok(Done {
                made: Some((facts.id.clone(), groups)),
                outcome: Outcome::InterfaceReady(facts),
            });
        }
        Action::AssignAddresses { eni, count, .. } => addresses::assign(cloud, &eni, count).await,
        Action::AssignPrefixes { eni, count, .. } => addresses::assign_prefixes(cloud, &eni, count).await,
        Action::AssignIpv6Prefix { eni, .. } => addresses::assign_ipv6_prefix(cloud, &eni).await,
        Action::ReleaseAddresses { eni, addresses, .. } => {
            addresses::release(cloud, &eni, &addresses, &[]).await
        }
        Action::ReleasePrefixes { eni, prefixes, .. } => {
            addresses::release(cloud, &eni, &[], &prefixes).await
        }
        Action::DeleteInterface { eni, .. } => delete::delete(cloud, &eni).await.map(|()| Outcome::Gone),
        Action::Describe { eni, .. } => addresses::describe(cloud, &eni).await,
        Action::Reply { .. } => Err(Failure::refused("a reply is no call to EC2".to_owned())),
    };
    outcome.map(Done::from)
}

fn report(cloud: &Arc<Cloud>, id: ActionId, result: Result<Outcome, Failure>) {
    leaked::notice(cloud, &result);
    match result {
        Ok(outcome) => {
            tracing::info!(id = id.0, ?outcome, "done");
            cloud.around.core.event(Event::ActionDone { id, outcome });
        }
        Err(failure) => {
            tracing::warn!(id = id.0, class = ?failure.class, message = %failure.message, "failed");
            if failure.class == FailureClass::SubnetExhausted {
                cloud.around.news.tell(News::SubnetFull {
                    text: failure.message.clone(),
                });
                tokio::spawn(Arc::clone(&cloud.zone).recount());
            }
            let disagreed = matches!(
                failure.class,
                FailureClass::LimitReached | FailureClass::DeviceTaken
            );
            cloud.around.core.event(failure.event(id));
            if disagreed {
                // EC2 counts something that the pool does not know, an interface that somebody else attached perhaps.
                let cloud = Arc::clone(cloud);
                tokio::spawn(async move { relist(&cloud).await });
            }
        }
    }
}

impl Cloud {
    /// The CIDR of a subnet, asked for once.
    async fn subnet_cidr(&self, subnet: &SubnetId) -> Result<Ipv4Net, Failure> {
        let known = lock(&self.subnets).get(subnet).copied();
        let known = known.or_else(|| self.around.aims.cidr(subnet));
        if let Some(cidr) = known {
            return Ok(cidr);
        }
        let found = self
            .ec2
            .describe_subnets(std::slice::from_ref(&subnet.0), &[])
            .await?;
        let cidr = found.iter().find(|s| s.id == subnet.0).and_then(|s| s.ipv4_cidr);
        let cidr = cidr
            .ok_or_else(|| Failure::refused(format!("subnet {subnet} has no IPv4 CIDR in EC2's answer")))?;
        lock(&self.subnets).insert(subnet.clone(), cidr);
        Ok(cidr)
    }

    /// `aws-K8S-<instance id>`: by this the original, and whoever cleans up after it, knows its interfaces.
    fn description(&self) -> String {
        format!("aws-K8S-{}", self.machine.instance_id)
    }
}

/// The gateway of a subnet: its base address and 1 (VPC user guide, "Subnet sizing").
#[must_use]
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}
