//! From an environment to the configuration.

use std::path::PathBuf;

use crate::config::{
    BranchSettings, CloudSettings, Config, CustomNetworking, EgressSettings, Enforcing, Family, HostSettings,
    InstallSettings, InterfaceSettings, KubernetesSettings, LogLevel, LogSettings, LogTarget, PluginSettings,
    PoolSettings, PortChoice,
};
use crate::error::{ConfigErrors, Finding, shown};
use crate::interplay;
use crate::missing::{self, Missing};
use crate::parse::{self, Bind};
use crate::reader::{Lookup, Reader};
use crate::variable::Variable;
use crate::variables::vars;

/// Our own state, beside the checkpoint.
const STATE_FILE: &str = "vpcnet-state.json";
/// Least MTU that IPv4 (RFC 791) and IPv6 (RFC 8200) must be able to send.
const LEAST_MTU: (u32, u32) = (576, 1280);

/// A variable that the environment has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// Which.
    pub variable: &'static Variable,
    /// As it stands there.
    pub value: String,
    /// It holds: it is neither empty nor invalid. False also for what is not read here.
    pub accepted: bool,
}

/// An environment, read. There is always a configuration; whether the agent may start with it, the findings say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The settings; where a value was none, the default's.
    pub config: Config,
    /// Known variables that are set.
    pub given: Vec<Given>,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Reading {
    /// Reads all variables.
    #[must_use]
    pub fn of(lookup: &Lookup<'_>) -> Self {
        let mut r = Reader::new(lookup);
        let config = config(&mut r);
        let (given, findings) = r.into_parts();
        let mut reading = Self {
            config,
            given,
            findings,
        };
        interplay::judge(&mut reading);
        reading
    }

    /// Also says what is asked for of the things that cannot be done.
    #[must_use]
    pub fn without(mut self, list: &[Missing]) -> Self {
        missing::judge(&mut self, list);
        self
    }

    /// The configuration, with all that was found as notes.
    ///
    /// # Errors
    /// What keeps the agent from starting.
    pub fn accept(mut self) -> Result<Config, ConfigErrors> {
        let mut errors = Vec::new();
        for finding in self.findings {
            match finding {
                Finding::Refused(error) => errors.push(error),
                Finding::Ignored(text) | Finding::Noted(text) => self.config.notes.push(text),
            }
        }
        if errors.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigErrors(errors))
        }
    }

    /// The value, if it is set and holds.
    pub(crate) fn accepted(&self, variable: &Variable) -> Option<&str> {
        let given = self.given.iter().find(|g| g.variable.name == variable.name)?;
        given.accepted.then_some(given.value.as_str())
    }
}

fn config(r: &mut Reader) -> Config {
    let v6 = r.bool(&vars::ENABLE_IPV6);
    // Not set, IPv4 is what is not IPv6: the manifest's "true" holds for clusters that say nothing.
    let v4 = r.bool_if_set(&vars::ENABLE_IPV4).unwrap_or(!v6);
    interplay::families(r, v4, v6);
    let family = if v6 && !v4 { Family::V6 } else { Family::V4 };
    let checkpoint: PathBuf = r
        .text(&vars::AWS_VPC_K8S_CNI_BACKING_STORE)
        .unwrap_or_default()
        .into();
    let state = r
        .text(&vars::VPCNET_STATE)
        .map_or_else(|| checkpoint.with_file_name(STATE_FILE), PathBuf::from);
    Config {
        family,
        pool: pool(r, family),
        interfaces: interfaces(r),
        branch: BranchSettings {
            enabled: r.bool(&vars::ENABLE_POD_ENI),
            enforcing: match r.choice(&vars::POD_SECURITY_GROUP_ENFORCING_MODE) {
                "standard" => Enforcing::Standard,
                _ => Enforcing::Strict,
            },
        },
        host: host(r, family, if v6 { LEAST_MTU.1 } else { LEAST_MTU.0 }),
        egress: EgressSettings {
            v4: r.bool(&vars::ENABLE_V4_EGRESS) && family == Family::V6,
            v6: r.bool(&vars::ENABLE_V6_EGRESS) && family == Family::V4,
        },
        cloud: cloud(r),
        kubernetes: KubernetesSettings {
            node_name: r.text(&vars::MY_NODE_NAME),
            pod_name: r.text(&vars::MY_POD_NAME),
            endpoint: r.text(&vars::CLUSTER_ENDPOINT),
            kubeconfig: r.text(&vars::KUBECONFIG).map(Into::into),
            service_host: r.text(&vars::KUBERNETES_SERVICE_HOST),
            service_port: r.text(&vars::KUBERNETES_SERVICE_PORT),
            annotate_pod_ip: r.bool(&vars::ANNOTATE_POD_IP),
            policy_mode: policy_mode(r),
        },
        plugin: plugin(r),
        install: InstallSettings {
            bin_dir: r.text(&vars::HOST_CNI_BIN_PATH).unwrap_or_default().into(),
            conf_dir: r.text(&vars::HOST_CNI_CONFDIR_PATH).unwrap_or_default().into(),
            tcp_early_demux: !r.bool(&vars::DISABLE_TCP_EARLY_DEMUX),
        },
        log: log(r),
        socket: r.text(&vars::VPCNET_SOCKET).unwrap_or_default().into(),
        checkpoint,
        state,
        metrics: server(r, &vars::DISABLE_METRICS, &vars::VPCNET_METRICS_BIND_ADDRESS),
        introspection: server(r, &vars::DISABLE_INTROSPECTION, &vars::INTROSPECTION_BIND_ADDRESS),
        notes: Vec::new(),
    }
}

