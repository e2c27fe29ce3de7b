//! Bringing an interface up: create, attach, wait for its link, set it up on the host.
//!
//! The answer of the creation and the kernel's word that the link is there are enough; IMDS, which lags, is not asked.

use std::time::Duration;

use vpcnet_cloud::{
    AddressRequest, AttachNetworkInterface, CreateNetworkInterface, Ec2Error, ErrorClass, InterfaceChange,
    NetworkInterface, Tag,
};
use vpcnet_ipam::{ActionId, CardIndex, DeviceIndex, EniId, Event, InterfaceFacts, Stage, SubnetId};

use super::delete::{again, look};
use super::{Cloud, Failure, facts_of};
use crate::core::CoreHandle;
use crate::state::Intent;
use crate::{cards, clock};

/// How long a link may take to appear after EC2 accepted the attachment. Usual are 2 to 10 s.
const LINK_WITHIN: Duration = Duration::from_secs(60);
/// Tag with the time of creation; who cleans leaked interfaces up spares the young ones.
pub(super) const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";

/// What is wanted.
pub(super) struct Wish {
    pub(super) id: ActionId,
    pub(super) card: CardIndex,
    pub(super) device: DeviceIndex,
    pub(super) subnet: Option<SubnetId>,
    pub(super) addresses: u32,
    pub(super) prefixes: u32,
    pub(super) client_token: String,
    pub(super) intent: Intent,
}

/// An interface that exists, and its attachment once it has one.
struct Made {
    eni: NetworkInterface,
    attachment: Option<String>,
}

/// Brings the interface up, taking over where an earlier attempt, of this life or one before, left off (`done`). After a
/// failure what was made stays: the pool has its record of it, and comes back with it or has it deleted. Also returns the
/// security groups it was made with.
pub(super) async fn create(
    cloud: &Cloud,
    wish: Wish,
    done: &[Stage],
) -> Result<(InterfaceFacts, Vec<String>), Failure> {
    let made = match created(done) {
        Some(eni) => take_over(cloud, eni, done).await?,
        None => Made {
            eni: make(cloud, &wish).await?,
            attachment: None,
        },
    };
    let groups = made
        .eni
        .groups
        .iter()
        .map(|group| group.group_id.clone())
        .collect();
    let facts = finish(cloud, &wish, made).await?;
    Ok((facts, groups))
}

fn created(done: &[Stage]) -> Option<&EniId> {
    done.iter().rev().find_map(|stage| match stage {
        Stage::Created { eni } => Some(eni),
        Stage::Attached { .. } => None,
    })
}

/// The interface an earlier life has made.
async fn take_over(cloud: &Cloud, eni: &EniId, done: &[Stage]) -> Result<Made, Failure> {
    let found = look(cloud, eni).await?;
    let eni = found
        .ok_or_else(|| Failure::gone(format!("{eni}, which an earlier life of the agent made, is gone")))?;
    let attachment = done.iter().rev().find_map(|stage| match stage {
        Stage::Attached { attachment } => Some(attachment.clone()),
        Stage::Created { .. } => None,
    });
    let own = own_attachment(cloud, &eni);
    Ok(Made {
        attachment: attachment.filter(|_| own.is_some()).or(own),
        eni,
    })
}

fn own_attachment(cloud: &Cloud, eni: &NetworkInterface) -> Option<String> {
    eni.attachment
        .as_ref()
        .filter(|a| a.instance_id == cloud.machine.instance_id)
        .map(|a| a.id.clone())
}

async fn make(cloud: &Cloud, wish: &Wish) -> Result<NetworkInterface, Failure> {
    // A repeat must name what the first attempt named.
    if let Some(subnet) = wish.subnet.as_ref().filter(|_| !wish.intent.unsure) {
        let fits = cloud.zone.still_fits(subnet).await;
        fits.inspect_err(|_| forget_intent(cloud, &wish.client_token))?;
    }
    let mut tags: Vec<Tag> = wish
        .intent
        .tags
        .iter()
        .map(|(key, value)| Tag::new(key, value))
        .collect();
    tags.push(Tag::new(CREATED_TAG, clock::rfc3339(wish.intent.created_at_ns)));
    let request = CreateNetworkInterface {
        subnet_id: wish.subnet.as_ref().unwrap_or(&cloud.primary_subnet).0.clone(),
        groups: wish.intent.groups.clone(),
        description: cloud.description(),
        client_token: wish.client_token.clone(),
        tags,
        ipv4: Some(if wish.prefixes > 0 {
            AddressRequest::Prefixes(wish.prefixes)
        } else {
            AddressRequest::Addresses(wish.addresses)
        }),
        ipv6_prefixes: 0,
        connection_tracking: None,
    };
    match cloud.ec2.create_network_interface(&request).await {
        Ok(eni) => {
            forget_intent(cloud, &wish.client_token);
            cloud.around.core.event(Event::Progress {
                id: wish.id,
                stage: Stage::Created {
                    eni: EniId(eni.id.clone()),
                },
            });
            Ok(eni)
        }
        Err(error) => {
            settle_intent(cloud, &wish.client_token, error.effect_unknown);
            Err(error.into())
        }
    }
}

