//! `vpcnet max-pods`: what kubelet's `--max-pods` may be on an instance type, with the flags and sums of the calculator that AMIs
//! for EKS carried, and the list of all types that images carry. Asks nobody but, for `--instance-type-from-imds`, IMDS.

use std::process::ExitCode;

use clap::Args;
use vpcnet_limits::{Hypervisor, InstanceLimits};

use crate::install;
use crate::primary;

/// Addresses of a /28.
const PREFIX: u32 = 16;
/// Pods that use the node's own address, at least: the agent's and kube-proxy.
const HOST_PODS: u32 = 2;
/// What Kubernetes is tested with, on machines of up to 30 processors and on larger ones.
const USUAL: (u32, u32) = (110, 250);
/// Up to so many processors a machine is a small one.
const SMALL: u32 = 30;
/// The first release of amazon-vpc-cni-k8s that has prefixes.
const WITH_PREFIXES: (u32, u32) = (1, 9);

/// What is asked.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(crate) struct Options {
    /// The instance type, such as m5.large
    #[arg(long, value_name = "TYPE", group = "which")]
    instance_type: Option<String>,
    /// The type of the instance this runs on, as IMDS says
    #[arg(long, group = "which")]
    instance_type_from_imds: bool,
    /// All types, in the form of eni-max-pods.txt
    #[arg(long, group = "which", conflicts_with_all = ["cni_version", "cni_custom_networking_enabled", "cni_prefix_delegation_enabled", "cni_max_eni", "show_max_allowed", "vcpus"])]
    table: bool,
    /// Release of amazon-vpc-cni-k8s that is asked about: before 1.9 there are no prefixes [default: vpcnet itself, which has them]
    #[arg(long, value_name = "X.Y.Z", value_parser = release)]
    cni_version: Option<(u32, u32)>,
    /// AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: the primary interface serves no pods
    #[arg(long)]
    cni_custom_networking_enabled: bool,
    /// ENABLE_PREFIX_DELEGATION
    #[arg(long)]
    cni_prefix_delegation_enabled: bool,
    /// MAX_ENI
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cni_max_eni: Option<u32>,
    /// What addresses allow, also above 110 (250 from 31 processors on)
    #[arg(long)]
    show_max_allowed: bool,
    /// Processors of the type [default: by its size]
    #[arg(long, value_name = "N")]
    vcpus: Option<u32>,
}

