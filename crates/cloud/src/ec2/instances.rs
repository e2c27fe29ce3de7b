//! Instances and instance types.

use std::borrow::Cow;

use serde::Deserialize;
use vpcnet_limits::{CardLimit, Hypervisor, InstanceLimits};

use super::form::{Filter, Form};
use super::interfaces::{Attachment, SecurityGroupRef};
use super::{Ec2, Tag};
use crate::error::{class_of, own};
use crate::xml::{items, optional, value};
use crate::{Ec2Action, Ec2Error};

/// An instance.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// `i-…`
    #[serde(rename = "instanceId")]
    pub id: String,
    /// `m5.large`
    #[serde(default)]
    pub instance_type: String,
    #[serde(default, rename = "instanceState")]
    state: Option<State>,
    /// The primary interface's subnet.
    #[serde(default)]
    pub subnet_id: String,
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// Interfaces attached, or on their way.
    #[serde(default, rename = "networkInterfaceSet", deserialize_with = "items")]
    pub interfaces: Vec<InstanceInterface>,
    /// Security groups of the primary interface.
    #[serde(default, rename = "groupSet", deserialize_with = "items")]
    pub groups: Vec<SecurityGroupRef>,
    /// Tags.
    #[serde(default, rename = "tagSet", deserialize_with = "items")]
    pub tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct State {
    #[serde(default)]
    name: String,
}

