//! What a configuration comes to, a few plain sentences.

use std::path::Path;

use crate::config::{Config, Enforcing, Family, LogTarget, PoolSettings, PortChoice};
use crate::interplay::brief;

/// Topic and sentence.
pub(crate) fn lines(config: &Config) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("addresses", addresses(config)),
        ("pool", pool(config)),
        ("interfaces", interfaces(config)),
    ];
    if config.branch.enabled {
        let how = match config.branch.enforcing {
            Enforcing::Strict => "for all of a pod's traffic",
            Enforcing::Standard => "for what stays in the VPC and leaves the node",
        };
        lines.push((
            "pod groups",
            format!("pods may have security groups of their own, {how}"),
        ));
    }
    lines.extend([
        ("tags", tags(config)),
        ("SNAT", snat(config)),
        ("host network", host(config)),
    ]);
    if config.egress.v4 || config.egress.v6 {
        let other = if config.egress.v4 { "IPv4" } else { "IPv6" };
        lines.push(("egress", format!("pods also reach {other}, by SNAT")));
    }
    lines.extend([
        ("AWS", cloud(config)),
        ("Kubernetes", kubernetes(config)),
        ("log", log(config)),
        ("servers", servers(config)),
        ("files", files(config)),
    ]);
    lines
}

fn count(n: u32, one: &str, many: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {many}")
    }
}

fn addresses(config: &Config) -> String {
    match (config.family, config.pool.prefixes) {
        (Family::V6, _) => "IPv6, from the /80 prefix of an interface",
        (Family::V4, true) => "IPv4, from /28 prefixes of the node's interfaces (single addresses where the instance type has no prefixes)",
        (Family::V4, false) => "IPv4, secondary addresses of the node's interfaces",
    }
    .into()
}

fn pool(config: &Config) -> String {
    let pool = &config.pool;
    let rest = format!(
        "; an address that a pod gave back rests {} s",
        pool.cooldown.as_secs()
    );
    if !pool.provisioning {
        return format!("what the node has: nothing is created or given back{rest}");
    }
    if config.family == Family::V6 {
        return format!("one /80 prefix an interface{rest}");
    }
    let mut text = kept(pool);
    if let Some(n) = pool.max_eni {
        text.push_str(&format!("; at most {}", count(n, "interface", "interfaces")));
    }
    match pool.max_pods {
        Some(n) => text.push_str(&format!("; grows up to {}", count(n, "address", "addresses"))),
        None => text.push_str("; grows up to the instance's max-pods"),
    }
    text + &rest
}

fn kept(pool: &PoolSettings) -> String {
    let rounded = if pool.prefixes { ", in whole /28s" } else { "" };
    if pool.auto {
        return format!("keeps as many addresses free as pods came lately in a minute{rounded}");
    }
    match (pool.warm_ip, pool.minimum_ip) {
        (Some(w), Some(m)) => format!(
            "keeps {} free and holds at least {m}{rounded}",
            count(w, "address", "addresses")
        ),
        (Some(w), None) => format!("keeps {} free{rounded}", count(w, "address", "addresses")),
        (None, Some(m)) => format!(
            "holds at least {}{rounded}, and no more than pods need beyond",
            count(m, "address", "addresses")
        ),
        (None, None) if pool.prefixes => match pool.warm_prefix {
            0 => "grows when no address is free".into(),
            n => format!("keeps {} wholly free", count(n, "/28 prefix", "/28 prefixes")),
        },
        (None, None) => match pool.warm_eni {
            0 => "grows when no address is free".into(),
            1 => "keeps one interface's worth of addresses free".into(),
            n => format!("keeps {n} interfaces' worth of addresses free"),
        },
    }
}

fn interfaces(config: &Config) -> String {
    let settings = &config.interfaces;
    let mut text: String = match &settings.custom_networking {
        Some(keys) => format!(
            "in the subnet of the ENIConfig that the node's annotation {} or label {} names; the primary serves no pods",
            brief(&keys.annotation),
            brief(&keys.label)
        ),
        None if settings.subnet_discovery => "in tagged subnets and the primary's".into(),
        None => "in the primary's subnet".into(),
    };
    text.push_str(if settings.multi_nic {
        "; on all network cards"
    } else {
        "; on the first network card"
    });
    if !config.cloud.manage_untagged {
        text.push_str("; those without our tags are left alone");
    }
    text.push_str(if config.pool.leaked_cleanup {
        "; leaked ones are freed"
    } else {
        "; leaked ones are not looked for"
    });
    if config.pool.manage_when_unschedulable {
        text.push_str("; also on a node that takes no pods");
    }
    text
}

