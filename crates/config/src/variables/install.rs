//! What the installer puts on the node, and what is not read any more.

/// For the plugins' configuration file and the node's preparation.
pub(super) mod plugins {
    use super::super::process::LEVELS;
    use crate::variable::Invalid::{AsUnset, Never, Refused};
    use crate::variable::Kind::{Bool, Path, PluginLogFile};

    chapter! { Install;
        HOST_CNI_BIN_PATH: Path, default "/host/opt/cni/bin", invalid Never,
            "Where the plugins are put, as the container sees it.";
        HOST_CNI_CONFDIR_PATH: Path, default "/host/etc/cni/net.d", invalid Never,
            "Where the plugins' configuration file is put, as the container sees it.";
        AWS_VPC_K8S_PLUGIN_LOG_FILE: PluginLogFile, default "/var/log/aws-routed-eni/plugin.log", invalid Refused,
            "The plugin's log.";
        AWS_VPC_K8S_PLUGIN_LOG_LEVEL: LEVELS, default "debug", invalid AsUnset,
            "The least severity that the plugins log.";
        AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE: PluginLogFile, default "/var/log/aws-routed-eni/egress-v4-plugin.log", invalid Refused,
            "The egress plugin's log in an IPv6 cluster.",
            original "takes `stdout`, which spoils the plugin's answer.";
        AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE: PluginLogFile, default "/var/log/aws-routed-eni/egress-v6-plugin.log", invalid Refused,
            "The egress plugin's log in an IPv4 cluster.",
            original "takes `stdout`, which spoils the plugin's answer.";
        ENABLE_BANDWIDTH_PLUGIN: Bool, default "false", invalid AsUnset,
            "Adds the `bandwidth` plugin to the chain. It and the network policy agent both use the kernel's tc.",
            original "drops what it does not know of the file when it adds it.";
        DISABLE_POD_V6: Bool, default "false", invalid AsUnset,
            "Adds the `tuning` plugin to the chain, which switches IPv6 off in pods.",
            original "drops what it does not know of the file when it adds it.";
        DISABLE_TCP_EARLY_DEMUX: Bool, default "false", invalid AsUnset,
            "Init container: switches the node's `tcp_early_demux` off, which kubelet's probes of pods with branch interfaces need in `strict` mode.";
    }
}

/// Not read any more.
pub(super) mod retired {
    use crate::variable::Invalid::Never;
    use crate::variable::Kind::Nothing;

    chapter! { Retired;
        AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER: Nothing, default "", invalid Never,
            "Once: whether the primary's `rp_filter` is set. It always is, to loose.";
        ENABLE_NFTABLES: Nothing, default "", invalid Never,
            "Once: iptables or nftables. One nftables table is used, always.";
    }
}
