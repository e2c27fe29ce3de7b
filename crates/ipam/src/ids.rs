//! Names of the things the pool deals in. A [`PodKey`] is no [`EniId`]: mixing them up must not compile.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.to_owned())
            }
        }
    };
}

text_id!(
    /// An elastic network interface, `eni-0123456789abcdef0`.
    EniId
);
text_id!(
    /// A subnet, `subnet-0123456789abcdef0`.
    SubnetId
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// Position of an interface on its network card; 0 on card 0 is the instance's primary interface.
    DeviceIndex
);
number_id!(
    /// A network card of the instance. Most types have one, card 0.
    CardIndex
);

/// A sandbox's claim on an address: what the CNI spec calls an attachment, and the key of the checkpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PodKey {
    /// `name` of the network configuration, `aws-cni`.
    pub network: String,
    /// `CNI_CONTAINERID`: the sandbox, 64 hex digits with containerd.
    pub container_id: String,
    /// `CNI_IFNAME`, `eth0`.
    pub if_name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.if_name)
    }
}

/// Which pod a sandbox belongs to, for people and for finding its host veth.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PodMeta {
    /// Kubernetes namespace; empty when the runtime did not say.
    pub namespace: String,
    /// Pod name; empty when the runtime did not say.
    pub name: String,
    /// How many interfaces the pod was given; 1 but for multi-NIC pods.
    pub interfaces: u32,
}

impl PodMeta {
    /// The pod: its links bear this name, whichever of its sandboxes has them.
    pub(crate) fn pod(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl fmt::Display for PodMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
