//! The agent's settings, read once from the environment.
//!
//! Names, defaults and the treatment of invalid values are those of the AWS VPC CNI, so that its manifests work unchanged;
//! ours begin with `VPCNET_`. Nothing here looks at the machine.

mod parse;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

pub use parse::{Bind, Lookup};
use parse::{Reader, parse_bind};

/// Socket of the original; its plugin has the path built in.
pub const DEFAULT_SOCKET: &str = "/var/run/aws-node/ipamd.sock";
/// Checkpoint of the original.
pub const DEFAULT_CHECKPOINT: &str = "/var/run/aws-node/ipam.json";
/// Our own state, beside the checkpoint.
const STATE_FILE: &str = "vpcnet-state.json";
/// Log file of the original, on the host's disk as its container sees it.
pub const DEFAULT_LOG_FILE: &str = "/host/var/log/aws-routed-eni/ipamd.log";
/// File that images carry with `<instance type> <max pods>` lines.
pub const MAX_PODS_FILE: &str = "/app/eni-max-pods.txt";

/// Pool targets as the environment gives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolSettings {
    /// `WARM_ENI_TARGET`, 1.
    pub warm_eni: u32,
    /// `WARM_IP_TARGET`; `None` also for 0.
    pub warm_ip: Option<u32>,
    /// `MINIMUM_IP_TARGET`; `None` also for 0.
    pub minimum_ip: Option<u32>,
    /// `WARM_PREFIX_TARGET`.
    pub warm_prefix: Option<u32>,
    /// `MAX_ENI`, 1 or more.
    pub max_eni: Option<u32>,
    /// `IP_COOLDOWN_PERIOD`, 30 s; 0 is allowed.
    pub cooldown: Duration,
    /// `VPCNET_MAX_PODS`: over the max-pods file and the formula.
    pub max_pods: Option<u32>,
    /// False with `DISABLE_NETWORK_RESOURCE_PROVISIONING` or `ENABLE_IMDS_ONLY_MODE`: nothing is created or given back.
    pub provisioning: bool,
}

/// How SNAT chooses source ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortChoice {
    /// `prng`: fully random.
    Random,
    /// `hashrandom`.
    HashRandom,
    /// `none`: the kernel's choice.
    Kernel,
}

/// Host network settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSettings {
    /// `AWS_VPC_ENI_MTU`, 576..9001.
    pub mtu: u32,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`: no SNAT on the node.
    pub external_snat: bool,
    /// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS`.
    pub exclude_snat: Vec<Ipv4Net>,
    /// `AWS_EXTERNAL_SERVICE_CIDRS`.
    pub external_services: Vec<Ipv4Net>,
    /// `AWS_VPC_K8S_CNI_RANDOMIZESNAT`.
    pub ports: PortChoice,
    /// `AWS_VPC_CNI_NODE_PORT_SUPPORT`.
    pub node_port: bool,
    /// `AWS_VPC_K8S_CNI_CONNMARK`.
    pub mark: u32,
    /// `AWS_VPC_K8S_CNI_VETHPREFIX`, at most 4 characters.
    pub veth_prefix: String,
}

/// How EC2 and IMDS are reached, and how what is made there is marked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloudSettings {
    /// `AWS_ENDPOINT_URL_EC2`, else `AWS_EC2_ENDPOINT`.
    pub ec2_endpoint: Option<String>,
    /// `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub imds_endpoint: Option<String>,
    /// `AWS_REGION` or `AWS_DEFAULT_REGION`; otherwise IMDS says.
    pub region: Option<String>,
    /// `HTTP_TIMEOUT`, 10 s at least.
    pub timeout: Duration,
    /// `CLUSTER_NAME`.
    pub cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`, without reserved keys.
    pub tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`: interfaces without our tags are used too.
    pub manage_untagged: bool,
    /// `VPC_CNI_VERSION`: appended to the user agent.
    pub version: Option<String>,
}

