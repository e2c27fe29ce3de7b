//! The typed configuration: every value the agent can be told, each as what it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::error::ConfigErrors;
use crate::missing::MISSING;
use crate::parse::Bind;
use crate::read::Reading;
use crate::reader::Lookup;
use crate::variables::vars;

/// Log file of the original, on the host's disk as its container sees it.
pub const DEFAULT_LOG_FILE: &str = vars::AWS_VPC_K8S_CNI_LOG_FILE.default;
/// File that images carry with `<instance type> <max pods>` lines.
pub const MAX_PODS_FILE: &str = "/app/eni-max-pods.txt";

/// Which addresses pods get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `ENABLE_IPv4`.
    V4,
    /// `ENABLE_IPv6`.
    V6,
}

/// Pool targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolSettings {
    /// `ENABLE_PREFIX_DELEGATION`: /28 (IPv6: /80) prefixes instead of single addresses.
    pub prefixes: bool,
    /// `WARM_ENI_TARGET`.
    pub warm_eni: u32,
    /// `WARM_IP_TARGET`; `None` also for 0.
    pub warm_ip: Option<u32>,
    /// `MINIMUM_IP_TARGET`; `None` also for 0.
    pub minimum_ip: Option<u32>,
    /// `WARM_PREFIX_TARGET`; 0 is a target too.
    pub warm_prefix: u32,
    /// `MAX_ENI`, 1 or more.
    pub max_eni: Option<u32>,
    /// `IP_COOLDOWN_PERIOD`.
    pub cooldown: Duration,
    /// `VPCNET_MAX_PODS`: over the max-pods file and the formula.
    pub max_pods: Option<u32>,
    /// `VPCNET_WARM_POOL` is `auto`: sized by what comes.
    pub auto: bool,
    /// `VPCNET_NODE_FILE`.
    pub node_file: Option<PathBuf>,
    /// False with `DISABLE_NETWORK_RESOURCE_PROVISIONING` or `ENABLE_IMDS_ONLY_MODE`: nothing is created or given back.
    pub provisioning: bool,
    /// `ENABLE_IMDS_ONLY_MODE`: no EC2 call at all.
    pub imds_only: bool,
    /// False with `DISABLE_LEAKED_ENI_CLEANUP`, IPv6, or without provisioning.
    pub leaked_cleanup: bool,
    /// `AWS_MANAGE_ENIS_NON_SCHEDULABLE`.
    pub manage_when_unschedulable: bool,
}

/// Which of the node's objects names its ENIConfig.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustomNetworking {
    /// `ENI_CONFIG_ANNOTATION_DEF`.
    pub annotation: String,
    /// `ENI_CONFIG_LABEL_DEF`.
    pub label: String,
}

/// Where interfaces come from, and which are used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceSettings {
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG` with its keys; `None`: off.
    pub custom_networking: Option<CustomNetworking>,
    /// `ENABLE_SUBNET_DISCOVERY`; custom networking goes before it.
    pub subnet_discovery: bool,
    /// `ENABLE_MULTI_NIC`: network cards other than the first too.
    pub multi_nic: bool,
}

/// What `POD_SECURITY_GROUP_ENFORCING_MODE` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforcing {
    /// Everything by the branch interface.
    Strict,
    /// On the node and out of the VPC as other pods.
    Standard,
}

impl Enforcing {
    /// As the variable and the plugin's configuration file have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Standard => "standard",
        }
    }
}

/// Security groups for pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchSettings {
    /// `ENABLE_POD_ENI`.
    pub enabled: bool,
    /// `POD_SECURITY_GROUP_ENFORCING_MODE`.
    pub enforcing: Enforcing,
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
    /// Which family's rules and addresses pods have, as [`Config::family`].
    pub family: Family,
    /// `AWS_VPC_ENI_MTU`.
    pub mtu: u32,
    /// `POD_MTU`, else the interfaces'.
    pub pod_mtu: u32,
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
    /// `AWS_VPC_K8S_CNI_CONNMARK`, never 0.
    pub mark: u32,
    /// `AWS_VPC_K8S_CNI_VETHPREFIX`, 1 to 4 characters.
    pub veth_prefix: String,
    /// `VPCNET_PROC_SYS`: where the node's parameters can be written, if that is said.
    pub proc_sys: Option<PathBuf>,
}

/// Reaching the other family by a node-local address and SNAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EgressSettings {
    /// `ENABLE_V4_EGRESS`; false in an IPv4 cluster.
    pub v4: bool,
    /// `ENABLE_V6_EGRESS`; false in an IPv6 cluster.
    pub v6: bool,
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
    /// `ADDITIONAL_ENI_TAGS`, without what EC2 would refuse.
    pub tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`: interfaces without our tags are used too.
    pub manage_untagged: bool,
    /// `VPC_CNI_VERSION`: appended to the user agent.
    pub version: Option<String>,
}

