//! What the pool is to aim at on this node: the environment's targets, what holds for this node only, and the subnets that were
//! found for it. Whoever learns something puts it here; the pool is told the sum.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use vpcnet_ipam::{CustomNetwork, Event, Limits, Mode, SubnetId, Subnets, Targets, ZoneSubnet};

use crate::config::{Config, Family, MAX_PODS_FILE};
use crate::core::CoreHandle;
use crate::limits;
use crate::logging::lock;
use crate::node_file::NodeValues;

/// The subnets of the node's zone in its VPC, as EC2 last described them. Kept over restarts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Zone {
    /// When; nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// What decides whether they are used.
    pub subnets: BTreeMap<SubnetId, ZoneSubnet>,
    /// Their IPv4 ranges.
    pub cidrs: BTreeMap<SubnetId, Ipv4Net>,
}

/// The sum, and what it is made of.
pub struct Aims {
    config: Arc<Config>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    instance_type: String,
    limits: Limits,
    primary: Option<SubnetId>,
    zone: Option<Zone>,
    node: NodeValues,
    cluster: NodeValues,
}

impl Known {
    /// What holds for this node only: what somebody hands in goes before what its objects say.
    fn node_values(&self) -> NodeValues {
        self.node.over(&self.cluster)
    }
}

impl Aims {
    /// With the environment only.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            known: Mutex::default(),
        }
    }

    /// The machine is known. `zone`: what an earlier life knew.
    pub fn set_machine(
        &self,
        instance_type: &str,
        limits: &Limits,
        primary: Option<SubnetId>,
        zone: Option<Zone>,
    ) {
        let mut known = lock(&self.known);
        instance_type.clone_into(&mut known.instance_type);
        known.limits = limits.clone();
        known.primary = primary;
        if zone.is_some() {
            known.zone = zone;
        }
    }

    /// The zone's subnets were described.
    pub fn set_zone(&self, zone: Zone) {
        lock(&self.known).zone = Some(zone);
    }

    /// What holds for this node only.
    pub fn set_node(&self, node: NodeValues) {
        lock(&self.known).node = node;
    }

    /// What the node's objects in Kubernetes say.
    pub fn set_cluster(&self, node: NodeValues) {
        lock(&self.known).cluster = node;
    }

    /// The zone's subnets matter: new interfaces may be made, in one of several of them.
    #[must_use]
    pub fn needs_zone(&self) -> bool {
        let interfaces = &self.config.interfaces;
        self.config.pool.provisioning
            && self.config.family == Family::V4
            && (interfaces.subnet_discovery || interfaces.custom_networking.is_some())
    }

    /// When the zone's subnets were described; nanoseconds since the Unix epoch.
    #[must_use]
    pub fn zone_at_ns(&self) -> Option<i64> {
        lock(&self.known).zone.as_ref().map(|z| z.at_ns)
    }

    /// The IPv4 range of a subnet of the zone, if it was described.
    #[must_use]
    pub fn cidr(&self, subnet: &SubnetId) -> Option<Ipv4Net> {
        lock(&self.known).zone.as_ref()?.cidrs.get(subnet).copied()
    }

    /// The targets in force.
    #[must_use]
    pub fn targets(&self) -> Targets {
        targets(&self.config, &lock(&self.known), MAX_PODS_FILE.as_ref())
    }

    /// Whether a new interface may lie in a subnet, by what is known now.
    #[must_use]
    pub fn may_use(&self, subnet: &SubnetId) -> bool {
        let known = lock(&self.known);
        let wanted = subnets(&self.config, &known);
        let named = match &wanted.custom {
            Some(custom) => custom.subnets.contains(subnet),
            None if wanted.candidates.is_empty() => known.primary.as_ref() == Some(subnet),
            None => wanted.candidates.contains(subnet),
        };
        named && !wanted.excluded.contains(subnet)
    }

    /// Tells the pool.
    pub fn tell(&self, core: &CoreHandle) {
        core.event(Event::TargetsChanged(self.targets()));
        self.facts().into_iter().for_each(|fact| core.event(fact));
    }

    /// What the zone's subnets have left, for a pool that begins.
    #[must_use]
    pub fn facts(&self) -> Vec<Event> {
        let known = lock(&self.known);
        let zone = known.zone.iter().flat_map(|z| &z.subnets);
        zone.map(|(id, subnet)| Event::SubnetFacts {
            subnet: id.clone(),
            free_addresses: subnet.free_addresses,
            free_prefixes: None,
        })
        .collect()
    }

    /// What an operator should know of it, a sentence each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let known = lock(&self.known);
        let Some(_) = &self.config.interfaces.custom_networking else {
            return Vec::new();
        };
        let Some(config) = &known.node_values().eni_config else {
            return vec![
                "custom networking is on and no ENIConfig is known for this node: no interface is made (the node's annotation or label in Kubernetes names it, or VPCNET_NODE_FILE)"
                    .into(),
            ];
        };
        let name = &config.name;
        if config.subnets.is_empty() {
            return vec![format!("ENIConfig {name} names no subnet: no interface is made")];
        }
        let elsewhere = |id: &&SubnetId| known.zone.as_ref().is_some_and(|z| !z.subnets.contains_key(*id));
        config
            .subnets
            .iter()
            .filter(elsewhere)
            .map(|id| {
                format!("ENIConfig {name}: {id} is no subnet of this node's zone and VPC: interfaces cannot lie in it")
            })
            .collect()
    }
}

