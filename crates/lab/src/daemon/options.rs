//! How a lab is started; the same for `up`, for the demo, and for the daemon itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ipnet::Ipv4Net;

use crate::error::LabError;
use crate::kubernetes::{CONTROL_PLANE, ProxyMode};
use crate::model::{
    NodeSpec, Policy, Reservation, ReservationKind, RoleConfig, Spread, SubnetConfig, SubnetRoute, VpcConfig,
};

/// What `vpcnet lab up` takes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How many nodes to start; they go into the subnets by turns
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub nodes: u32,
    /// Their instance type, which sets how many interfaces and addresses they can have
    #[arg(long = "type", value_name = "TYPE", default_value = "m5.large")]
    pub instance_type: String,
    /// Seed of everything random: ids, addresses, delays, faults [default: a new one, printed]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Each EC2 call takes this long [default: 50 to 150]
    #[arg(long, value_name = "MS")]
    pub ec2_latency: Option<u64>,
    /// IMDS shows a change this much later [default: 200 to 800]
    #[arg(long, value_name = "MS")]
    pub imds_lag: Option<u64>,
    /// Creating, attaching and detaching an interface take this long [default: up to 1300]
    #[arg(long, value_name = "MS")]
    pub attach_delay: Option<u64>,
    /// The VPC has IPv6 beside IPv4, and pods get IPv6 addresses: agents run with ENABLE_IPv6 and ENABLE_PREFIX_DELEGATION
    #[arg(long)]
    pub ipv6: bool,
    /// One more subnet, not for nodes; after the zone's letter tags. May be repeated
    #[arg(long, value_name = "NAME=CIDR,ZONE[,TAG=VALUE]…")]
    pub subnet: Vec<String>,
    /// One address of each /28 of this subnet is reserved: it has no prefix to give. May be repeated
    #[arg(long, value_name = "SUBNET")]
    pub fragment: Vec<String>,
    /// An IAM policy (JSON): what the nodes' role may do, and nothing else [default: as AmazonEKS_CNI_Policy]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Start no agents
    #[arg(long)]
    pub no_agent: bool,
    /// A Kubernetes on the nodes, without agents and without a CNI at first
    #[arg(long, conflicts_with = "ipv6")]
    pub kubernetes: bool,
    /// With --kubernetes: kube-proxy's backend
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub kube_proxy: ProxyMode,
    /// For the agents' environment; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
}