/// Where the log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTarget {
    /// `stdout`.
    Stdout,
    /// `stderr`.
    Stderr,
    /// A file, rotated.
    File(PathBuf),
    /// The original's file where its directory is mounted, else stderr.
    Default,
}

/// The log's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`.
    pub level: tracing::Level,
    /// `AWS_VPC_K8S_CNI_LOG_FILE`.
    pub target: LogTarget,
}

/// Everything the agent reads from its environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Pool targets.
    pub pool: PoolSettings,
    /// Host network.
    pub host: HostSettings,
    /// EC2 and IMDS.
    pub cloud: CloudSettings,
    /// Log.
    pub log: LogSettings,
    /// `VPCNET_SOCKET`.
    pub socket: PathBuf,
    /// `AWS_VPC_K8S_CNI_BACKING_STORE`.
    pub checkpoint: PathBuf,
    /// `VPCNET_STATE`: our own state.
    pub state: PathBuf,
    /// Metrics server; `None` with `DISABLE_METRICS`.
    pub metrics: Option<Bind>,
    /// Introspection server; `None` with `DISABLE_INTROSPECTION`.
    pub introspection: Option<Bind>,
    /// `MY_NODE_NAME`.
    pub node_name: Option<String>,
    /// `NETWORK_POLICY_ENFORCING_MODE` as given; empty when unset.
    pub policy_mode: String,
    /// What was not as it should be, one sentence each.
    pub notes: Vec<String>,
}

/// A setting that would put pods into another network than was asked for if it were passed over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Asked for something this version cannot do.
    #[error(
        "{name}={value}: this version of vpcnetd does not do this, and pods would get other addresses than asked for; unset it"
    )]
    Unsupported {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A closed list was left.
    #[error("{name}={value:?}: allowed are {allowed}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What may stand there.
        allowed: &'static str,
    },
}

impl Config {
    /// From the process environment.
    ///
    /// # Errors
    /// [`ConfigError`] for settings that must not be passed over; everything else becomes a note.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(&|name| std::env::var(name).ok())
    }

    /// From any source of variables.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn read(lookup: &Lookup<'_>) -> Result<Self, ConfigError> {
        let mut r = Reader::new(lookup);
        refuse_unsupported(&mut r)?;
        let checkpoint = PathBuf::from(
            r.text("AWS_VPC_K8S_CNI_BACKING_STORE")
                .unwrap_or_else(|| DEFAULT_CHECKPOINT.into()),
        );
        let state = r
            .text("VPCNET_STATE")
            .map_or_else(|| checkpoint.with_file_name(STATE_FILE), PathBuf::from);
        Ok(Self {
            pool: pool(&mut r),
            host: host(&mut r),
            cloud: cloud(&mut r),
            log: log(&mut r),
            socket: r
                .text("VPCNET_SOCKET")
                .unwrap_or_else(|| DEFAULT_SOCKET.into())
                .into(),
            checkpoint,
            state,
            metrics: server(
                &mut r,
                "DISABLE_METRICS",
                "VPCNET_METRICS_BIND_ADDRESS",
                (Ipv4Addr::UNSPECIFIED, 61678).into(),
            ),
            introspection: server(
                &mut r,
                "DISABLE_INTROSPECTION",
                "INTROSPECTION_BIND_ADDRESS",
                (Ipv4Addr::LOCALHOST, 61679).into(),
            ),
            node_name: r.text("MY_NODE_NAME"),
            policy_mode: policy_mode(lookup)?,
            notes: r.into_notes(),
        })
    }
}