fn targets(config: &Config, known: &Known, max_pods_file: &Path) -> Targets {
    let pool = &config.pool;
    let mode = mode(config, &known.instance_type);
    let node = known.node_values();
    // The kubelet's own word goes before any list or formula.
    let max_pods = pool.max_pods.or(node.max_pods);
    let targets = Targets {
        warm_eni: pool.warm_eni,
        warm_ip: pool.warm_ip,
        minimum_ip: pool.minimum_ip,
        warm_prefix: Some(pool.warm_prefix),
        max_eni: pool.max_eni,
        max_pods: max_pods.unwrap_or_else(|| {
            limits::max_pods(pool, mode, &known.instance_type, &known.limits, max_pods_file)
        }),
        cooldown: pool.cooldown,
        auto: pool.auto,
        mode,
        provisioning: pool.provisioning,
        imds_only: pool.imds_only,
        unschedulable: node.unschedulable && !pool.manage_when_unschedulable,
        subnets: subnets(config, known),
        pod_wait: crate::grpc::POD_WAIT,
        ..Targets::default()
    };
    targets.overridden(&node.targets)
}

/// Prefixes need Nitro, or a whole machine (EC2 user guide, "Prefix delegation"); other types have single addresses.
fn mode(config: &Config, instance_type: &str) -> Mode {
    if config.family == Family::V6 {
        Mode::Ipv6
    } else if config.pool.prefixes && limits::takes_prefixes(instance_type) {
        Mode::Prefixes
    } else {
        Mode::SecondaryIp
    }
}