impl Options {
    /// The defaults, for callers that parse nothing.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            nodes: 2,
            instance_type: "m5.large".to_owned(),
            seed: None,
            ec2_latency: None,
            imds_lag: None,
            attach_delay: None,
            ipv6: false,
            subnet: Vec::new(),
            fragment: Vec::new(),
            policy: None,
            no_agent: false,
            kubernetes: false,
            kube_proxy: ProxyMode::default(),
            env: Vec::new(),
        }
    }

    /// The same as arguments, with a seed chosen.
    #[must_use]
    pub fn arguments(&self, seed: u64) -> Vec<String> {
        let mut args = vec![
            "--nodes".to_owned(),
            self.nodes.to_string(),
            "--type".to_owned(),
            self.instance_type.clone(),
            "--seed".to_owned(),
            seed.to_string(),
        ];
        let timings = [
            ("--ec2-latency", self.ec2_latency),
            ("--imds-lag", self.imds_lag),
            ("--attach-delay", self.attach_delay),
        ];
        for (name, value) in timings.into_iter().filter_map(|(n, v)| Some((n, v?))) {
            args.extend([name.to_owned(), value.to_string()]);
        }
        if self.ipv6 {
            args.push("--ipv6".to_owned());
        }
        for (name, values) in [("--subnet", &self.subnet), ("--fragment", &self.fragment)] {
            for value in values {
                args.extend([name.to_owned(), value.clone()]);
            }
        }
        if let Some(file) = &self.policy {
            args.extend(["--policy".to_owned(), file.display().to_string()]);
        }
        if self.no_agent {
            args.push("--no-agent".to_owned());
        }
        if self.kubernetes {
            args.push("--kubernetes".to_owned());
        }
        args.extend(["--kube-proxy".to_owned(), self.kube_proxy.name().to_owned()]);
        for pair in &self.env {
            args.extend(["--env".to_owned(), pair.clone()]);
        }
        args
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// [`LabError::Usage`] for a subnet that is none, or is not there, and for a policy that is none; [`LabError::File`] for one
    /// that cannot be read.
    pub fn config(&self) -> Result<VpcConfig, LabError> {
        let mut config = VpcConfig::default();
        for text in &self.subnet {
            config.subnets.push(subnet(text)?);
        }
        for name in &self.fragment {
            fragment(&mut config, name)?;
        }
        // Subnets that were added get their part as well.
        if self.ipv6 {
            config = config.dual_stack();
        }
        if let Some(file) = &self.policy {
            let policy = policy(file)?;
            let nodes = config.roles.iter_mut().filter(|r| r.name == RoleConfig::NODE);
            nodes.for_each(|role| role.policy = policy.clone());
        }
        let exactly = |ms: u64| Spread::exactly(Duration::from_millis(ms));
        let timing = &mut config.timing;
        if let Some(ms) = self.ec2_latency {
            timing.ec2_latency = exactly(ms);
        }
        if let Some(ms) = self.imds_lag {
            timing.imds_lag = exactly(ms);
        }
        if let Some(ms) = self.attach_delay {
            (timing.attach, timing.detach, timing.create) = (exactly(ms), exactly(ms), Spread::ZERO);
        }
        Ok(config)
    }

    /// What tells the agents which family pods have; what the user sets comes later, and counts.
    #[must_use]
    pub fn family_env(&self) -> Vec<(String, String)> {
        let ipv6 = [
            ("ENABLE_IPv4", "false"),
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        let wanted = ipv6.iter().filter(|_| self.ipv6);
        wanted.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// Whether nodes get an agent from the lab when they start. On Kubernetes' nodes a DaemonSet's pods are the agents.
    #[must_use]
    pub fn with_agents(&self) -> bool {
        !self.no_agent && !self.kubernetes
    }

    /// The instance of Kubernetes' control plane: in a private subnet, where there is one.
    #[must_use]
    pub fn control_plane(&self, config: &VpcConfig) -> NodeSpec {
        let subnets = config.subnets.iter().take(config.node_subnets);
        let private = subnets.clone().find(|s| s.route == SubnetRoute::Private);
        NodeSpec {
            subnet: private.map(|s| s.name.clone()),
            ..NodeSpec::new(CONTROL_PLANE, "m5.large")
        }
    }

    /// The `n`th node, from 1.
    #[must_use]
    pub fn node(&self, n: u32) -> NodeSpec {
        NodeSpec::new(&format!("node-{n}"), &self.instance_type)
    }
}

/// `NAME=CIDR,ZONE` and tags; its way to the internet is the NAT gateway.
fn subnet(text: &str) -> Result<SubnetConfig, LabError> {
    let usage = |what: &str| {
        LabError::Usage(format!(
            "--subnet {text}: {what}; expected NAME=CIDR,ZONE[,TAG=VALUE]…, as pods-a=10.0.64.0/20,a"
        ))
    };
    let (name, rest) = pair(text).map_err(|_| usage("there is no name"))?;
    let mut parts = rest.split(',');
    let cidr = parts.next().unwrap_or_default();
    let cidr: Ipv4Net = cidr
        .parse()
        .map_err(|_| usage(&format!("'{cidr}' is no IPv4 CIDR")))?;
    let mut letters = parts.next().unwrap_or_default().chars();
    let (Some(zone @ 'a'..='z'), None) = (letters.next(), letters.next()) else {
        return Err(usage("the zone is not one letter"));
    };
    let tags = parts.map(pair).collect::<Result<_, _>>();
    Ok(SubnetConfig {
        name,
        cidr,
        ipv6: None,
        zone,
        // Only nodes have public addresses.
        route: SubnetRoute::Private,
        tags: tags.map_err(|_| usage("a tag has no '='"))?,
        reservations: Vec::new(),
    })
}

/// Takes the fourth address of each /28 out of what EC2 chooses from.
fn fragment(config: &mut VpcConfig, name: &str) -> Result<(), LabError> {
    let names: Vec<String> = config.subnets.iter().map(|s| s.name.clone()).collect();
    let Some(subnet) = config.subnets.iter_mut().find(|s| s.name == name) else {
        return Err(LabError::Usage(format!(
            "--fragment {name}: there is no such subnet; there are {}",
            names.join(", ")
        )));
    };
    let blocks = subnet
        .cidr
        .subnets(28)
        .map_err(|_| LabError::Usage(format!("--fragment {name}: {} holds no /28", subnet.cidr)))?;
    let taken = blocks.filter_map(|block| Ipv4Net::new(block.hosts().nth(3)?, 32).ok());
    subnet.reservations.extend(taken.map(|cidr| Reservation {
        cidr,
        kind: ReservationKind::Explicit,
    }));
    Ok(())
}

/// An IAM policy of a file.
///
/// # Errors
/// [`LabError::File`] when it cannot be read, [`LabError::Usage`] when it is none that the lab can judge by.
pub fn policy(file: &Path) -> Result<Policy, LabError> {
    let text = std::fs::read_to_string(file).map_err(LabError::file("read", file))?;
    Policy::parse(&text).map_err(|e| LabError::Usage(format!("{}: {e}", file.display())))
}

/// `KEY=VALUE` as two.
///
/// # Errors
/// [`LabError::Usage`] when there is no `=` or nothing before it.
pub fn pair(text: &str) -> Result<(String, String), LabError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(LabError::Usage(format!("'{text}' is no KEY=VALUE"))),
    }
}

