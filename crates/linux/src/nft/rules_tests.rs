//! The objects of the table for every kind of configuration.

use super::*;
use crate::earlier::Earlier;
use proptest::prelude::*;

fn config() -> SnatConfig {
    SnatConfig {
        primary_ip: Ipv4Addr::new(10, 0, 0, 10),
        primary_link: "eth0".into(),
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        exclude: vec![],
        external_snat: false,
        randomize: Randomize::Prng,
        node_port: true,
        mark: 0x80,
        veth_prefix: "eni".into(),
        earlier: Earlier::default(),
    }
}

fn chains_of(config: &SnatConfig) -> Vec<String> {
    let name = |object: &NfListObject<'_>| match object {
        NfListObject::Chain(chain) => Some(chain.name.to_string()),
        _ => None,
    };
    table(config).iter().filter_map(name).collect()
}

fn rules_of(config: &SnatConfig, name: &str) -> usize {
    let of = |object: &NfListObject<'_>| matches!(object, NfListObject::Rule(rule) if rule.chain == name);
    table(config).iter().filter(|object| of(object)).count()
}

#[test]
fn what_would_translate_the_vpcs_own_traffic_is_refused() {
    assert!(validate(&config()).is_ok());
    assert!(
        validate(&SnatConfig {
            vpc_cidrs: vec![],
            ..config()
        })
        .is_err()
    );
    assert!(
        validate(&SnatConfig {
            vpc_cidrs: vec![],
            external_snat: true,
            ..config()
        })
        .is_ok()
    );
    assert!(validate(&SnatConfig { mark: 0, ..config() }).is_err());
    for odd in ["", "*", "a b", "sixteen-bytes-xx", "a\"b"] {
        assert!(
            validate(&SnatConfig {
                veth_prefix: odd.into(),
                ..config()
            })
            .is_err(),
            "{odd:?}"
        );
        assert!(
            validate(&SnatConfig {
                primary_link: odd.into(),
                ..config()
            })
            .is_err(),
            "{odd:?}"
        );
    }
}

#[test]
fn without_snat_only_connections_are_followed_and_what_is_left_of_earlier_ones_is_kept() {
    let external = SnatConfig {
        external_snat: true,
        node_port: false,
        ..config()
    };
    assert_eq!(chains_of(&external), [RESTORE_MARK]);
    assert_eq!(rules_of(&external, RESTORE_MARK), 1);
    let kept = SnatConfig {
        earlier: Earlier {
            translation: true,
            ..Earlier::default()
        },
        ..external
    };
    assert_eq!(
        chains_of(&kept),
        [RESTORE_MARK, SOURCE_NAT],
        "the NAT chain keeps the kernel's hooks in place"
    );
    assert_eq!(rules_of(&kept, SOURCE_NAT), 0);
}

#[test]
fn excluding_everything_translates_nothing() {
    let all = SnatConfig {
        exclude: vec!["0.0.0.0/0".parse().unwrap()],
        ..config()
    };
    assert!(config().translates() && !all.translates());
    assert_eq!(chains_of(&all), [RESTORE_MARK]);
}

#[test]
fn earlier_marks_are_restored_and_not_set_and_pods_of_earlier_prefixes_are_pods() {
    let earlier = Earlier {
        marks: [0x80, 0x100].into(),
        prefixes: ["abc".to_owned()].into(),
        translation: true,
    };
    let config = SnatConfig { earlier, ..config() };
    // The NodePort's; two marks for two prefixes.
    assert_eq!(rules_of(&config, RESTORE_MARK), 1 + 2 * 2);
    // What is known already; connection and packet for two prefixes.
    assert_eq!(rules_of(&config, SET_MARK), 1 + 2 * 2);
    assert_eq!(rules_of(&config, SOURCE_NAT), 1);
    let odd = |earlier| SnatConfig {
        earlier,
        ..config.clone()
    };
    let no_mark = Earlier {
        marks: [0].into(),
        ..Earlier::default()
    };
    let no_name = Earlier {
        prefixes: ["a b".to_owned()].into(),
        ..Earlier::default()
    };
    assert!(validate(&config).is_ok());
    assert!(validate(&odd(no_mark)).is_err() && validate(&odd(no_name)).is_err());
}

proptest! {
    #[test]
    fn exempt_nets_never_overlap_and_cover_all(nets in proptest::collection::vec((any::<[u8; 4]>(), 1u8..=32), 1..12)) {
        let nets: Vec<Ipv4Net> = nets.into_iter().map(|(a, l)| Ipv4Net::new(a.into(), l).unwrap()).collect();
        let config = SnatConfig { exclude: nets.clone(), ..config() };
        let exempt = exempt(&config);
        for (i, one) in exempt.iter().enumerate() {
            prop_assert!(!exempt[i + 1..].iter().any(|other| one.contains(other) || other.contains(one)));
        }
        for net in nets.iter().chain(&config.vpc_cidrs) {
            prop_assert!(exempt.iter().any(|e| e.contains(&net.trunc())));
        }
    }
}