/// What must stop the start: silently giving IPv4 addresses in an IPv6 cluster, or addresses of the wrong subnet, helps nobody.
fn refuse_unsupported(r: &mut Reader<'_>) -> Result<(), ConfigError> {
    for name in [
        "ENABLE_IPv6",
        "ENABLE_PREFIX_DELEGATION",
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        "ENABLE_POD_ENI",
    ] {
        if r.bool(name, false) {
            return Err(ConfigError::Unsupported {
                name,
                value: r.text(name).unwrap_or_default(),
            });
        }
    }
    if !r.bool("ENABLE_IPv4", true) {
        return Err(ConfigError::Unsupported {
            name: "ENABLE_IPv4",
            value: r.text("ENABLE_IPv4").unwrap_or_default(),
        });
    }
    for (name, instead) in [
        ("ENABLE_MULTI_NIC", "only network card 0 is used"),
        ("ANNOTATE_POD_IP", "pods are not annotated"),
        ("ENABLE_V6_EGRESS", "pods get no IPv6 egress"),
    ] {
        if r.bool(name, false) {
            r.note(format!(
                "{name} is set, which this version of vpcnetd does not do: {instead}"
            ));
        }
    }
    Ok(())
}

/// Targets: zero and negative numbers mean "not set", as in the original.
fn pool(r: &mut Reader<'_>) -> PoolSettings {
    let positive = |r: &mut Reader<'_>, name: &str| match r.int(name) {
        None | Some(0) => None,
        Some(n) => match u32::try_from(n) {
            Ok(n) => Some(n),
            Err(_) => {
                r.note(format!("{name}={n} is out of range: not set"));
                None
            }
        },
    };
    let warm_eni = match r.int("WARM_ENI_TARGET").map(u32::try_from) {
        None => 1,
        Some(Ok(n)) => n,
        Some(Err(_)) => {
            r.note("WARM_ENI_TARGET is out of range: 1 is used".into());
            1
        }
    };
    let imds_only = r.bool("ENABLE_IMDS_ONLY_MODE", false);
    PoolSettings {
        warm_eni,
        warm_ip: positive(r, "WARM_IP_TARGET"),
        minimum_ip: positive(r, "MINIMUM_IP_TARGET"),
        warm_prefix: positive(r, "WARM_PREFIX_TARGET"),
        max_eni: positive(r, "MAX_ENI"),
        cooldown: Duration::from_secs(u64::from(
            r.int_within("IP_COOLDOWN_PERIOD", 0, u32::MAX).unwrap_or(30),
        )),
        max_pods: positive(r, "VPCNET_MAX_PODS"),
        provisioning: !(r.bool("DISABLE_NETWORK_RESOURCE_PROVISIONING", false) || imds_only),
    }
}

fn host(r: &mut Reader<'_>) -> HostSettings {
    let ports = match r.text("AWS_VPC_K8S_CNI_RANDOMIZESNAT").as_deref() {
        None | Some("prng") => PortChoice::Random,
        Some("hashrandom") => PortChoice::HashRandom,
        Some("none") => PortChoice::Kernel,
        Some(other) => {
            r.note(format!(
                "AWS_VPC_K8S_CNI_RANDOMIZESNAT={other:?} is none of prng, hashrandom, none: prng is used"
            ));
            PortChoice::Random
        }
    };
    let external_services = r.cidrs("AWS_EXTERNAL_SERVICE_CIDRS");
    if !external_services.is_empty() {
        r.note(
            "AWS_EXTERNAL_SERVICE_CIDRS needs no rules here: packets are marked by where a service's backend is, not by the \
             service's address"
                .into(),
        );
    }
    let veth_prefix = match r.text("AWS_VPC_K8S_CNI_VETHPREFIX") {
        None => "eni".into(),
        // A longer one would not fit the kernel's 15 characters with the 11 of the hash; the three names are the node's own.
        Some(p) if p.len() > 4 || ["eth", "vlan", "lo"].contains(&p.as_str()) => {
            r.note(format!("AWS_VPC_K8S_CNI_VETHPREFIX={p:?} must be at most 4 characters and not eth, vlan or lo: eni is used"));
            "eni".into()
        }
        Some(p) => p,
    };
    HostSettings {
        mtu: r.int_within("AWS_VPC_ENI_MTU", 576, 9001).unwrap_or(9001),
        external_snat: r.bool("AWS_VPC_K8S_CNI_EXTERNALSNAT", false),
        exclude_snat: r.cidrs("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"),
        external_services,
        ports,
        node_port: r.bool("AWS_VPC_CNI_NODE_PORT_SUPPORT", true),
        mark: r.mark("AWS_VPC_K8S_CNI_CONNMARK", 0x80),
        veth_prefix,
    }
}