/// The API server, and what is told to other agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KubernetesSettings {
    /// `MY_NODE_NAME`.
    pub node_name: Option<String>,
    /// `MY_POD_NAME`.
    pub pod_name: Option<String>,
    /// `CLUSTER_ENDPOINT`.
    pub endpoint: Option<String>,
    /// `KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    /// `KUBERNETES_SERVICE_HOST`.
    pub service_host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`.
    pub service_port: Option<String>,
    /// `ANNOTATE_POD_IP`.
    pub annotate_pod_ip: bool,
    /// `NETWORK_POLICY_ENFORCING_MODE` as given; empty when unset.
    pub policy_mode: String,
}

/// What goes into the plugins' configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginSettings {
    /// `AWS_VPC_K8S_PLUGIN_LOG_FILE`.
    pub log_file: PathBuf,
    /// `AWS_VPC_K8S_PLUGIN_LOG_LEVEL`, for the egress plugin too.
    pub log_level: LogLevel,
    /// `AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE`.
    pub egress_v4_log_file: PathBuf,
    /// `AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE`.
    pub egress_v6_log_file: PathBuf,
    /// `ENABLE_BANDWIDTH_PLUGIN`.
    pub bandwidth: bool,
    /// `DISABLE_POD_V6`: the tuning plugin switches IPv6 off in pods.
    pub disable_pod_v6: bool,
}

/// Where the installer puts things, and how it prepares the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstallSettings {
    /// `HOST_CNI_BIN_PATH`.
    pub bin_dir: PathBuf,
    /// `HOST_CNI_CONFDIR_PATH`.
    pub conf_dir: PathBuf,
    /// False with `DISABLE_TCP_EARLY_DEMUX`.
    pub tcp_early_demux: bool,
}

/// Least severity that is logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warn,
    /// What went wrong; also `fatal`.
    Error,
}

impl LogLevel {
    /// As the variables have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
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
    /// Not set: the original's file where its directory is mounted, else stderr.
    Default,
}

/// The log's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`.
    pub level: LogLevel,
    /// `AWS_VPC_K8S_CNI_LOG_FILE`.
    pub target: LogTarget,
}

/// Everything the agent reads from its environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Which addresses pods get.
    pub family: Family,
    /// Pool targets.
    pub pool: PoolSettings,
    /// Interfaces and subnets.
    pub interfaces: InterfaceSettings,
    /// Security groups for pods.
    pub branch: BranchSettings,
    /// Host network.
    pub host: HostSettings,
    /// Egress of the other family.
    pub egress: EgressSettings,
    /// EC2 and IMDS.
    pub cloud: CloudSettings,
    /// The API server.
    pub kubernetes: KubernetesSettings,
    /// The plugins' configuration file.
    pub plugin: PluginSettings,
    /// The node's preparation.
    pub install: InstallSettings,
    /// Log.
    pub log: LogSettings,
    /// `VPCNET_SOCKET`.
    pub socket: PathBuf,
    /// `AWS_VPC_K8S_CNI_BACKING_STORE`.
    pub checkpoint: PathBuf,
    /// `VPCNET_STATE`, else beside the checkpoint: our own state.
    pub state: PathBuf,
    /// Metrics server; `None` with `DISABLE_METRICS`.
    pub metrics: Option<Bind>,
    /// Introspection server; `None` with `DISABLE_INTROSPECTION`.
    pub introspection: Option<Bind>,
    /// What was not as it should be, one sentence each. Filled by [`Reading::accept`].
    pub notes: Vec<String>,
}

impl Default for Config {
    /// What an environment that says nothing gives.
    fn default() -> Self {
        Reading::of(&|_| None).config
    }
}

impl Config {
    /// Whether addresses of all network cards are used, and not only of the first. IPv6 prefixes lie on the first only.
    #[must_use]
    pub fn uses_all_cards(&self) -> bool {
        self.interfaces.multi_nic && self.family == Family::V4
    }

    /// What these settings ask for, only the API server can tell or take. The agent starts without it: what it said last holds.
    #[must_use]
    pub fn needs_api_server(&self) -> bool {
        self.branch.enabled || self.interfaces.custom_networking.is_some() || self.kubernetes.annotate_pod_ip
    }

    /// What the agent starts with.
    ///
    /// # Errors
    /// [`ConfigErrors`] for what must not be passed over, and for what [`MISSING`] refuses; all else becomes a note.
    pub fn read(lookup: &Lookup<'_>) -> Result<Self, ConfigErrors> {
        Reading::of(lookup).without(MISSING).accept()
    }
}