fn tags(config: &Config) -> String {
    let mut text = match &config.cloud.cluster {
        Some(cluster) => format!("the agent's, with cluster {}", brief(cluster)),
        None => "the agent's, without a cluster's name".into(),
    };
    for (key, value) in &config.cloud.tags {
        text.push_str(&format!(", {}={}", brief(key), brief(value)));
    }
    text
}

fn snat(config: &Config) -> String {
    let host = &config.host;
    if config.family == Family::V6 {
        return "none: IPv6 addresses leave as they are".into();
    }
    if host.external_snat {
        return "none here: pods' addresses leave the VPC as they are".into();
    }
    let ports = match host.ports {
        PortChoice::Random => "random ports",
        PortChoice::HashRandom => "ports random by a hash",
        PortChoice::Kernel => "the kernel's choice of ports",
    };
    let mut text = format!("to the primary's address for all outside the VPC, {ports}");
    if !host.exclude_snat.is_empty() {
        text.push_str(&format!("; not for {}", list(&host.exclude_snat)));
    }
    text
}

fn host(config: &Config) -> String {
    let host = &config.host;
    let mut text = format!("MTU {}", host.mtu);
    if host.pod_mtu != host.mtu {
        text.push_str(&format!(", pods {}", host.pod_mtu));
    }
    text.push_str(&format!(
        "; pods' interfaces are {}…; mark {:#x}; NodePort support {}",
        host.veth_prefix,
        host.mark,
        if host.node_port { "on" } else { "off" }
    ));
    if !host.external_services.is_empty() {
        text.push_str(&format!(
            "; {} always by the primary",
            list(&host.external_services)
        ));
    }
    text
}

fn cloud(config: &Config) -> String {
    let cloud = &config.cloud;
    let or = |text: &Option<String>, otherwise: &str| text.clone().unwrap_or_else(|| otherwise.to_owned());
    format!(
        "region {}; EC2 at {}; IMDS at {}; {} s a request",
        or(&cloud.region, "as IMDS says"),
        if config.pool.imds_only {
            "no address: it is not called".into()
        } else {
            or(&cloud.ec2_endpoint, "AWS's endpoint")
        },
        or(&cloud.imds_endpoint, "its usual address"),
        cloud.timeout.as_secs()
    )
}

fn kubernetes(config: &Config) -> String {
    let settings = &config.kubernetes;
    let mut text = match &settings.node_name {
        Some(name) => format!("node {}", brief(name)),
        None => "node name not given".into(),
    };
    if let Some(endpoint) = &settings.endpoint {
        text.push_str(&format!("; API server at {}", brief(endpoint)));
    }
    if let Some(path) = &settings.kubeconfig {
        text.push_str(&format!("; asked by {}", shown(path)));
    }
    text.push_str("; the API server may be away at any time");
    text.push_str(&match settings.policy_mode.as_str() {
        "" => "; no network policy agent".into(),
        mode => format!("; network policy {mode}"),
    });
    text
}

fn log(config: &Config) -> String {
    let target = match &config.log.target {
        LogTarget::Stdout => "stdout".into(),
        LogTarget::Stderr => "stderr".into(),
        LogTarget::File(path) => shown(path),
        LogTarget::Default => format!(
            "{}, or stderr where that directory is missing",
            crate::DEFAULT_LOG_FILE
        ),
    };
    format!("{} and above, to {target}", config.log.level.word())
}

fn servers(config: &Config) -> String {
    let at = |bind: &Option<crate::Bind>| {
        bind.as_ref()
            .map_or_else(|| "off".into(), |b| format!("on {}", brief(&b.to_string())))
    };
    format!(
        "metrics {}, introspection {}",
        at(&config.metrics),
        at(&config.introspection)
    )
}

fn files(config: &Config) -> String {
    format!(
        "socket {}, checkpoint {}, state {}",
        shown(&config.socket),
        shown(&config.checkpoint),
        shown(&config.state)
    )
}

fn shown(path: &Path) -> String {
    brief(&path.display().to_string())
}

fn list(nets: &[ipnet::Ipv4Net]) -> String {
    let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
