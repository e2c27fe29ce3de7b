//! Log, servers, files.

use crate::variable::Invalid::{AsUnset, Never};
use crate::variable::Kind::{Bind, Bool, ChoiceAnyCase, LogFile, Path};

/// Names of log levels, for the agent and the plugins.
pub(crate) const LEVELS: crate::Kind = ChoiceAnyCase(&["debug", "info", "warn", "error", "fatal"]);

chapter! { Process;
    AWS_VPC_K8S_CNI_LOGLEVEL: LEVELS, default "debug", invalid AsUnset,
        "The least severity that the agent logs; `fatal` is `error`.";
    AWS_VPC_K8S_CNI_LOG_FILE: LogFile, default "/host/var/log/aws-routed-eni/ipamd.log", invalid Never,
        "The agent's log: JSON lines in a file that is renamed at 100 MB, five old ones kept; or text on a standard stream. Not set \
         and without that directory: stderr.",
        original "also compresses old files, and removes them after 30 days; where the directory is missing it makes it.";
    DISABLE_METRICS: Bool, default "false", invalid AsUnset,
        "The metrics server is not started.";
    VPCNET_METRICS_BIND_ADDRESS: Bind, default ":61678", invalid AsUnset,
        "Where the metrics server listens.";
    DISABLE_INTROSPECTION: Bool, default "false", invalid AsUnset,
        "The introspection server is not started; `vpcnet status` and `vpcnet plan` then have nobody to ask.";
    INTROSPECTION_BIND_ADDRESS: Bind, default "127.0.0.1:61679", invalid AsUnset,
        "Where the introspection server listens. Empty is not set.",
        original "empty is all addresses and a random port.";
    AWS_VPC_K8S_CNI_BACKING_STORE: Path, default "/var/run/aws-node/ipam.json", invalid Never,
        "The checkpoint: which pod has which address.";
    VPCNET_STATE: Path, default "", invalid Never,
        "Our own state. Not set: `vpcnet-state.json` beside the checkpoint.";
    VPCNET_SOCKET: Path, default "/var/run/aws-node/ipamd.sock", invalid Never,
        "The socket that the plugin asks. The original's plugin has this path built in.";
}