/// What the call was made with must be remembered as long as one of its attempts may have had an effect unseen.
fn settle_intent(cloud: &Cloud, token: &str, unsure: bool) {
    let token = token.to_owned();
    cloud.around.core.learnt(move |facts| {
        if let Some(intent) = facts.intents.get_mut(&token) {
            intent.unsure |= unsure;
            if !intent.unsure {
                facts.intents.remove(&token);
            }
        }
    });
}

/// It is there: nobody will ask for it again.
fn forget_intent(cloud: &Cloud, token: &str) {
    let token = token.to_owned();
    cloud.around.core.learnt(move |facts| {
        facts.intents.remove(&token);
    });
}

async fn finish(cloud: &Cloud, wish: &Wish, made: Made) -> Result<InterfaceFacts, Failure> {
    let cidr = cloud.subnet_cidr(&SubnetId(made.eni.subnet_id.clone())).await?;
    let mut facts = facts_of(&made.eni, wish.card, wish.device, cidr, &cloud.ownership)
        .ok_or_else(|| Failure::refused(format!("{} has no IPv4 address of its own", made.eni.id)))?;
    // Listening begins before the attachment: the link may be there before its answer is.
    let link = cloud.around.host.link(&facts.mac);
    cloud.around.newcomers.expect(&facts.mac);
    let attachment = match made.attachment {
        Some(attachment) => attachment,
        None => {
            let attachment = attach(cloud, wish, &made.eni).await?;
            let stage = Stage::Attached {
                attachment: attachment.clone(),
            };
            cloud.around.core.event(Event::Progress { id: wish.id, stage });
            attachment
        }
    };
    // Also when it was attached by an earlier attempt: whether that came this far is not known.
    let (eni, owed) = (facts.id.clone(), attachment.clone());
    cloud.around.core.learnt(move |known| {
        known.outliving.insert(eni, owed);
    });
    tokio::spawn(go_with_instance(
        cloud.ec2.clone(),
        cloud.around.core.clone(),
        facts.id.clone(),
        attachment.clone(),
    ));
    match tokio::time::timeout(LINK_WITHIN, link).await {
        Ok(appeared) => appeared.map_err(|error| Failure::retry(error.to_string()))?,
        Err(_) => {
            return Err(Failure::retry(format!(
                "{} ({}) was attached ({attachment}), but its link did not appear within {}s",
                facts.id,
                facts.mac,
                LINK_WITHIN.as_secs()
            )));
        }
    }
    cards::adopt_tables([&mut facts], &cloud.machine);
    cloud
        .around
        .host
        .set_up(&facts)
        .await
        .map_err(|error| Failure::retry(format!("{}: {error}", facts.id)))?;
    Ok(facts)
}

async fn attach(cloud: &Cloud, wish: &Wish, eni: &NetworkInterface) -> Result<String, Failure> {
    let request = AttachNetworkInterface {
        interface_id: eni.id.clone(),
        instance_id: cloud.machine.instance_id.clone(),
        device_index: wish.device.0,
        network_card_index: wish.card.0,
    };
    let mut tries = 0;
    loop {
        match cloud.ec2.attach_network_interface(&request).await {
            Ok(attached) => return Ok(attached.attachment_id),
            Err(error) => {
                if may_have_happened(&error) {
                    // Looking is harmless; attaching twice would fail and say nothing.
                    let found = look(cloud, &EniId(eni.id.clone())).await?;
                    if let Some(attachment) = found.as_ref().and_then(|e| own_attachment(cloud, e)) {
                        return Ok(attachment);
                    }
                }
                if place_taken(&error) {
                    return Err(Failure::device_taken(error.to_string()));
                }
                again(error, &mut tries).await?;
            }
        }
    }
}

/// "Instance 'i-…' already has an interface attached at device index '1'": EC2 has no code of its own for that.
fn place_taken(error: &Ec2Error) -> bool {
    error.code == "InvalidParameterValue" && error.message.contains("device index")
}

/// A lost answer, or EC2's word that the interface is attached already (an earlier life's call, whose answer nobody read).
fn may_have_happened(error: &Ec2Error) -> bool {
    error.effect_unknown || error.code == "InvalidNetworkInterface.InUse"
}

/// Sees to it that the interface goes with its instance. Pods do not wait for it, and are not refused when it fails. What was not
/// confirmed is done again by the agent's next life.
pub(crate) async fn go_with_instance(
    ec2: vpcnet_cloud::Ec2,
    core: CoreHandle,
    eni: EniId,
    attachment_id: String,
) {
    let change = InterfaceChange::DeleteOnTermination {
        attachment_id,
        delete: true,
    };
    let mut tries = 0;
    loop {
        match ec2.modify_network_interface_attribute(&eni.0, &change).await {
            Ok(()) => break,
            // It went before its instance.
            Err(error) if error.class == ErrorClass::Gone => break,
            Err(error) => {
                let text = error.to_string();
                if again(error, &mut tries).await.is_err() {
                    tracing::error!(%eni, error = %text, "delete-on-termination not set: the interface would outlive its instance");
                    return;
                }
            }
        }
    }
    core.learnt(move |known| {
        known.outliving.remove(&eni);
    });
}