impl Instance {
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`; empty if EC2 does not say.
    pub fn state(&self) -> &str {
        self.state.as_ref().map_or("", |state| &state.name)
    }

    /// Device indexes in use on a network card, sorted.
    pub fn used_device_indexes(&self, card: u32) -> Vec<u32> {
        let attachments = self.interfaces.iter().filter_map(|i| i.attachment.as_ref());
        let mut used: Vec<u32> = attachments
            .filter(|a| a.network_card_index.unwrap_or(0) == card)
            .filter_map(|a| a.device_index)
            .collect();
        used.sort_unstable();
        used
    }
}

/// An interface as its instance lists it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceInterface {
    /// `eni-…`
    #[serde(rename = "networkInterfaceId")]
    pub id: String,
    /// Where it is attached.
    #[serde(default)]
    pub attachment: Option<Attachment>,
}

/// An instance type's description, as far as networking goes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceType {
    /// `m5.large`
    #[serde(rename = "instanceType")]
    pub name: String,
    /// `nitro`, `xen`; empty on bare metal.
    #[serde(default)]
    pub hypervisor: String,
    /// Whether the instance is the whole machine.
    #[serde(default, deserialize_with = "optional")]
    pub bare_metal: Option<bool>,
    #[serde(default)]
    network_info: Option<NetworkInfo>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInfo {
    #[serde(default, deserialize_with = "optional")]
    maximum_network_interfaces: Option<u32>,
    #[serde(default, deserialize_with = "optional")]
    ipv4_addresses_per_interface: Option<u32>,
    #[serde(default, deserialize_with = "optional")]
    default_network_card_index: Option<u32>,
    #[serde(default, rename = "networkCards", deserialize_with = "items")]
    cards: Vec<NetworkCard>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkCard {
    #[serde(deserialize_with = "value")]
    network_card_index: u32,
    #[serde(deserialize_with = "value")]
    maximum_network_interfaces: u32,
}

impl InstanceType {
    /// Its limits; `None` if EC2 left out the numbers of interfaces or addresses, or gave zero.
    pub fn limits(&self) -> Option<InstanceLimits> {
        let info = self.network_info.as_ref()?;
        let default_card = info.default_network_card_index.unwrap_or(0);
        let mut cards: Vec<CardLimit> = info
            .cards
            .iter()
            .map(|card| CardLimit {
                card: card.network_card_index,
                interfaces: card.maximum_network_interfaces,
            })
            .collect();
        if cards.is_empty() {
            cards.push(CardLimit {
                card: default_card,
                interfaces: info.maximum_network_interfaces?,
            });
        }
        cards.sort_by_key(|card| card.card);
        let interfaces = cards.iter().find(|card| card.card == default_card)?.interfaces;
        let ipv4_per_interface = info.ipv4_addresses_per_interface?;
        if interfaces == 0 || ipv4_per_interface == 0 {
            return None;
        }
        Some(InstanceLimits {
            instance_type: Cow::Owned(self.name.clone()),
            interfaces,
            ipv4_per_interface,
            cards,
            default_card,
            hypervisor: match self.hypervisor.as_str() {
                "nitro" => Hypervisor::Nitro,
                "xen" => Hypervisor::Xen,
                _ => Hypervisor::Unknown,
            },
            bare_metal: self.bare_metal.unwrap_or(false),
            // DescribeInstanceTypes does not say.
            trunk_capable: None,
            branch_interfaces: None,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instances {
    #[serde(default, rename = "reservationSet", deserialize_with = "items")]
    reservations: Vec<Reservation>,
    #[serde(default, deserialize_with = "optional")]
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Reservation {
    #[serde(default, rename = "instancesSet", deserialize_with = "items")]
    instances: Vec<Instance>,
}

impl Instances {
    fn flat(self) -> Vec<Instance> {
        self.reservations.into_iter().flat_map(|r| r.instances).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceTypes {
    #[serde(default, rename = "instanceTypeSet", deserialize_with = "items")]
    types: Vec<InstanceType>,
}

impl Ec2 {
    /// The instances with these ids.
    ///
    /// # Errors
    /// `Gone` if one does not exist.
    pub async fn describe_instances(&self, ids: &[String]) -> Result<Vec<Instance>, Ec2Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut form = Form::new(Ec2Action::DescribeInstances);
        form.list("InstanceId", ids);
        Ok(self
            .call::<Instances>(Ec2Action::DescribeInstances, form)
            .await?
            .flat())
    }

    /// The instances that match every filter, all pages.
    ///
    /// # Errors
    /// As EC2 answers.
    pub async fn find_instances(&self, filters: &[Filter]) -> Result<Vec<Instance>, Ec2Error> {
        let mut form = Form::new(Ec2Action::DescribeInstances);
        form.filters(filters);
        self.pages(Ec2Action::DescribeInstances, form, |mut answer: Instances| {
            let token = answer.next_token.take();
            (answer.flat(), token)
        })
        .await
    }

    /// Descriptions of instance types by name.
    ///
    /// # Errors
    /// As EC2 answers; a name it does not know is refused.
    pub async fn describe_instance_types(&self, names: &[String]) -> Result<Vec<InstanceType>, Ec2Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut form = Form::new(Ec2Action::DescribeInstanceTypes);
        form.list("InstanceType", names);
        Ok(self
            .call::<InstanceTypes>(Ec2Action::DescribeInstanceTypes, form)
            .await?
            .types)
    }

    /// The limits of an instance type: from the built-in table, without a call, or else from EC2.
    ///
    /// # Errors
    /// As EC2 answers; `MalformedResponse` if its answer lacks the figures.
    pub async fn instance_limits(&self, instance_type: &str) -> Result<InstanceLimits, Ec2Error> {
        if let Some(known) = vpcnet_limits::lookup(instance_type) {
            return Ok(known.clone());
        }
        let types = self.describe_instance_types(&[instance_type.to_owned()]).await?;
        let found = types
            .iter()
            .find(|t| t.name == instance_type)
            .and_then(InstanceType::limits);
        found.ok_or_else(|| {
            let message = format!("EC2's answer has no interface and address limits for {instance_type}");
            Ec2Error {
                class: class_of(own::MALFORMED, &message, 200),
                code: own::MALFORMED.to_owned(),
                message,
                request_id: None,
                retry_at: None,
                action: Ec2Action::DescribeInstanceTypes,
                effect_unknown: false,
            }
        })
    }
}
