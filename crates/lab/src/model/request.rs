//! The calls the VPC understands, parsed: what the EC2 face makes of a form, and what tests write by hand.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId};
use super::ipv6::{Ipv6, WantedIpv6};

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// A call.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// DescribeInstances.
    DescribeInstances(Describe),
    /// DescribeInstanceTypes; `ids` are type names.
    DescribeInstanceTypes(Describe),
    /// DescribeSubnets.
    DescribeSubnets(Describe),
    /// DescribeVpcs.
    DescribeVpcs(Describe),
    /// DescribeSecurityGroups; `ids` are group ids, names go through the filter `group-name`.
    DescribeSecurityGroups(Describe),
    /// DescribeNetworkInterfaces.
    DescribeNetworkInterfaces(Describe),
    /// CreateNetworkInterface.
    CreateNetworkInterface(CreateNetworkInterface),
    /// AttachNetworkInterface.
    AttachNetworkInterface(AttachNetworkInterface),
    /// DetachNetworkInterface.
    DetachNetworkInterface {
        /// The bond to undo.
        attachment: AttachmentId,
        /// Accepted; the lab's detachments never hang, so it changes nothing.
        force: bool,
    },
    /// DeleteNetworkInterface.
    DeleteNetworkInterface(EniId),
    /// ModifyNetworkInterfaceAttribute.
    ModifyNetworkInterfaceAttribute {
        /// Which interface.
        eni: EniId,
        /// The one attribute to set: EC2 takes one in each call.
        change: AttributeChange,
    },
    /// AssignPrivateIpAddresses.
    AssignPrivateIpAddresses(AssignPrivateIpAddresses),
    /// UnassignPrivateIpAddresses.
    UnassignPrivateIpAddresses {
        /// From which interface.
        eni: EniId,
        /// Secondary addresses.
        addresses: Vec<Ipv4Addr>,
        /// Prefixes.
        prefixes: Vec<Ipv4Net>,
    },
    /// AssignIpv6Addresses.
    AssignIpv6Addresses(AssignIpv6Addresses),
    /// UnassignIpv6Addresses.
    UnassignIpv6Addresses {
        /// From which interface.
        eni: EniId,
        /// What.
        ipv6: Ipv6,
    },
    /// CreateTags.
    CreateTags {
        /// Ids of any kind.
        resources: Vec<String>,
        /// Tags to set.
        tags: Tags,
    },
    /// DeleteTags.
    DeleteTags {
        /// Ids of any kind.
        resources: Vec<String>,
        /// Key, and a value it must have to be deleted; no keys at all: every tag.
        tags: Vec<(String, Option<String>)>,
    },
    /// RunInstances.
    RunInstances(RunInstances),
    /// TerminateInstances.
    TerminateInstances(Vec<InstanceId>),
    /// ModifyInstanceMetadataOptions.
    ModifyInstanceMetadataOptions {
        /// Which instance.
        instance: InstanceId,
        /// New hop limit, 1 to 64.
        hop_limit: Option<u8>,
        /// New token rule.
        http_tokens: Option<super::config::HttpTokens>,
    },
    /// A known action whose parameters make no sense. It is still throttled, authorised and logged, in that order,
    /// as EC2 does before it looks at parameters.
    Malformed {
        /// Its name.
        action: &'static str,
        /// What is wrong.
        error: ApiError,
    },
}

impl Request {
    /// EC2's name of the action.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::DescribeInstances(_) => "DescribeInstances",
            Self::DescribeInstanceTypes(_) => "DescribeInstanceTypes",
            Self::DescribeSubnets(_) => "DescribeSubnets",
            Self::DescribeVpcs(_) => "DescribeVpcs",
            Self::DescribeSecurityGroups(_) => "DescribeSecurityGroups",
            Self::DescribeNetworkInterfaces(_) => "DescribeNetworkInterfaces",
            Self::CreateNetworkInterface(_) => "CreateNetworkInterface",
            Self::AttachNetworkInterface(_) => "AttachNetworkInterface",
            Self::DetachNetworkInterface { .. } => "DetachNetworkInterface",
            Self::DeleteNetworkInterface(_) => "DeleteNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute { .. } => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses(_) => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses { .. } => "UnassignPrivateIpAddresses",
            Self::AssignIpv6Addresses(_) => "AssignIpv6Addresses",
            Self::UnassignIpv6Addresses { .. } => "UnassignIpv6Addresses",
            Self::CreateTags { .. } => "CreateTags",
            Self::DeleteTags { .. } => "DeleteTags",
            Self::RunInstances(_) => "RunInstances",
            Self::TerminateInstances(_) => "TerminateInstances",
            Self::ModifyInstanceMetadataOptions { .. } => "ModifyInstanceMetadataOptions",
            Self::Malformed { action, .. } => action,
        }
    }

    /// Whether it only reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        super::throttle::is_read(self.action())
    }
}

/// A Describe call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Describe {
    /// Only these; one unknown id fails the call.
    pub ids: Vec<String>,
    /// All must match.
    pub filters: Vec<Filter>,
    /// Results on a page.
    pub max_results: Option<u32>,
    /// Where the next page starts, as the last answer said.
    pub next_token: Option<String>,
}

impl Describe {
    /// Everything there is.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only these ids.
    #[must_use]
    pub fn ids<I: ToString>(ids: impl IntoIterator<Item = I>) -> Self {
        Self {
            ids: ids.into_iter().map(|i| i.to_string()).collect(),
            ..Self::default()
        }
    }