fn subnets(config: &Config, known: &Known) -> Subnets {
    let wanted = &config.interfaces;
    let mut found = match (&known.zone, &known.primary) {
        (Some(zone), Some(primary)) if wanted.subnet_discovery => {
            Subnets::discovered(&zone.subnets, primary, config.cloud.cluster.as_deref())
        }
        _ => Subnets::default(),
    };
    if wanted.custom_networking.is_some() {
        let mut custom: CustomNetwork = known.node_values().eni_config.unwrap_or_default();
        if let Some(zone) = &known.zone {
            let named = std::mem::take(&mut custom.subnets);
            (custom.subnets, custom.elsewhere) =
                named.into_iter().partition(|id| zone.subnets.contains_key(id));
        }
        found.custom = Some(custom);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use vpcnet_ipam::TargetOverrides;

    fn aims(vars: &[(&str, &str)]) -> Aims {
        let config = Config::read(&|name| {
            let found = vars.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_owned())
        })
        .unwrap();
        let aims = Aims::new(Arc::new(config));
        let limits = limits::of_type(vpcnet_limits::lookup("m5.large").unwrap());
        aims.set_machine("m5.large", &limits, Some("subnet-1".into()), None);
        aims
    }

    /// Subnets with their role tags.
    fn zone(all: &[(&str, Option<&str>)]) -> Zone {
        let subnets = all.iter().map(|(id, role)| {
            let tags = role.map(|r| (ROLE.to_owned(), r.to_owned()));
            let subnet = ZoneSubnet {
                free_addresses: 5,
                tags: tags.into_iter().collect(),
            };
            (SubnetId::from(*id), subnet)
        });
        Zone {
            at_ns: 1,
            subnets: subnets.collect(),
            cidrs: BTreeMap::new(),
        }
    }

    fn config(subnets: &[&str]) -> NodeValues {
        NodeValues {
            eni_config: Some(CustomNetwork {
                name: "a".into(),
                subnets: subnets.iter().map(|s| SubnetId::from(*s)).collect(),
                security_groups: vec!["sg-1".into()],
                ..CustomNetwork::default()
            }),
            ..NodeValues::default()
        }
    }

    const ROLE: &str = vpcnet_ipam::ROLE_TAG;
    const CUSTOM: (&str, &str) = ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true");

    #[test]
    fn with_ipv6_each_pod_has_an_address_of_one_prefix_and_the_usual_number_of_them_fits() {
        let ipv6 = [
            ("ENABLE_IPv4", "false"),
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        let targets = aims(&ipv6).targets();
        assert_eq!((targets.mode, targets.max_pods), (Mode::Ipv6, 110));
        let limited = [&ipv6[..], &[("VPCNET_MAX_PODS", "12")]].concat();
        assert_eq!(aims(&limited).targets().max_pods, 12);
    }

    #[test]
    fn the_mode_is_prefixes_where_the_type_takes_them() {
        let prefixes = aims(&[("ENABLE_PREFIX_DELEGATION", "true")]);
        assert_eq!(prefixes.targets().mode, Mode::Prefixes);
        let limits = limits::of_type(vpcnet_limits::lookup("m4.large").unwrap());
        prefixes.set_machine("m4.large", &limits, None, None);
        assert_eq!(prefixes.targets().mode, Mode::SecondaryIp);
        assert_eq!(aims(&[]).targets().mode, Mode::SecondaryIp);
    }

    #[test]
    fn until_the_zone_is_described_the_primary_interfaces_subnet_is_used() {
        let aims = aims(&[]);
        assert!(aims.needs_zone());
        assert_eq!(aims.targets().subnets, Subnets::default());
        assert!(aims.may_use(&"subnet-1".into()));
        assert!(!aims.may_use(&"subnet-2".into()));
        aims.set_zone(zone(&[("subnet-1", Some("0")), ("subnet-2", Some("1"))]));
        assert!(!aims.may_use(&"subnet-1".into()));
        assert!(aims.may_use(&"subnet-2".into()));
        assert_eq!(aims.facts().len(), 2);
    }

    #[test]
    fn without_discovery_no_tag_is_looked_at() {
        let aims = aims(&[("ENABLE_SUBNET_DISCOVERY", "false")]);
        assert!(!aims.needs_zone());
        aims.set_zone(zone(&[("subnet-1", Some("0"))]));
        assert!(aims.may_use(&"subnet-1".into()));
    }

    #[test]
    fn custom_networking_uses_the_configured_subnets_of_the_own_zone() {
        let aims = aims(&[CUSTOM]);
        assert!(!aims.may_use(&"subnet-1".into()));
        assert_eq!(aims.targets().subnets.custom, Some(CustomNetwork::default()));
        assert!(aims.complaints().concat().contains("VPCNET_NODE_FILE"));
        aims.set_node(config(&["subnet-7", "subnet-8"]));
        assert!(aims.may_use(&"subnet-7".into()) && aims.may_use(&"subnet-8".into()));
        assert_eq!(aims.complaints(), Vec::<String>::new());
        aims.set_zone(zone(&[("subnet-1", None), ("subnet-8", None)]));
        assert!(!aims.may_use(&"subnet-7".into()));
        assert!(aims.may_use(&"subnet-8".into()));
        let complaints = aims.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(
            complaints
                .concat()
                .contains("ENIConfig a: subnet-7 is no subnet of this node's zone")
        );
    }

    #[test]
    fn what_is_handed_in_goes_before_what_the_nodes_objects_say_and_both_hold() {
        let aims = aims(&[CUSTOM]);
        let warm = |warm_ip: u32, max_eni: Option<u32>| TargetOverrides {
            warm_ip: Some(warm_ip),
            max_eni,
            ..TargetOverrides::default()
        };
        aims.set_cluster(NodeValues {
            targets: warm(4, Some(2)),
            max_pods: Some(58),
            unschedulable: true,
            ..config(&["subnet-7"])
        });
        let targets = aims.targets();
        assert_eq!((targets.warm_ip, targets.max_eni), (Some(4), Some(2)));
        assert_eq!((targets.max_pods, targets.unschedulable), (58, true));
        assert!(aims.may_use(&"subnet-7".into()));
        aims.set_node(NodeValues {
            targets: warm(9, None),
            ..config(&["subnet-8"])
        });
        let targets = aims.targets();
        assert_eq!(
            (targets.warm_ip, targets.max_eni, targets.max_pods),
            (Some(9), Some(2), 58)
        );
        assert!(!aims.may_use(&"subnet-7".into()) && aims.may_use(&"subnet-8".into()));
    }

    #[test]
    fn the_environments_max_pods_goes_before_the_kubelets() {
        let aims = aims(&[("VPCNET_MAX_PODS", "20")]);
        aims.set_cluster(NodeValues {
            max_pods: Some(58),
            ..NodeValues::default()
        });
        assert_eq!(aims.targets().max_pods, 20);
    }

    #[test]
    fn the_nodes_own_targets_go_before_the_environments() {
        let aims = aims(&[("WARM_IP_TARGET", "3"), ("MAX_ENI", "2")]);
        aims.set_node(NodeValues {
            targets: TargetOverrides {
                warm_ip: Some(9),
                ..TargetOverrides::default()
            },
            unschedulable: true,
            ..NodeValues::default()
        });
        let targets = aims.targets();
        assert_eq!((targets.warm_ip, targets.max_eni), (Some(9), Some(2)));
        assert!(targets.unschedulable);
        let managed = self::aims(&[("AWS_MANAGE_ENIS_NON_SCHEDULABLE", "true")]);
        managed.set_node(NodeValues {
            unschedulable: true,
            ..NodeValues::default()
        });
        assert!(!managed.targets().unschedulable);
    }
}
