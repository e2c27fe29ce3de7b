//! Routing, SNAT, marks, MTU.

use crate::variable::Invalid::{AsUnset, Never, Refused, Skipped};
use crate::variable::Kind::{Bool, Choice, Cidrs, Mark, Mtu, Path, Prefix};

chapter! { Host;
    AWS_VPC_ENI_MTU: Mtu, default "9001", invalid Refused,
        "MTU of the interfaces, the primary too, and of pods where `POD_MTU` does not say otherwise.";
    POD_MTU: Mtu, default "", invalid Refused,
        "MTU of pods' interfaces, by the plugin's configuration file. Not set: `AWS_VPC_ENI_MTU`.";
    AWS_VPC_K8S_CNI_EXTERNALSNAT: Bool, default "false", invalid AsUnset,
        "No SNAT on the node: pods' addresses leave the VPC as they are, and something else (a NAT gateway) translates them.";
    AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: Cidrs, default "", invalid Skipped,
        "Destinations outside the VPC that are reached without SNAT. Each is brought to its network address; IPv6 is left out.";
    AWS_VPC_K8S_CNI_RANDOMIZESNAT: Choice(&["prng", "hashrandom", "none"]), default "prng", invalid AsUnset,
        "How SNAT chooses source ports: fully random, random by a hash, or the kernel's usual way.";
    AWS_EXTERNAL_SERVICE_CIDRS: Cidrs, default "", invalid Skipped,
        "Destinations that always leave by the primary interface, such as services' addresses that something outside translates. Each \
         is brought to its network address; IPv6 is left out.";
    AWS_VPC_CNI_NODE_PORT_SUPPORT: Bool, default "true", invalid AsUnset,
        "Replies of pods on further interfaces to NodePort clients go back by the primary, where they came from.";
    AWS_VPC_K8S_CNI_CONNMARK: Mark, default "0x80", invalid AsUnset,
        "The mark of connections and packets that must leave by the primary. Only its bits are changed.";
    AWS_VPC_K8S_CNI_VETHPREFIX: Prefix, default "eni", invalid Refused,
        "How the names of pods' interfaces on the node begin; 11 more characters follow.",
        original "takes any characters.";
    VPCNET_PROC_SYS: Path, default "", invalid Never,
        "Where the node's `/proc/sys` can be written. Not set: `/host/proc/sys` where that has a `net`, which is the host's \
         `/proc/sys/net` mounted there, else `/proc/sys`, which in a container without `privileged` can only be read.";
    ENABLE_V4_EGRESS: Bool, default "true", invalid AsUnset,
        "In an IPv6 cluster: pods reach IPv4 by an address that means something on this node only, and SNAT.";
    ENABLE_V6_EGRESS: Bool, default "false", invalid AsUnset,
        "In an IPv4 cluster: pods reach IPv6 by an address that means something on this node only, and SNAT; opening connections to such \
         addresses from elsewhere is rejected. The primary interface needs a global IPv6 address.";
}