fn cloud(r: &mut Reader<'_>) -> CloudSettings {
    let seconds = r
        .int("HTTP_TIMEOUT")
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| *n >= 10)
        .unwrap_or(10);
    CloudSettings {
        ec2_endpoint: r
            .text("AWS_ENDPOINT_URL_EC2")
            .or_else(|| r.text("AWS_EC2_ENDPOINT")),
        imds_endpoint: r.text("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        region: r.text("AWS_REGION").or_else(|| r.text("AWS_DEFAULT_REGION")),
        timeout: Duration::from_secs(seconds),
        cluster: r.text("CLUSTER_NAME"),
        tags: additional_tags(r),
        manage_untagged: r.bool("MANAGE_UNTAGGED_ENI", true),
        version: r.text("VPC_CNI_VERSION"),
    }
}

/// Keys that contain `k8s.amazonaws.com` are the agent's own and dropped, as in the original.
fn additional_tags(r: &mut Reader<'_>) -> BTreeMap<String, String> {
    const NAME: &str = "ADDITIONAL_ENI_TAGS";
    let Some(text) = r.text(NAME) else {
        return BTreeMap::new();
    };
    match serde_json::from_str::<BTreeMap<String, String>>(&text) {
        Err(error) => {
            r.note(format!(
                "{NAME} is not a JSON object of strings ({error}): no tags are added"
            ));
            BTreeMap::new()
        }
        Ok(tags) => tags
            .into_iter()
            .filter(|(key, _)| {
                let reserved = key.contains("k8s.amazonaws.com");
                if reserved {
                    r.note(format!("{NAME}: key {key:?} is reserved: dropped"));
                }
                !reserved
            })
            .collect(),
    }
}

fn log(r: &mut Reader<'_>) -> LogSettings {
    let level = match r
        .text("AWS_VPC_K8S_CNI_LOGLEVEL")
        .map(|l| l.to_ascii_lowercase())
        .as_deref()
    {
        Some("info") => tracing::Level::INFO,
        Some("warn") => tracing::Level::WARN,
        Some("error" | "fatal") => tracing::Level::ERROR,
        _ => tracing::Level::DEBUG,
    };
    let target = match r.text("AWS_VPC_K8S_CNI_LOG_FILE").as_deref() {
        None => LogTarget::Default,
        Some("stdout") => LogTarget::Stdout,
        Some("stderr") => LogTarget::Stderr,
        Some(path) => LogTarget::File(path.into()),
    };
    LogSettings { level, target }
}

fn server(r: &mut Reader<'_>, off: &str, name: &str, default: SocketAddr) -> Option<Bind> {
    if r.bool(off, false) {
        return None;
    }
    let Some(text) = r.text(name) else {
        return Some(Bind::Tcp(default));
    };
    Some(parse_bind(&text).unwrap_or_else(|| {
        r.note(format!(
            "{name}={text:?} is neither host:port nor unix:/path: {default} is used"
        ));
        Bind::Tcp(default)
    }))
}

/// Unset means "no policy" and is told to plugins as an empty string; a wrong value must not become that silently.
fn policy_mode(lookup: &Lookup<'_>) -> Result<String, ConfigError> {
    const NAME: &str = "NETWORK_POLICY_ENFORCING_MODE";
    match lookup(NAME) {
        None => Ok(String::new()),
        Some(v) if ["none", "strict", "standard"].contains(&v.to_ascii_lowercase().as_str()) => Ok(v),
        Some(value) => Err(ConfigError::Invalid {
            name: NAME,
            value,
            allowed: "none, standard, strict",
        }),
    }
}

#[cfg(test)]
mod tests;
