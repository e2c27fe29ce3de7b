//! The things a VPC holds.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::config::{HttpTokens, Reservation, Rule, SubnetRoute};
use super::ids::{AttachmentId, EniId, GroupId, InstanceId, Mac, SubnetId};
use super::ipv6::Ipv6;
use super::request::{ConnectionTracking, InterfaceKind, Tags};

/// Life of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceStatus {
    /// Being created.
    Pending,
    /// Attached to nothing.
    Available,
    /// On its way into an instance.
    Attaching,
    /// Attached.
    InUse,
    /// On its way out.
    Detaching,
}

impl InterfaceStatus {
    /// As EC2 writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Attaching => "attaching",
            Self::InUse => "in-use",
            Self::Detaching => "detaching",
        }
    }

    /// The status of the attachment that goes with it.
    #[must_use]
    pub const fn attachment(self) -> &'static str {
        match self {
            Self::Pending | Self::Available => "detached",
            Self::Attaching => "attaching",
            Self::InUse => "attached",
            Self::Detaching => "detaching",
        }
    }
}

/// The bond of an interface with an instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// The instance.
    pub instance: InstanceId,
    /// Position on the card.
    pub device_index: u32,
    /// Network card.
    pub card: u32,
    /// When it was asked for.
    pub at: Duration,
    /// Whether the interface dies with the instance.
    pub delete_on_termination: bool,
}

/// An elastic network interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Interface {
    /// Its id.
    pub id: EniId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its MAC.
    pub mac: Mac,
    /// Free text.
    pub description: String,
    /// What kind.
    pub kind: InterfaceKind,
    /// Its groups.
    pub groups: Vec<GroupId>,
    /// False: it may send from and receive for addresses it does not own.
    pub source_dest_check: bool,
    /// Its tags.
    pub tags: Tags,
    /// Primary address; none for an EFA-only interface.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses, oldest first.
    pub secondary: Vec<Ipv4Addr>,
    /// Prefixes, oldest first.
    pub prefixes: Vec<Ipv4Net>,
    /// IPv6 addresses and prefixes.
    pub ipv6: Ipv6,
    /// Public address of the primary one.
    pub public: Option<Ipv4Addr>,
    /// Connection tracking.
    pub tracking: ConnectionTracking,
    /// Where in its life it is.
    pub status: InterfaceStatus,
    /// Present from the attach call until the detachment is complete.
    pub attachment: Option<Attachment>,
    /// Role that created it.
    pub requester: String,
    /// When the present step of its life ends.
    pub(crate) due: Option<Duration>,
}

impl Interface {
    /// IPv4 slots in use: each address and each prefix takes one.
    #[must_use]
    pub fn slots(&self) -> usize {
        usize::from(self.primary.is_some()) + self.secondary.len() + self.prefixes.len()
    }

    /// Primary and secondary addresses, the primary first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.primary.into_iter().chain(self.secondary.iter().copied())
    }

    /// The attachment, when its link is in the instance.
    #[must_use]
    pub fn linked(&self) -> Option<&Attachment> {
        match self.status {
            InterfaceStatus::InUse | InterfaceStatus::Detaching => self.attachment.as_ref(),
            _ => None,
        }
    }
}

/// Life of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Starting.
    Pending,
    /// Up.
    Running,
    /// Going.
    ShuttingDown,
    /// Gone; EC2 shows such an instance for about an hour, the lab as long as it lives.
    Terminated,
}

impl InstanceState {
    /// EC2's code and name.
    #[must_use]
    pub const fn code_name(self) -> (u16, &'static str) {
        match self {
            Self::Pending => (0, "pending"),
            Self::Running => (16, "running"),
            Self::ShuttingDown => (32, "shutting-down"),
            Self::Terminated => (48, "terminated"),
        }
    }
}

/// An instance: a node of the lab.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Id of the reservation it was started by.
    pub reservation: String,
    /// Its position in that reservation.
    pub launch_index: u32,
    /// Its type.
    pub instance_type: String,
    /// Image id.
    pub image: String,
    /// Subnet of its primary interface.
    pub subnet: SubnetId,
    /// Its primary interface.
    pub primary: EniId,
    /// Where in its life it is.
    pub state: InstanceState,
    /// When it was started.
    pub launched: Duration,
    /// Role its credentials in IMDS speak for.
    pub role: Option<String>,
    /// Its tags; `Name` is the node's name.
    pub tags: Tags,
    /// Metadata hop limit.
    pub hop_limit: u8,
    /// Metadata token rule.
    pub http_tokens: HttpTokens,
    /// Client token of the call that started it.
    pub client_token: Option<String>,
    pub(crate) due: Option<Duration>,
}

impl Instance {
    /// The node's name: tag `Name`, or the id where there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.tags.get("Name").map_or(self.id.as_str(), String::as_str)
    }

    /// True from its start until it is terminated.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state != InstanceState::Terminated
    }
}

/// A security group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
    /// Its tags.
    pub tags: Tags,
}

/// A subnet's facts; its addresses are accounted for apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its name, tag `Name` at the start.
    pub name: String,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Its IPv6 addresses.
    pub ipv6: Option<Ipv6Net>,
    /// Its zone, `us-west-2a`.
    pub zone: String,
    /// The zone's id, `usw2-az1`.
    pub zone_id: String,
    /// Its default route.
    pub route: SubnetRoute,
    /// Its tags.
    pub tags: Tags,
    /// CIDR reservations.
    pub reservations: Vec<Reservation>,
}

impl Subnet {
    /// The implicit router's address: the first one after the network's.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()).wrapping_add(1))
    }
}
