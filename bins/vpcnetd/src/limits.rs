//! What the instance type allows, and how many pods the kubelet may put here.

use std::path::Path;

use vpcnet_ipam::{CardIndex, CardLimits, Limits, Mode};
use vpcnet_limits::{CardLimit, Hypervisor, InstanceLimits};

use crate::config::PoolSettings;

/// What a node is assumed to run where nobody says.
const USUAL: u32 = 110;
/// Addresses of a prefix.
const PREFIX: u32 = 16;

/// What the type allows, on all its network cards.
#[must_use]
pub fn of_type(limits: &InstanceLimits) -> Limits {
    let card = |c: &CardLimit| CardLimits {
        card: CardIndex(c.card),
        interfaces: c.interfaces,
    };
    Limits {
        cards: limits.cards.iter().map(card).collect(),
        ipv4_per_interface: limits.ipv4_per_interface,
    }
}

/// Whether interfaces of the type take prefixes (EC2 user guide, "Prefix delegation"): those on the Nitro hypervisor and whole
/// machines do. A type that is not in the table is newer than it, and so one of them.
#[must_use]
pub fn takes_prefixes(instance_type: &str) -> bool {
    vpcnet_limits::lookup(instance_type)
        .is_none_or(|l| l.bare_metal || !matches!(l.hypervisor, Hypervisor::Xen))
}

/// How many pods the kubelet may put here: the environment's word, else the image's list, else by the formula
/// interfaces × (addresses − 1) + 2 of the first card, which is that of EKS's list too; with prefixes at least what the AWS VPC CNI assumes, 110, where they hold as many.
#[must_use]
pub fn max_pods(
    settings: &PoolSettings,
    mode: Mode,
    instance_type: &str,
    limits: &Limits,
    file: &Path,
) -> u32 {
    let listed = || {
        let text = std::fs::read_to_string(file).ok()?;
        in_file(&text, instance_type)
    };
    settings.max_pods.or_else(listed).unwrap_or_else(|| {
        let singles = by_formula(limits, 1);
        match mode {
            Mode::Prefixes => singles.max(USUAL.min(by_formula(limits, PREFIX))),
            // One prefix is enough for any number of pods.
            Mode::Ipv6 => USUAL,
            _ => singles,
        }
    })
}

fn by_formula(limits: &Limits, each: u32) -> u32 {
    let interfaces = limits.cards.first().map_or(0, |c| c.interfaces);
    let places = interfaces.saturating_mul(limits.per_eni());
    places.saturating_mul(each).saturating_add(2)
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
    use crate::config::Config;

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
        let of = |said, kind: &str| max_pods(&settings(said), Mode::SecondaryIp, kind, &limits, &file);
        assert_eq!(of(None, "m5.large"), 29);
        std::fs::write(&file, "# m5.large 1\nm5.larger 7\nm5.large 25\n").unwrap();
        assert_eq!(of(None, "m5.large"), 25);
        assert_eq!(of(None, "c5.large"), 29);
        assert_eq!(of(Some("12"), "m5.large"), 12);
    }

    #[test]
    fn with_prefixes_the_usual_number_of_pods_is_assumed_where_they_fit() {
        let of = |kind: &str| {
            let limits = of_type(vpcnet_limits::lookup(kind).unwrap());
            max_pods(
                &settings(None),
                Mode::Prefixes,
                kind,
                &limits,
                Path::new("/nonexistent"),
            )
        };
        assert_eq!(of("m5.large"), 110);
        // Two interfaces, one prefix each.
        assert_eq!(of("t3.nano"), 34);
        assert_eq!(of("m5.4xlarge"), 234);
    }

    #[test]
    fn prefixes_need_nitro_or_a_whole_machine() {
        assert!(takes_prefixes("m5.large"));
        assert!(takes_prefixes("i3.metal"));
        assert!(!takes_prefixes("m4.large"));
        assert!(takes_prefixes("of-next-year.large"));
    }
}