fn pool(r: &mut Reader, family: Family) -> PoolSettings {
    let imds_only = r.bool(&vars::ENABLE_IMDS_ONLY_MODE);
    let provisioning = !(r.bool(&vars::DISABLE_NETWORK_RESOURCE_PROVISIONING) || imds_only);
    PoolSettings {
        prefixes: r.bool(&vars::ENABLE_PREFIX_DELEGATION),
        warm_eni: r.number(&vars::WARM_ENI_TARGET),
        warm_ip: r.number_or_none(&vars::WARM_IP_TARGET),
        minimum_ip: r.number_or_none(&vars::MINIMUM_IP_TARGET),
        warm_prefix: r.number(&vars::WARM_PREFIX_TARGET),
        max_eni: r.number_or_none(&vars::MAX_ENI),
        cooldown: r.seconds(&vars::IP_COOLDOWN_PERIOD),
        max_pods: r.number_or_none(&vars::VPCNET_MAX_PODS),
        auto: r.choice(&vars::VPCNET_WARM_POOL) == "auto",
        node_file: r.text(&vars::VPCNET_NODE_FILE).map(Into::into),
        provisioning,
        imds_only,
        leaked_cleanup: !r.bool(&vars::DISABLE_LEAKED_ENI_CLEANUP) && provisioning && family == Family::V4,
        manage_when_unschedulable: r.bool(&vars::AWS_MANAGE_ENIS_NON_SCHEDULABLE),
    }
}

fn interfaces(r: &mut Reader) -> InterfaceSettings {
    let keys = CustomNetworking {
        annotation: r.text(&vars::ENI_CONFIG_ANNOTATION_DEF).unwrap_or_default(),
        label: r.text(&vars::ENI_CONFIG_LABEL_DEF).unwrap_or_default(),
    };
    InterfaceSettings {
        custom_networking: r.bool(&vars::AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG).then_some(keys),
        subnet_discovery: r.bool(&vars::ENABLE_SUBNET_DISCOVERY),
        multi_nic: r.bool(&vars::ENABLE_MULTI_NIC),
    }
}

fn host(r: &mut Reader, family: Family, least_mtu: u32) -> HostSettings {
    let mtu = r.mtu(&vars::AWS_VPC_ENI_MTU, least_mtu).unwrap_or(least_mtu);
    HostSettings {
        family,
        mtu,
        pod_mtu: r.mtu(&vars::POD_MTU, least_mtu).unwrap_or(mtu),
        external_snat: r.bool(&vars::AWS_VPC_K8S_CNI_EXTERNALSNAT),
        exclude_snat: cidrs(r, &vars::AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS),
        external_services: cidrs(r, &vars::AWS_EXTERNAL_SERVICE_CIDRS),
        ports: match r.choice(&vars::AWS_VPC_K8S_CNI_RANDOMIZESNAT) {
            "hashrandom" => PortChoice::HashRandom,
            "none" => PortChoice::Kernel,
            _ => PortChoice::Random,
        },
        node_port: r.bool(&vars::AWS_VPC_CNI_NODE_PORT_SUPPORT),
        mark: r.mark(&vars::AWS_VPC_K8S_CNI_CONNMARK),
        veth_prefix: r.prefix(&vars::AWS_VPC_K8S_CNI_VETHPREFIX),
        proc_sys: r.text(&vars::VPCNET_PROC_SYS).map(Into::into),
    }
}

