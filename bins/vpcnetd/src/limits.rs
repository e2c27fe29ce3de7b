//! What the instance type allows, and how many pods the kubelet may put here.

use std::path::Path;

use vpcnet_ipam::{CardIndex, CardLimits, Limits, Mode, Targets};
use vpcnet_limits::InstanceLimits;

use crate::config::{Config, Family, PoolSettings};

/// What a kubelet usually allows.
const USUAL: u32 = 110;

/// The pool's limits: those of the card the primary interface is on.
#[must_use]
pub fn of_type(limits: &InstanceLimits) -> Limits {
    Limits {
        cards: vec![CardLimits {
            card: CardIndex(limits.default_card),
            interfaces: limits.interfaces,
        }],
        ipv4_per_interface: limits.ipv4_per_interface,
    }
}

/// The targets: the environment's, with max-pods from it, else from the image's file, else by the formula
/// interfaces × (addresses − 1) + 2.
#[must_use]
pub fn targets(settings: &PoolSettings, instance_type: &str, limits: &Limits, file: &Path) -> Targets {
    let max_pods = settings
        .max_pods
        .or_else(|| {
            std::fs::read_to_string(file)
                .ok()
                .and_then(|text| in_file(&text, instance_type))
        })
        .unwrap_or_else(|| by_formula(limits));
    Targets {
        warm_eni: settings.warm_eni,
        warm_ip: settings.warm_ip,
        minimum_ip: settings.minimum_ip,
        warm_prefix: Some(settings.warm_prefix),
        max_eni: settings.max_eni,
        max_pods,
        cooldown: settings.cooldown,
        provisioning: settings.provisioning,
        pod_wait: crate::grpc::POD_WAIT,
        ..Targets::default()
    }
}

/// What is different with IPv6: one prefix is enough for any number of pods, so the number the kubelet usually allows is taken where
/// nobody says how many.
pub fn for_ipv6(targets: &mut Targets, config: &Config, instance_type: &str) {
    if config.family != Family::V6 {
        return;
    }
    targets.mode = Mode::Ipv6;
    let listed = std::fs::read_to_string(crate::config::MAX_PODS_FILE).ok();
    let listed = listed.and_then(|text| in_file(&text, instance_type));
    targets.max_pods = config.pool.max_pods.or(listed).unwrap_or(USUAL);
}

fn by_formula(limits: &Limits) -> u32 {
    let interfaces: u32 = limits.cards.iter().map(|c| c.interfaces).sum();
    interfaces.saturating_mul(limits.per_eni()).saturating_add(2)
}

/// `<type> <number>` lines, `#` comments.
fn in_file(text: &str, instance_type: &str) -> Option<u32> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(instance_type)).then(|| words.next()?.parse().ok())?
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(max_pods: Option<&str>) -> PoolSettings {
        Config::read(&|name| max_pods.filter(|_| name == "VPCNET_MAX_PODS").map(str::to_owned))
            .unwrap()
            .pool
    }

    #[test]
    fn max_pods_comes_from_the_environment_then_the_file_then_the_formula() {
        let limits = of_type(vpcnet_limits::lookup("m5.large").unwrap());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("eni-max-pods.txt");
        assert_eq!(targets(&settings(None), "m5.large", &limits, &file).max_pods, 29);
        std::fs::write(&file, "# m5.large 1\nm5.larger 7\nm5.large 25\n").unwrap();
        assert_eq!(targets(&settings(None), "m5.large", &limits, &file).max_pods, 25);
        assert_eq!(targets(&settings(None), "c5.large", &limits, &file).max_pods, 29);
        assert_eq!(
            targets(&settings(Some("12")), "m5.large", &limits, &file).max_pods,
            12
        );
    }
}