/// It cannot be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaxPodsError {
    /// The table does not have the type.
    #[error(
        "no instance type {0:?} is known to this version; EC2 spells types in lower case, such as m5.large"
    )]
    Unknown(String),
    /// Not by the name.
    #[error(
        "how many processors {0} has is not known from its name: say it with --vcpus, or ask for --show-max-allowed"
    )]
    Processors(String),
    /// IMDS.
    #[error("the instance type is not known: {0}")]
    Imds(#[from] vpcnet_cloud::ImdsError),
    /// A setting for IMDS.
    #[error(transparent)]
    Endpoint(#[from] vpcnet_cloud::ConfigError),
    /// The environment.
    #[error(transparent)]
    Config(#[from] vpcnet_config::ConfigErrors),
}

fn release(text: &str) -> Result<(u32, u32), String> {
    let plain = text.strip_prefix('v').unwrap_or(text);
    let mut numbers = plain.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err("a release such as 1.19.2 was expected".into()),
    }
}

/// Answers.
///
/// # Errors
/// [`MaxPodsError`], or what printing gives.
pub(crate) async fn run(options: Options) -> Result<ExitCode, crate::Failure> {
    if options.table {
        crate::print(&table())?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = name(&options).await?;
    let limits = vpcnet_limits::lookup(&name).ok_or_else(|| MaxPodsError::Unknown(name.clone()))?;
    let allowed = allowed(limits, &options);
    let pods = if options.show_max_allowed {
        allowed
    } else {
        let processors = options.vcpus.or_else(|| processors(&name));
        let processors = processors.ok_or_else(|| MaxPodsError::Processors(name.clone()))?;
        let (small, large) = USUAL;
        allowed.min(if processors > SMALL { large } else { small })
    };
    crate::print(&format!("{pods}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn name(options: &Options) -> Result<String, MaxPodsError> {
    match &options.instance_type {
        Some(name) => Ok(name.clone()),
        None => {
            let imds = primary::imds(&install::environment()?)?;
            Ok(imds.require("instance-type").await?)
        }
    }
}

/// What the addresses allow.
fn allowed(limits: &InstanceLimits, options: &Options) -> u32 {
    let interfaces = options
        .cni_max_eni
        .map_or(limits.interfaces, |most| most.min(limits.interfaces));
    let interfaces = interfaces.saturating_sub(u32::from(options.cni_custom_networking_enabled));
    let nitro = limits.bare_metal || !matches!(limits.hypervisor, Hypervisor::Xen);
    let prefixes = options.cni_prefix_delegation_enabled
        && nitro
        && options.cni_version.is_none_or(|release| release >= WITH_PREFIXES);
    let each = if prefixes { PREFIX } else { 1 };
    let places = interfaces.saturating_mul(limits.ipv4_per_interface.saturating_sub(1));
    places.saturating_mul(each).saturating_add(HOST_PODS)
}

/// All types, as `eni-max-pods.txt` lists them.
fn table() -> String {
    let mut text = String::from(
        "# Pods that get an address of their own, and two that use the node's, for each instance type:\n\
         # interfaces of the default network card * (IPv4 addresses of an interface - 1) + 2\n\
         # Made by `vpcnet max-pods --table`.\n",
    );
    for limits in vpcnet_limits::all() {
        let pods = vpcnet_limits::max_pods(&limits);
        text.push_str(&format!("{} {pods}\n", limits.instance_type));
    }
    text
}

/// Processors by the type's size: an `xlarge` has four, and an `Nxlarge` N times as many, but for a few.
fn processors(name: &str) -> Option<u32> {
    const OTHERS: [(&str, u32); 9] = [
        ("a1.metal", 16),
        ("hs1.8xlarge", 16),
        ("hpc7a.12xlarge", 24),
        ("hpc7a.24xlarge", 48),
        ("m2.2xlarge", 4),
        ("m2.4xlarge", 8),
        ("mac1.metal", 12),
        ("g2.2xlarge", 8),
        ("f1.2xlarge", 8),
    ];
    if let Some((_, n)) = OTHERS.iter().find(|(other, _)| *other == name) {
        return Some(*n);
    }
    let (family, size) = name.split_once('.')?;
    match size {
        "nano" | "micro" | "small" | "medium" | "large" => return Some(2),
        "xlarge" => return Some(4),
        // Macs have 8 to 12; all other whole machines more than 30.
        "metal" if family.starts_with("mac") => return Some(12),
        "metal" => return Some(SMALL + 1),
        _ => {}
    }
    let factor = size
        .strip_suffix("xlarge")
        .or_else(|| size.strip_prefix("metal-")?.strip_suffix("xl"))?;
    factor.parse::<u32>().ok()?.checked_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str) -> Options {
        Options {
            instance_type: Some(name.into()),
            instance_type_from_imds: false,
            table: false,
            cni_version: None,
            cni_custom_networking_enabled: false,
            cni_prefix_delegation_enabled: false,
            cni_max_eni: None,
            show_max_allowed: false,
            vcpus: None,
        }
    }

    fn pods(name: &str, change: impl FnOnce(&mut Options)) -> u32 {
        let mut options = options(name);
        change(&mut options);
        allowed(vpcnet_limits::lookup(name).unwrap(), &options)
    }

    #[test]
    fn the_calculators_sums() {
        assert_eq!(pods("m5.large", |_| {}), 29);
        assert_eq!(pods("m5.large", |o| o.cni_custom_networking_enabled = true), 20);
        assert_eq!(pods("m5.large", |o| o.cni_max_eni = Some(1)), 11);
        assert_eq!(pods("m5.large", |o| o.cni_max_eni = Some(9)), 29);
        let prefixes = |o: &mut Options| o.cni_prefix_delegation_enabled = true;
        assert_eq!(pods("m5.large", prefixes), 434);
        assert_eq!(pods("m4.large", prefixes), 20, "Xen has no prefixes");
        let old = |o: &mut Options| {
            o.cni_prefix_delegation_enabled = true;
            o.cni_version = Some((1, 8));
        };
        assert_eq!(pods("m5.large", old), 29);
    }

    #[test]
    fn the_list_has_every_type_once_with_the_published_number() {
        let text = table();
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        for line in [
            "t3.small 11",
            "m5.large 29",
            "c5.4xlarge 234",
            "m5.24xlarge 737",
            "p5.48xlarge 100",
        ] {
            assert!(lines.contains(&line), "{line}");
        }
        assert!(lines.len() > 1000);
        assert!(
            lines.windows(2).all(|pair| pair[0] < pair[1]),
            "sorted, none twice"
        );
    }

    #[test]
    fn processors_follow_from_the_size() {
        for (name, few) in [
            ("m5.large", true),
            ("c5.4xlarge", true),
            ("m6i.6xlarge", true),
            ("m5.8xlarge", false),
            ("m7i.metal-24xl", false),
            ("c5.metal", false),
            ("a1.metal", true),
            ("mac2.metal", true),
            ("hpc7a.12xlarge", true),
        ] {
            assert_eq!(processors(name).unwrap() <= SMALL, few, "{name}");
        }
        for name in ["", "m5", "m5.huge", "m5.9999999999xlarge"] {
            assert_eq!(processors(name), None, "{name}");
        }
        for limits in vpcnet_limits::all() {
            assert!(
                processors(&limits.instance_type).is_some(),
                "{}",
                limits.instance_type
            );
        }
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(release("1.10.4"), Ok((1, 10)));
        assert_eq!(release("v1.9.0-eksbuild.1"), Ok((1, 9)));
        assert!(release("latest").is_err());
    }
}
