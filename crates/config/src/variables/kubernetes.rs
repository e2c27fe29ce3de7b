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
    KUBECONFIG: Text, default "", invalid Never,
        "A kubeconfig file for the API server, instead of the pod's service account: token, token file or client certificate. Without it \
         and without a service account nothing of Kubernetes is asked.",
        original "not read.";
    KUBERNETES_SERVICE_HOST: Text, default "", invalid Never,
        "The API server's address in its cluster. The kubelet sets it in every pod.";
    KUBERNETES_SERVICE_PORT: Text, default "", invalid Never,
        "Its port; not set, 443. The kubelet sets it in every pod.";
    ANNOTATE_POD_IP: Bool, default "false", invalid AsUnset,
        "Writes each pod's address into its annotation `vpc.amazonaws.com/pod-ips`, as soon as the API server takes it.",
        original "an ADD fails while the API server is away, and the agent does not start.";
    NETWORK_POLICY_ENFORCING_MODE: ChoiceAnyCase(&["none", "standard", "strict"]), default "", invalid Refused,
        "What the network policy agent is told of new pods: `standard` allows until there are policies, `strict` denies until then. Not set: \
         there is no such agent, and it is never called. Empty is invalid. Handed on as it is written.",
        original "the same, although its documentation says that not set is `standard`.";
}
