use std::time::Duration;

use vpcnet_config::vars;

use crate::case::{Case, off_switch, says, silent, switch};

const NUMBERS: [&str; 8] = [
    "-1",
    "many",
    "3 ",
    " 3",
    "0x10",
    "1.5",
    "4294967296",
    "99999999999999999999",
];

#[test]
fn warm_eni_target() {
    Case::new(&vars::WARM_ENI_TARGET, |c| c.pool.warm_eni)
        .unset(1)
        .takes(&[("0", 0), ("+5", 5), ("007", 7), ("4294967295", u32::MAX)])
        .passes_over(&NUMBERS);
    says(
        &[("WARM_ENI_TARGET", "2"), ("WARM_IP_TARGET", "5")],
        &[
            "WARM_ENI_TARGET=2 has no effect",
            "WARM_IP_TARGET=5 goes before it",
        ],
    );
    says(
        &[("WARM_ENI_TARGET", "2"), ("ENABLE_PREFIX_DELEGATION", "true")],
        &["WARM_ENI_TARGET=2 has no effect", "WARM_PREFIX_TARGET"],
    );
    // As the shipped manifest has it beside everything.
    silent(&[("WARM_ENI_TARGET", "1"), ("WARM_IP_TARGET", "5")]);
}

#[test]
fn warm_ip_target() {
    Case::new(&vars::WARM_IP_TARGET, |c| c.pool.warm_ip)
        .unset(None)
        .takes(&[("0", None), ("-0", None), ("+5", Some(5)), ("12", Some(12))])
        .passes_over(&NUMBERS);
}

#[test]
fn minimum_ip_target() {
    Case::new(&vars::MINIMUM_IP_TARGET, |c| c.pool.minimum_ip)
        .unset(None)
        .takes(&[("0", None), ("+5", Some(5)), ("12", Some(12))])
        .passes_over(&NUMBERS);
    says(
        &[("MINIMUM_IP_TARGET", "9")],
        &["keeps no address free once 9 pods run", "set WARM_IP_TARGET too"],
    );
    silent(&[("MINIMUM_IP_TARGET", "9"), ("WARM_IP_TARGET", "1")]);
}

#[test]
fn warm_prefix_target() {
    Case::new(&vars::WARM_PREFIX_TARGET, |c| c.pool.warm_prefix)
        .with(&[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_IP_TARGET", "1")])
        .unset(1)
        .takes(&[("0", 0), ("3", 3)])
        .passes_over(&NUMBERS);
    says(
        &[("WARM_PREFIX_TARGET", "2")],
        &["WARM_PREFIX_TARGET=2 has no effect", "ENABLE_PREFIX_DELEGATION"],
    );
    // With address targets it still decides about freeing.
    says(
        &[
            ("WARM_PREFIX_TARGET", "2"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
            ("WARM_IP_TARGET", "5"),
        ],
        &["WARM_PREFIX_TARGET=2 does not make the pool grow", "freed"],
    );
    // Nothing at all to keep is refused, in IPv4 only.
    says(
        &[("WARM_PREFIX_TARGET", "0"), ("ENABLE_PREFIX_DELEGATION", "true")],
        &["WARM_PREFIX_TARGET=0", "set one of the three to 1 or more"],
    );
    silent(&[
        ("WARM_PREFIX_TARGET", "1"),
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_IP_TARGET", "5"),
    ]);
}

#[test]
fn max_eni() {
    Case::new(&vars::MAX_ENI, |c| c.pool.max_eni)
        .unset(None)
        .takes(&[("0", None), ("1", Some(1)), ("15", Some(15))])
        .passes_over(&NUMBERS);
}

#[test]
fn ip_cooldown_period() {
    Case::new(&vars::IP_COOLDOWN_PERIOD, |c| c.pool.cooldown)
        .unset(Duration::from_secs(30))
        .takes(&[("0", Duration::ZERO), ("120", Duration::from_secs(120))])
        .refuses(&["-1", "soon", "30s", "1.5", " 30"]);
}

#[test]
fn vpcnet_max_pods() {
    Case::new(&vars::VPCNET_MAX_PODS, |c| c.pool.max_pods)
        .unset(None)
        .takes(&[("0", None), ("58", Some(58))])
        .passes_over(&NUMBERS);
}

#[test]
fn vpcnet_warm_pool() {
    Case::new(&vars::VPCNET_WARM_POOL, |c| c.pool.auto)
        .unset(false)
        .takes(&[("targets", false), ("auto", true)])
        .passes_over(&["Auto", "true", "yes"]);
    says(
        &[("VPCNET_WARM_POOL", "auto"), ("WARM_IP_TARGET", "5")],
        &["WARM_IP_TARGET=5 has no effect: VPCNET_WARM_POOL=auto"],
    );
}

#[test]
fn vpcnet_node_file() {
    Case::new(&vars::VPCNET_NODE_FILE, |c| c.pool.node_file.clone())
        .unset(None)
        .takes(&[("/etc/vpcnet/node.json", Some("/etc/vpcnet/node.json".into()))]);
}

#[test]
fn disable_network_resource_provisioning() {
    off_switch(&vars::DISABLE_NETWORK_RESOURCE_PROVISIONING, |c| {
        c.pool.provisioning
    });
    off_switch(&vars::DISABLE_NETWORK_RESOURCE_PROVISIONING, |c| {
        c.pool.leaked_cleanup
    });
    says(
        &[
            ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true"),
            ("WARM_IP_TARGET", "5"),
        ],
        &["WARM_IP_TARGET=5 has no effect", "nothing is created"],
    );
}

#[test]
fn enable_imds_only_mode() {
    switch(&vars::ENABLE_IMDS_ONLY_MODE, false, |c| c.pool.imds_only);
    off_switch(&vars::ENABLE_IMDS_ONLY_MODE, |c| c.pool.provisioning);
    off_switch(&vars::ENABLE_IMDS_ONLY_MODE, |c| c.pool.leaked_cleanup);
}

#[test]
fn disable_leaked_eni_cleanup() {
    off_switch(&vars::DISABLE_LEAKED_ENI_CLEANUP, |c| c.pool.leaked_cleanup);
    // Provisioning goes on.
    let off = crate::case::read(&[("DISABLE_LEAKED_ENI_CLEANUP", "true")]);
    assert!(off.config.pool.provisioning);
    let v6 = crate::case::read(&[("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true")]);
    assert!(!v6.config.pool.leaked_cleanup, "off with IPv6");
}

#[test]
fn aws_manage_enis_non_schedulable() {
    switch(&vars::AWS_MANAGE_ENIS_NON_SCHEDULABLE, false, |c| {
        c.pool.manage_when_unschedulable
    });
}
