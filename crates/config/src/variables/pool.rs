//! How many addresses and interfaces a node holds.

use crate::variable::Invalid::{AsUnset, Never, Refused};
use crate::variable::Kind::{Bool, Choice, Number, NumberOrNone, Path, Seconds};

const FROM_0: crate::Kind = Number {
    low: 0,
    high: u32::MAX,
};

chapter! { Pool;
    WARM_ENI_TARGET: FROM_0, default "1", invalid AsUnset,
        "Keeps this many interfaces' worth of addresses free. 0: the pool grows only when no address is free. IPv4 secondary \
         addresses only; without effect once `WARM_IP_TARGET` or `MINIMUM_IP_TARGET` is set, and in prefix mode.";
    WARM_IP_TARGET: NumberOrNone, default "", invalid AsUnset,
        "Keeps this many addresses free (IPv4). In prefix mode rounded up to whole /28s. Goes before `WARM_ENI_TARGET` and \
         `WARM_PREFIX_TARGET`. Network cards other than the first always keep 1.";
    MINIMUM_IP_TARGET: NumberOrNone, default "", invalid AsUnset,
        "Holds at least this many addresses in all (IPv4), from the start. Alone it keeps nothing free above the floor: set \
         `WARM_IP_TARGET` too. Network cards other than the first always hold 1.";
    WARM_PREFIX_TARGET: FROM_0, default "1", invalid AsUnset,
        "Keeps this many /28 prefixes wholly free (IPv4 prefix mode). 0: the pool grows only when no address is free, and an \
         address target must be set. `WARM_IP_TARGET` and `MINIMUM_IP_TARGET` go before it for growth; an interface is still \
         freed only when the others hold this many empty prefixes.",
        original "not set is 0 in code and 1 in its manifest; invalid is 0.";
    MAX_ENI: NumberOrNone, default "", invalid AsUnset,
        "At most this many interfaces (IPv4), where the instance type allows more.";
    IP_COOLDOWN_PERIOD: Seconds { low: 0 }, default "30", invalid Refused,
        "An address that a pod gave back is given to no other pod for this long: the rest of the VPC may still be sending to \
         it. 0 is allowed.";
    VPCNET_MAX_PODS: NumberOrNone, default "", invalid AsUnset,
        "The pool stops growing at this many addresses. Not set: the image's list by instance type, else interfaces × \
         (addresses − 1) + 2. It never makes the pool give addresses back.";
    VPCNET_WARM_POOL: Choice(&["targets", "auto"]), default "targets", invalid AsUnset,
        "What sizes the warm pool: the targets above, or what comes. `auto` keeps as many addresses free as pods came in the busiest \
         of the last ten minutes, a sixteenth of max-pods at least, and one where a subnet runs low; the targets then have no effect.";
    VPCNET_NODE_FILE: Path, default "", invalid Never,
        "A JSON file with what holds for this node only: other targets, its ENIConfig, whether it is cordoned \
         (`docs/node-file.md`). Read at the start and whenever it changes. Not set: there is none.";
    DISABLE_NETWORK_RESOURCE_PROVISIONING: Bool, default "false", invalid AsUnset,
        "No interface, address or prefix is created or given back: the pool is what the node was given.",
        original "releases what a change of mode left, and addresses on excluded subnets, all the same.";
    ENABLE_IMDS_ONLY_MODE: Bool, default "false", invalid AsUnset,
        "No EC2 call at all. Everything is read from IMDS. Includes `DISABLE_NETWORK_RESOURCE_PROVISIONING` and \
         `DISABLE_LEAKED_ENI_CLEANUP`.",
        original "with subnet discovery or IPv6 it asks EC2 all the same, and fails.";
    DISABLE_LEAKED_ENI_CLEANUP: Bool, default "false", invalid AsUnset,
        "Interfaces that a node left behind are not looked for. Also off with IPv6 and without provisioning.";
    AWS_MANAGE_ENIS_NON_SCHEDULABLE: Bool, default "false", invalid AsUnset,
        "Interfaces are made and freed also while the node has the taint `node.kubernetes.io/unschedulable:NoSchedule`. False: \
         not while it has (addresses are still given back).";
}
