//! Which kind of addresses, and from which interfaces and subnets.

use crate::variable::Invalid::{AsUnset, Never, RefusedWith, Skipped};
use crate::variable::Kind::{Bool, Choice, Tags, Text};

chapter! { Interfaces;
    ENABLE_IPV4 ("ENABLE_IPv4"): Bool, default "true", invalid AsUnset,
        "Pods get IPv4 addresses. Exactly one of IPv4 and IPv6 must be on; not set, it is on unless `ENABLE_IPv6` is.",
        original "not set is false, although its documentation says true: it does not start without its manifest's `true`.";
    ENABLE_IPV6 ("ENABLE_IPv6"): Bool, default "false", invalid AsUnset,
        "Pods get IPv6 addresses, from one /80 prefix an interface. Needs `ENABLE_PREFIX_DELEGATION`, and excludes custom \
         networking. IPv4 targets mean nothing then.";
    ENABLE_PREFIX_DELEGATION: Bool, default "false", invalid AsUnset,
        "Interfaces get /28 prefixes (/80 with IPv6) instead of single addresses. Needs a Nitro or bare-metal instance: with IPv4 \
         others use single addresses.",
        original "with IPv6, too, it asks for a warm target, which means nothing there; compares targets as text.";
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: Bool, default "false", invalid AsUnset,
        "Custom networking: further interfaces lie in the subnet, and have the security groups, of an ENIConfig object. The primary \
         interface gets no pods. IPv4 only; goes before subnet discovery.";
    ENI_CONFIG_ANNOTATION_DEF: Text, default "k8s.amazonaws.com/eniConfig", invalid Never,
        "The node's annotation that names its ENIConfig. The label `vpc.amazonaws.com/externalEniConfig` goes before it, the label \
         of `ENI_CONFIG_LABEL_DEF` after it, then `default`.";
    ENI_CONFIG_LABEL_DEF: Text, default "k8s.amazonaws.com/eniConfig", invalid Never,
        "The node's label that names its ENIConfig, such as `topology.kubernetes.io/zone`.";
    ENABLE_SUBNET_DISCOVERY: Bool, default "true", invalid AsUnset,
        "New interfaces lie in the subnets of the zone that are tagged `kubernetes.io/role/cni`; subnets tagged 0 get no new pods. \
         False: in the primary's subnet. Custom networking goes before it.";
    ENABLE_POD_ENI: Bool, default "false", invalid AsUnset,
        "Security groups for pods: keeps a slot for the trunk interface, and serves pods that have a branch interface.";
    POD_SECURITY_GROUP_ENFORCING_MODE: Choice(&["strict", "standard"]), default "strict", invalid RefusedWith("ENABLE_POD_ENI"),
        "Whether a pod with a branch interface sends everything by it (`strict`), or traffic out of the VPC and on the node as \
         other pods do (`standard`).";
    ENABLE_MULTI_NIC: Bool, default "false", invalid AsUnset,
        "Network cards other than the first are used too, with a pool for each. False: they are left alone.";
    MANAGE_UNTAGGED_ENI: Bool, default "true", invalid AsUnset,
        "False: only interfaces with this node's `node.k8s.amazonaws.com/instance_id` tag, or with \
         `node.k8s.amazonaws.com/no_manage` other than `true`, are used. The primary always is.";
    ADDITIONAL_ENI_TAGS: Tags, default "", invalid Skipped,
        "Tags for interfaces, beside the agent's own. Left out are keys that contain `k8s.amazonaws.com` or begin with `aws:`, keys over \
         128 and values over 256 characters, and all after the 46th (EC2 allows 50, four are the agent's). If it is not JSON there are none.",
        original "passes all but the first on to EC2, which then refuses every new interface.";
    CLUSTER_NAME: Text, default "", invalid Never,
        "The cluster's name: tags interfaces with it and with their owner, and is what subnets' and leaked interfaces' cluster tags \
         are compared with.";
}
