//! The API server, and what is told to other agents.

use crate::variable::Invalid::{AsUnset, Never, Refused};
use crate::variable::Kind::{Bool, ChoiceAnyCase, Text};

chapter! { Kubernetes;
    MY_NODE_NAME: Text, default "", invalid Never,
        "This node's name in Kubernetes. The agent watches the objects of this name only.";
    MY_POD_NAME: Text, default "", invalid Never,
        "The agent's own pod: events are told of it.";
    CLUSTER_ENDPOINT: Text, default "", invalid Never,
        "The API server's URL, instead of the cluster's own address for it. Empty is not set.",
        original "empty replaces the address, too, by nothing.";
    ANNOTATE_POD_IP: Bool, default "false", invalid AsUnset,
        "Writes each pod's address into its annotation `vpc.amazonaws.com/pod-ips`. Needs the API server at start.";
    NETWORK_POLICY_ENFORCING_MODE: ChoiceAnyCase(&["none", "standard", "strict"]), default "", invalid Refused,
        "What the network policy agent is told of new pods: `standard` allows until there are policies, `strict` denies until then. Not set: \
         there is no such agent, and it is never called. Empty is invalid. Handed on as it is written.",
        original "the same, although its documentation says that not set is `standard`.";
}