fn cidrs(r: &mut Reader, variable: &Variable) -> Vec<ipnet::Ipv4Net> {
    let (found, wrong) = parse::cidrs(&r.raw(variable).unwrap_or_default());
    if !found.is_empty() {
        r.accept(variable);
    }
    for item in wrong {
        let name = variable.name;
        r.find(Finding::Ignored(format!(
            "{name}: {} is not an IPv4 CIDR: left out",
            shown(&item)
        )));
    }
    found
}

fn cloud(r: &mut Reader) -> CloudSettings {
    let older = r.text_of(&vars::AWS_EC2_ENDPOINT, parse::url);
    let elsewhere = r.text_of(&vars::AWS_DEFAULT_REGION, parse::region);
    CloudSettings {
        ec2_endpoint: r.text_of(&vars::AWS_ENDPOINT_URL_EC2, parse::url).or(older),
        imds_endpoint: r.text_of(&vars::AWS_EC2_METADATA_SERVICE_ENDPOINT, parse::url),
        region: r.text_of(&vars::AWS_REGION, parse::region).or(elsewhere),
        timeout: r.seconds(&vars::HTTP_TIMEOUT),
        cluster: r.text(&vars::CLUSTER_NAME),
        tags: tags(r),
        manage_untagged: r.bool(&vars::MANAGE_UNTAGGED_ENI),
        version: r.text(&vars::VPC_CNI_VERSION),
    }
}

fn tags(r: &mut Reader) -> std::collections::BTreeMap<String, String> {
    let variable = &vars::ADDITIONAL_ENI_TAGS;
    let Some(text) = r.raw(variable).filter(|t| !t.is_empty()) else {
        return Default::default();
    };
    let Some((tags, dropped)) = parse::tags(&text) else {
        r.reject(variable, &text);
        return Default::default();
    };
    r.accept(variable);
    for (key, reason) in dropped {
        let name = variable.name;
        r.find(Finding::Ignored(format!(
            "{name}: key {} is left out: {reason}",
            shown(&key)
        )));
    }
    tags
}

/// Unset means that there is no policy agent, which plugins are told as an empty string; a wrong value, the empty one too, must not
/// become that silently.
fn policy_mode(r: &mut Reader) -> String {
    let variable = &vars::NETWORK_POLICY_ENFORCING_MODE;
    match r.raw(variable) {
        Some(empty) if empty.is_empty() => {
            r.reject(variable, "");
            String::new()
        }
        given => {
            let known = !r.choice(variable).is_empty();
            given.filter(|_| known).unwrap_or_default()
        }
    }
}

fn plugin(r: &mut Reader) -> PluginSettings {
    PluginSettings {
        log_file: r.plugin_log(&vars::AWS_VPC_K8S_PLUGIN_LOG_FILE),
        log_level: level(r, &vars::AWS_VPC_K8S_PLUGIN_LOG_LEVEL),
        egress_v4_log_file: r.plugin_log(&vars::AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE),
        egress_v6_log_file: r.plugin_log(&vars::AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE),
        bandwidth: r.bool(&vars::ENABLE_BANDWIDTH_PLUGIN),
        disable_pod_v6: r.bool(&vars::DISABLE_POD_V6),
    }
}

fn level(r: &mut Reader, variable: &Variable) -> LogLevel {
    match r.choice(variable) {
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" | "fatal" => LogLevel::Error,
        _ => LogLevel::Debug,
    }
}

fn log(r: &mut Reader) -> LogSettings {
    let variable = &vars::AWS_VPC_K8S_CNI_LOG_FILE;
    let set = r.raw(variable).is_some_and(|v| !v.is_empty());
    let target = match r.text(variable).as_deref() {
        Some("stdout") => LogTarget::Stdout,
        Some("stderr") => LogTarget::Stderr,
        Some(path) if set => LogTarget::File(path.into()),
        _ => LogTarget::Default,
    };
    LogSettings {
        level: level(r, &vars::AWS_VPC_K8S_CNI_LOGLEVEL),
        target,
    }
}

fn server(r: &mut Reader, off: &Variable, address: &Variable) -> Option<Bind> {
    let bind = r.bind(address);
    if r.bool(off) { None } else { bind }
}