/// A program of the project: where `variable` says, else beside this one.
///
/// # Errors
/// [`LabError::Usage`] that says where it was looked for and how to name another place.
pub fn program(name: &str, variable: &str) -> Result<PathBuf, LabError> {
    let found = program_path(name, variable)?;
    if found.is_file() {
        return Ok(found);
    }
    Err(LabError::Usage(format!(
        "{name} is not at {}: build it ('make build'), or name it in {variable}",
        found.display()
    )))
}

/// Where [`program`] looks, whether it is there or not.
///
/// # Errors
/// [`LabError::File`] when this program's own place cannot be told.
pub fn program_path(name: &str, variable: &str) -> Result<PathBuf, LabError> {
    let found = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe().map_err(LabError::file("find", "this program"))?;
            own.with_file_name(name)
        }
    };
    std::path::absolute(&found).map_err(LabError::file("find", &found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn options_survive_the_way_to_the_daemon() {
        let line = [
            "x",
            "--nodes",
            "3",
            "--type",
            "t3.small",
            "--ec2-latency",
            "400",
            "--subnet",
            "c=10.0.64.0/20,a",
            "--fragment",
            "c",
            "--policy",
            "p.json",
            "--env",
            "A=b c",
            "--no-agent",
            "--ipv6",
            "--kube-proxy",
            "nftables",
        ];
        let first = Line::parse_from(line).options;
        let args = first.arguments(7);
        let second = Line::parse_from(std::iter::once("x".to_owned()).chain(args)).options;
        let expected = Options {
            seed: Some(7),
            ..first
        };
        assert_eq!(format!("{second:?}"), format!("{expected:?}"));
    }

    fn configured(args: &[&str]) -> Result<VpcConfig, String> {
        let line = std::iter::once("x").chain(args.iter().copied());
        Line::parse_from(line).options.config().map_err(|e| e.to_string())
    }

    #[test]
    fn a_subnet_is_added_with_its_tags() {
        let config = configured(&["--subnet", "pods=10.0.64.0/20,b,kubernetes.io/role/cni=1"]).unwrap();
        let subnet = config.subnets.last().unwrap();
        assert_eq!((subnet.name.as_str(), subnet.zone), ("pods", 'b'));
        assert_eq!(subnet.cidr.to_string(), "10.0.64.0/20");
        assert_eq!(subnet.tags["kubernetes.io/role/cni"], "1");
        // No node lies in it.
        assert_eq!((config.node_subnets, config.subnets.len()), (2, 3));
    }

    #[test]
    fn a_subnet_that_is_none_is_refused_with_what_was_expected() {
        for wrong in [
            "10.0.64.0/20,a",
            "=10.0.64.0/20,a",
            "x=10.0.64,a",
            "x=10.0.64.0/20",
            "x=10.0.64.0/20,ab",
            "x=10.0.64.0/20,a,b",
        ] {
            let error = configured(&["--subnet", wrong]).unwrap_err();
            assert!(
                error.contains(wrong) && error.contains("NAME=CIDR,ZONE"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_fragmented_subnet_has_addresses_and_no_prefix() {
        let config = configured(&["--fragment", "subnet-a"]).unwrap();
        let subnet = config.subnets.first().unwrap();
        assert_eq!(subnet.reservations.len(), 256);
        let error = configured(&["--fragment", "subnet-x"]).unwrap_err();
        assert!(
            error.contains("subnet-x") && error.contains("subnet-a, subnet-b"),
            "{error}"
        );
    }

    #[test]
    fn a_policy_that_cannot_be_judged_is_refused_with_its_file_and_the_place_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.json");
        let name = file.display().to_string();
        let missing = configured(&["--policy", &name]).unwrap_err();
        assert!(missing.contains(&name), "{missing}");
        std::fs::write(
            &file,
            r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:*", "NotResource": "*"}}"#,
        )
        .unwrap();
        let wrong = configured(&["--policy", &name]).unwrap_err();
        assert!(
            wrong.contains(&name) && wrong.contains("statement 1") && wrong.contains("NotResource"),
            "{wrong}"
        );
        std::fs::write(
            &file,
            r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}}"#,
        )
        .unwrap();
        let config = configured(&["--policy", &name]).unwrap();
        let role = config.roles.iter().find(|r| r.name == RoleConfig::NODE).unwrap();
        assert_eq!(role.policy, policy(&file).unwrap());
    }

    #[test]
    fn usual_options_are_those_of_an_empty_line() {
        assert_eq!(
            format!("{:?}", Options::usual()),
            format!("{:?}", Line::parse_from(["x"]).options)
        );
    }
}