    /// Adds a filter.
    #[must_use]
    pub fn filter(mut self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        self.filters.push(Filter {
            name: name.to_owned(),
            values,
        });
        self
    }
}

/// A filter: the named property has one of the values; `*` and `?` in a value match as in file names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// `subnet-id`, `tag:Name`.
    pub name: String,
    /// Any of them.
    pub values: Vec<String>,
}

/// What kind of interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceKind {
    /// The usual.
    #[default]
    Interface,
    /// Carries branch interfaces.
    Trunk,
    /// Carried by a trunk.
    Branch,
    /// Elastic Fabric Adapter with an IP device.
    Efa,
    /// Elastic Fabric Adapter without one: it has no address.
    EfaOnly,
}

impl InterfaceKind {
    /// As EC2 writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Trunk => "trunk",
            Self::Branch => "branch",
            Self::Efa => "efa",
            Self::EfaOnly => "efa-only",
        }
    }
}

/// Idle time-outs of connection tracking, in seconds; `None` leaves EC2's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConnectionTracking {
    /// 60 to 432000.
    pub tcp_established: Option<u32>,
    /// 30 to 60.
    pub udp: Option<u32>,
    /// 60 to 180.
    pub udp_stream: Option<u32>,
}

/// How many, or which, addresses or prefixes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted<T> {
    /// So many, of EC2's choice.
    Count(u32),
    /// Exactly these.
    These(Vec<T>),
}

impl<T> Default for Wanted<T> {
    fn default() -> Self {
        Self::Count(0)
    }
}

/// CreateNetworkInterface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateNetworkInterface {
    /// Where.
    pub subnet: SubnetId,
    /// Free text.
    pub description: String,
    /// Groups; empty: the VPC's default group.
    pub groups: Vec<GroupId>,
    /// Primary address; `None`: EC2 chooses.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses.
    pub secondary: Wanted<Ipv4Addr>,
    /// Prefixes, /28.
    pub prefixes: Wanted<Ipv4Net>,
    /// IPv6 addresses and prefixes.
    pub ipv6: WantedIpv6,
    /// What kind.
    pub kind: InterfaceKind,
    /// Its tags.
    pub tags: Tags,
    /// Makes a repeat of the same call return the same interface.
    pub client_token: Option<String>,
    /// Connection tracking.
    pub tracking: ConnectionTracking,
}

impl CreateNetworkInterface {
    /// An interface with only a primary address.
    #[must_use]
    pub fn new(subnet: SubnetId) -> Self {
        Self {
            subnet,
            description: String::new(),
            groups: Vec::new(),
            primary: None,
            secondary: Wanted::default(),
            prefixes: Wanted::default(),
            ipv6: WantedIpv6::default(),
            kind: InterfaceKind::Interface,
            tags: Tags::new(),
            client_token: None,
            tracking: ConnectionTracking::default(),
        }
    }
}

/// AttachNetworkInterface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachNetworkInterface {
    /// Which interface.
    pub eni: EniId,
    /// To which instance.
    pub instance: InstanceId,
    /// Position on the card.
    pub device_index: u32,
    /// Network card.
    pub card: u32,
}

/// AssignPrivateIpAddresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignPrivateIpAddresses {
    /// To which interface.
    pub eni: EniId,
    /// Secondary addresses.
    pub addresses: Wanted<Ipv4Addr>,
    /// Prefixes, /28.
    pub prefixes: Wanted<Ipv4Net>,
    /// Take named addresses away from another interface of the subnet.
    pub allow_reassignment: bool,
}

/// AssignIpv6Addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignIpv6Addresses {
    /// To which interface.
    pub eni: EniId,
    /// What.
    pub ipv6: WantedIpv6,
}

/// What ModifyNetworkInterfaceAttribute sets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeChange {
    /// `Description.Value`.
    Description(String),
    /// `SecurityGroupId.N`.
    Groups(Vec<GroupId>),
    /// `SourceDestCheck.Value`.
    SourceDestCheck(bool),
    /// `Attachment.AttachmentId` and `Attachment.DeleteOnTermination`.
    DeleteOnTermination {
        /// The present attachment of the interface.
        attachment: AttachmentId,
        /// Whether the interface dies with the instance.
        delete: bool,
    },
    /// `ConnectionTrackingSpecification`.
    Tracking(ConnectionTracking),
}

/// RunInstances, as far as the lab's nodes need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunInstances {
    /// Of the limits table.
    pub instance_type: String,
    /// 1 or more; the lab starts as many as asked for.
    pub count: u32,
    /// Where; `None`: the configured subnets by turns.
    pub subnet: Option<SubnetId>,
    /// Groups of the primary interface; empty: the VPC's default group.
    pub groups: Vec<GroupId>,
    /// Name or ARN of the instance profile, which carries the role of the same name; `None`: no credentials in IMDS.
    pub profile: Option<String>,
    /// Tags of the instances.
    pub tags: Tags,
    /// Tags of their interfaces.
    pub interface_tags: Tags,
    /// Metadata hop limit.
    pub hop_limit: u8,
    /// Metadata token rule.
    pub http_tokens: super::config::HttpTokens,
    /// Secondary addresses of the primary interface.
    pub secondary: Wanted<Ipv4Addr>,
    /// IPv6 addresses and prefixes of the primary interface.
    pub ipv6: WantedIpv6,
    /// Primary address.
    pub primary: Option<Ipv4Addr>,
    /// Makes a repeat of the same call return the same instances.
    pub client_token: Option<String>,
    /// Image id; kept and shown, nothing more.
    pub image: String,
}
