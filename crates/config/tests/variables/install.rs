use std::path::PathBuf;

use vpcnet_config::{LogLevel, vars};

use crate::case::{Case, off_switch, read, says, switch};

#[test]
fn host_cni_bin_path() {
    Case::new(&vars::HOST_CNI_BIN_PATH, |c| c.install.bin_dir.clone())
        .unset(PathBuf::from("/host/opt/cni/bin"))
        .takes(&[("/a", "/a".into())]);
}

#[test]
fn host_cni_confdir_path() {
    Case::new(&vars::HOST_CNI_CONFDIR_PATH, |c| c.install.conf_dir.clone())
        .unset(PathBuf::from("/host/etc/cni/net.d"))
        .takes(&[("/a", "/a".into())]);
}

#[test]
fn aws_vpc_k8s_plugin_log_file() {
    Case::new(&vars::AWS_VPC_K8S_PLUGIN_LOG_FILE, |c| c.plugin.log_file.clone())
        .unset(PathBuf::from("/var/log/aws-routed-eni/plugin.log"))
        .takes(&[("/a.log", "/a.log".into()), ("stderr", "stderr".into())])
        .refuses(&["stdout"]);
}

#[test]
fn aws_vpc_k8s_plugin_log_level() {
    Case::new(&vars::AWS_VPC_K8S_PLUGIN_LOG_LEVEL, |c| c.plugin.log_level)
        .unset(LogLevel::Debug)
        .takes(&[("Info", LogLevel::Info), ("fatal", LogLevel::Error)])
        .passes_over(&["loud"]);
}

#[test]
fn aws_vpc_k8s_egress_v4_plugin_log_file() {
    Case::new(&vars::AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE, |c| {
        c.plugin.egress_v4_log_file.clone()
    })
    .unset(PathBuf::from("/var/log/aws-routed-eni/egress-v4-plugin.log"))
    .takes(&[("/a.log", "/a.log".into())])
    .refuses(&["stdout"]);
}

#[test]
fn aws_vpc_k8s_egress_v6_plugin_log_file() {
    Case::new(&vars::AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE, |c| {
        c.plugin.egress_v6_log_file.clone()
    })
    .unset(PathBuf::from("/var/log/aws-routed-eni/egress-v6-plugin.log"))
    .takes(&[("/a.log", "/a.log".into())])
    .refuses(&["stdout"]);
}

#[test]
fn enable_bandwidth_plugin() {
    switch(&vars::ENABLE_BANDWIDTH_PLUGIN, false, |c| c.plugin.bandwidth);
}

#[test]
fn disable_pod_v6() {
    switch(&vars::DISABLE_POD_V6, false, |c| c.plugin.disable_pod_v6);
}

#[test]
fn disable_tcp_early_demux() {
    off_switch(&vars::DISABLE_TCP_EARLY_DEMUX, |c| c.install.tcp_early_demux);
}

fn retired(name: &str) {
    for value in ["true", "false", "x"] {
        assert_eq!(read(&[(name, value)]).config, read(&[]).config);
        says(&[(name, value)], &[name, "no effect any more"]);
    }
}

#[test]
fn aws_vpc_k8s_cni_configure_rpfilter() {
    retired(vars::AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER.name);
}

#[test]
fn enable_nftables() {
    retired(vars::ENABLE_NFTABLES.name);
}
