//! `diff` against a model of the kernel.

use proptest::prelude::*;

use super::*;
use crate::host::{Primary, Secondary};
use crate::netlink::{Address, Device, PROTO_KERNEL, Scope};

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn link(n: u8) -> Link {
    Link {
        index: u32::from(n) + 1,
        name: format!("eth{n}"),
        mac: Some(mac(n)),
        mtu: 9001,
        up: true,
        loopback: false,
        kind: None,
    }
}

fn secondary(n: u8) -> Secondary {
    Secondary {
        mac: mac(n),
        mtu: 9001,
        address: IpNet::new(IpAddr::from([10, 0, n, 5]), 24).unwrap(),
        gateway: IpAddr::from([10, 0, n, 1]),
        table: u32::from(n) + 1,
        own_rule: OwnRule::Ours,
    }
}

fn wanted() -> HostWanted {
    HostWanted {
        primary: Primary {
            mac: mac(0),
            mtu: 9001,
        },
        secondaries: vec![secondary(1), secondary(2)],
        ipv6: false,
        marks: BTreeSet::from([0x80]),
        services: vec![
            "198.51.100.0/24".parse().unwrap(),
            "192.0.2.9/32".parse().unwrap(),
        ],
        gone: vec![IpAddr::from([10, 0, 9, 5])],
    }
}

/// What the kernel makes of a change.
fn apply(kernel: &mut Observed, change: &Change) {
    match change {
        Change::Sysctl { key, value } => {
            kernel.sysctls.retain(|(k, _)| k != key);
            kernel.sysctls.push((key.clone(), value.clone()));
        }
        Change::Netlink(Request::SetLink { device, up, mtu }) => {
            let link = kernel.links.iter_mut().find(|l| l.index == device.index).unwrap();
            link.up = up.unwrap_or(link.up);
            link.mtu = mtu.unwrap_or(link.mtu);
        }
        Change::Netlink(Request::AddAddress {
            device,
            net,
            no_prefix_route,
            ..
        }) => {
            assert!(no_prefix_route, "the model makes no connected route");
            let address = Address {
                index: device.index,
                net: *net,
                scope: Scope::Universe,
            };
            if !kernel.addresses.contains(&address) {
                kernel.addresses.push(address);
            }
        }
        Change::Netlink(Request::DeleteAddress { device, net }) => {
            let same_subnet = |a: &Address| a.index == device.index && a.net.trunc() == net.trunc();
            let first = kernel
                .addresses
                .iter()
                .find(|a| same_subnet(a))
                .is_some_and(|a| a.net == *net);
            kernel
                .addresses
                .retain(|a| !(a.index == device.index && a.net == *net || first && same_subnet(a)));
        }
        Change::Netlink(Request::ReplaceRoute(route)) => {
            if let Some(old) = kernel
                .routes
                .iter_mut()
                .find(|r| (r.to, r.table) == (route.to, route.table))
            {
                *old = route.clone();
            } else {
                kernel.routes.push(route.clone());
            }
        }
        Change::Netlink(Request::DeleteRoute(route)) => kernel.routes.retain(|r| !same_path(r, route)),
        Change::Netlink(Request::AddRule(rule)) => kernel.rules.push(rule.clone()),
        Change::Netlink(Request::DeleteRule(rule)) => {
            let at = kernel.rules.iter().position(|r| r == rule).unwrap();
            kernel.rules.remove(at);
        }
        Change::Netlink(other) => panic!("diff has no business with {other}"),
    }
}

fn apply_all(kernel: &mut Observed, plan: &Plan) {
    plan.changes.iter().for_each(|change| apply(kernel, change));
}

fn links() -> impl Strategy<Value = Vec<Link>> {
    let one = |n| {
        (
            any::<bool>(),
            prop_oneof![Just(1500u32), Just(9001)],
            proptest::bool::weighted(0.8),
        )
            .prop_map(move |(up, mtu, there)| there.then(|| Link { up, mtu, ..link(n) }))
    };
    (one(0), one(1), one(2), one(3)).prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().collect())
}

fn addresses() -> impl Strategy<Value = Vec<Address>> {
    let one =
        (1u32..5, 1u8..4, prop_oneof![Just(5u8), Just(6), Just(7)]).prop_map(|(index, net, host)| Address {
            index,
            net: IpNet::new(IpAddr::from([10, 0, net, host]), 24).unwrap(),
            scope: Scope::Universe,
        });
    proptest::collection::vec(one, 0..6).prop_map(|mut all| {
        all.sort();
        all.dedup();
        all
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let one =
        (1u32..5, prop_oneof![Just(MAIN), 1u32..5], 1u8..4, 0u8..4).prop_map(|(index, table, net, kind)| {
            let device = Device::new(index, "");
            let gateway = IpAddr::from([10, 0, net, 1]);
            match kind {
                0 => Route::default_by(gateway, device, table, false),
                1 => Route::on_link(gateway.into(), device, table),
                2 => Route::on_link("10.1.0.0/16".parse().unwrap(), device, table),
                _ => Route {
                    source: Some(IpAddr::from([10, 0, net, 5])),
                    protocol: PROTO_KERNEL,
                    ..Route::on_link(
                        IpNet::new(IpAddr::from([10, 0, net, 0]), 24).unwrap(),
                        device,
                        table,
                    )
                },
            }
        });
    proptest::collection::vec(one, 0..8).prop_map(|mut all| {
        all.sort_by_key(|r| (r.to, r.table));
        all.dedup_by_key(|r| (r.to, r.table));
        all
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let one = prop_oneof![
        (1u8..4, 1u32..5).prop_map(|(n, table)| Rule::from(ENI_RULE, IpAddr::from([10, 0, n, 5]), table)),
        (1u32..5).prop_map(|table| Rule::from(ENI_RULE, IpAddr::from([10, 0, 9, 5]), table)),
        (1u32..5).prop_map(|table| Rule::from(ENI_RULE, IpAddr::from([192, 168, 0, 1]), table)),
        prop_oneof![Just(0x80u32), Just(0x100)].prop_map(|mark| Rule {
            mark: Some((mark, mark)),
            ..Rule::bare(MARK_RULE, false, Some(MAIN))
        }),
        Just(Rule::bare(MARK_RULE, false, Some(77))),
        // Of services: wanted, of an earlier setting, all destinations; and somebody else's.
        (0u8..3, prop_oneof![Just(24u8), Just(32), Just(0)]).prop_map(|(net, length)| {
            let to = IpNet::new(IpAddr::from([198, 51, 99 + net, 0]), length).unwrap();
            Rule {
                to: (length > 0).then_some(to),
                ..Rule::bare(SERVICE_RULE, false, Some(MAIN))
            }
        }),
        Just(Rule {
            to: Some("198.51.100.0/24".parse().unwrap()),
            ..Rule::bare(SERVICE_RULE, false, Some(77))
        }),
        Just(Rule {
            iif: Some("eth9".into()),
            ..Rule::bare(SERVICE_RULE, false, Some(MAIN))
        }),
    ];
    proptest::collection::vec(one, 0..8)
}

fn kernels() -> impl Strategy<Value = Observed> {
    let value = || prop_oneof![Just("0"), Just("1"), Just("2")].prop_map(str::to_owned);
    (links(), addresses(), routes(), rules(), value(), value()).prop_map(
        |(links, addresses, routes, rules, forward, filter)| {
            let sysctls = vec![
                ("net/ipv4/ip_forward".to_owned(), forward),
                ("net/ipv4/conf/eth0/rp_filter".to_owned(), filter),
            ];
            Observed {
                links,
                addresses,
                routes,
                rules,
                sysctls,
            }
        },
    )
}

proptest! {
    #[test]
    fn after_the_changes_there_is_nothing_to_change(mut kernel in kernels()) {
        let wanted = wanted();
        let plan = diff(&kernel, &wanted);
        apply_all(&mut kernel, &plan);
        prop_assert_eq!(diff(&kernel, &wanted).changes, vec![]);
    }

    #[test]
    fn after_the_changes_all_that_is_wanted_is_there(mut kernel in kernels()) {
        let wanted = wanted();
        let plan = diff(&kernel, &wanted);
        apply_all(&mut kernel, &plan);
        let marked: Vec<_> = kernel.rules.iter().filter(|r| r.mark.is_some()).cloned().collect();
        prop_assert_eq!(marked, vec![Rule { mark: Some((0x80, 0x80)), ..Rule::bare(MARK_RULE, false, Some(MAIN)) }]);
        let mut services: Vec<_> = kernel.rules.iter().filter(|r| r.priority == SERVICE_RULE && r.table == Some(MAIN) && r.iif.is_none()).map(|r| r.to).collect();
        services.sort();
        prop_assert_eq!(services, vec![Some("192.0.2.9/32".parse().unwrap()), Some("198.51.100.0/24".parse().unwrap())]);
        prop_assert!(!kernel.rules.iter().any(|r| r.from == Some("10.0.9.5/32".parse().unwrap())));
        for one in &wanted.secondaries {
            let Some(link) = kernel.links.iter().find(|l| l.mac == Some(one.mac)) else {
                prop_assert!(plan.missing.contains(&one.mac));
                continue;
            };
            prop_assert!(link.up && link.mtu == one.mtu);
            let own: Vec<_> = kernel.addresses.iter().filter(|a| a.index == link.index).map(|a| a.net).collect();
            prop_assert_eq!(own, vec![one.address]);
            let default = Route::default_by(one.gateway, link.device(), one.table, false);
            prop_assert!(kernel.routes.iter().any(|r| same_path(r, &default)));
            let connected = |r: &&Route| {
                r.table == MAIN && r.to == one.address.trunc() && r.device.as_ref().is_some_and(|d| d.index == link.index)
            };
            prop_assert_eq!(kernel.routes.iter().find(connected), None);
            let from: Vec<_> = kernel.rules.iter().filter(|r| r.from == Some(one.address.addr().into())).cloned().collect();
            prop_assert_eq!(from, vec![Rule::from(ENI_RULE, one.address.addr(), one.table)]);
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone(mut kernel in kernels()) {
        let foreign = |kernel: &Observed| {
            let rules: Vec<_> = kernel.rules.iter().filter(|r| r.table == Some(77) || r.iif.is_some() || r.from == Some("192.168.0.1/32".parse().unwrap())).cloned().collect();
            let routes: Vec<_> = kernel.routes.iter().filter(|r| r.to == "10.1.0.0/16".parse().unwrap()).cloned().collect();
            let links: Vec<_> = kernel.links.iter().filter(|l| l.mac == Some(mac(3))).cloned().collect();
            let addresses: Vec<_> = kernel.addresses.iter().filter(|a| matches!(a.index, 1 | 4)).cloned().collect();
            (rules, routes, links, addresses)
        };
        let before = foreign(&kernel);
        let plan = diff(&kernel, &wanted());
        apply_all(&mut kernel, &plan);
        prop_assert_eq!(foreign(&kernel), before);
    }
}

#[test]
fn a_trunk_has_no_rule_for_its_own_address() {
    let mut kernel = Observed {
        links: vec![link(0), link(1)],
        ..Observed::default()
    };
    let wanted = HostWanted {
        secondaries: vec![Secondary {
            own_rule: OwnRule::None,
            ..secondary(1)
        }],
        ..wanted()
    };
    kernel
        .rules
        .push(Rule::from(ENI_RULE, secondary(1).address.addr(), 2));
    let plan = diff(&kernel, &wanted);
    apply_all(&mut kernel, &plan);
    assert!(!kernel.rules.iter().any(|r| r.priority == ENI_RULE));
}

#[test]
fn rules_that_somebody_else_sees_to_are_neither_made_nor_removed() {
    let address = secondary(1).address.addr();
    let theirs = [
        Rule::from(100, address, 5),
        Rule::from(ENI_RULE, address, 6),
        Rule::from(ENI_RULE, address, 2),
    ];
    for rules in [&theirs[..], &theirs[..1], &[]] {
        let mut kernel = Observed {
            links: vec![link(0), link(1)],
            rules: rules.to_vec(),
            ..Observed::default()
        };
        let wanted = HostWanted {
            secondaries: vec![Secondary {
                own_rule: OwnRule::Foreign,
                ..secondary(1)
            }],
            marks: BTreeSet::new(),
            services: Vec::new(),
            ..wanted()
        };
        let plan = diff(&kernel, &wanted);
        apply_all(&mut kernel, &plan);
        assert_eq!(kernel.rules, rules);
        assert!(kernel.routes.iter().any(|r| r.table == 2 && r.gateway.is_some()));
    }
    let found: Vec<(u32, u32)> = crate::host::rules_from(&theirs, address).collect();
    assert_eq!(found, [(100, 5), (ENI_RULE, 6), (ENI_RULE, 2)]);
}

#[test]
fn an_address_that_serves_again_keeps_its_rule() {
    let mut kernel = Observed {
        links: vec![link(0), link(1)],
        ..Observed::default()
    };
    let again = HostWanted {
        secondaries: vec![secondary(1)],
        gone: vec![secondary(1).address.addr()],
        ..wanted()
    };
    let plan = diff(&kernel, &again);
    apply_all(&mut kernel, &plan);
    assert!(
        kernel
            .rules
            .contains(&Rule::from(ENI_RULE, secondary(1).address.addr(), 2))
    );
    assert_eq!(diff(&kernel, &again).changes, []);
}

#[test]
fn a_vlan_with_its_parents_mac_is_not_the_interface() {
    let vlan = Link {
        index: 40,
        name: "vlan.eth.7".into(),
        mtu: 1500,
        kind: Some("vlan".into()),
        ..link(0)
    };
    let kernel = Observed {
        links: vec![vlan, link(0)],
        ..Observed::default()
    };
    let plan = diff(
        &kernel,
        &HostWanted {
            secondaries: vec![],
            marks: BTreeSet::new(),
            services: vec![],
            ..wanted()
        },
    );
    assert_eq!(plan, Plan::default());
}

#[test]
fn changes_read_as_what_they_do() {
    let kernel = Observed {
        links: vec![Link { mtu: 1500, ..link(0) }],
        sysctls: vec![("net/ipv4/ip_forward".into(), "0".into())],
        ..Observed::default()
    };
    let plan = diff(
        &kernel,
        &HostWanted {
            secondaries: vec![],
            services: vec!["198.51.100.0/24".parse().unwrap()],
            ..wanted()
        },
    );
    let text: Vec<String> = plan.changes.iter().map(Change::to_string).collect();
    assert_eq!(
        text,
        [
            "set link eth0 mtu 9001",
            "set sysctl net/ipv4/ip_forward to 1",
            "add rule 1024: from all fwmark 0x80/0x80 table 254",
            "add rule 1535: from all to 198.51.100.0/24 table 254"
        ]
    );
}

#[test]
fn on_an_ipv6_node_advertisements_are_settled_before_forwarding_and_the_rule_is_of_ipv6() {
    let sysctl = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut kernel = Observed {
        links: vec![link(0)],
        sysctls: vec![
            sysctl("net/ipv6/conf/all/disable_ipv6", "1"),
            sysctl("net/ipv6/conf/eth0/accept_ra", "1"),
            sysctl("net/ipv6/conf/all/forwarding", "0"),
        ],
        ..Observed::default()
    };
    let wanted = HostWanted {
        secondaries: vec![],
        services: vec![],
        ipv6: true,
        ..wanted()
    };
    let plan = diff(&kernel, &wanted);
    let text: Vec<String> = plan.changes.iter().map(Change::to_string).collect();
    assert_eq!(
        text,
        [
            "set sysctl net/ipv6/conf/all/disable_ipv6 to 0",
            "set sysctl net/ipv6/conf/eth0/accept_ra to 2",
            "set sysctl net/ipv6/conf/all/forwarding to 1",
            "add rule 1024: from all fwmark 0x80/0x80 table 254"
        ]
    );
    apply_all(&mut kernel, &plan);
    assert!(kernel.rules.iter().all(|rule| rule.v6), "{:?}", kernel.rules);
    assert_eq!(diff(&kernel, &wanted).changes, []);
}

#[test]
fn a_primary_that_takes_no_advertisements_is_left_so() {
    let kernel = Observed {
        links: vec![link(0)],
        sysctls: vec![("net/ipv6/conf/eth0/accept_ra".into(), "0".into())],
        ..Observed::default()
    };
    let wanted = HostWanted {
        secondaries: vec![],
        services: vec![],
        marks: BTreeSet::new(),
        ipv6: true,
        ..wanted()
    };
    assert_eq!(diff(&kernel, &wanted).changes, []);
}

#[test]
fn the_rule_of_an_earlier_mark_stays_while_it_is_wanted() {
    let rule = |mark| Rule {
        mark: Some((mark, mark)),
        ..Rule::bare(MARK_RULE, false, Some(MAIN))
    };
    let mut kernel = Observed {
        links: vec![link(0)],
        rules: vec![rule(0x80)],
        ..Observed::default()
    };
    assert_eq!(marks(&kernel.rules), BTreeSet::from([0x80]));
    for kept in [
        BTreeSet::from([0x80, 0x100]),
        BTreeSet::from([0x100]),
        BTreeSet::new(),
    ] {
        let wanted = HostWanted {
            secondaries: vec![],
            services: vec![],
            marks: kept.clone(),
            ..wanted()
        };
        let plan = diff(&kernel, &wanted);
        apply_all(&mut kernel, &plan);
        assert_eq!(marks(&kernel.rules), kept);
    }
}

#[test]
fn a_service_of_every_address_is_one_rule() {
    let mut kernel = Observed {
        links: vec![link(0)],
        ..Observed::default()
    };
    let wanted = HostWanted {
        secondaries: vec![],
        services: vec!["0.0.0.0/0".parse().unwrap()],
        ..wanted()
    };
    let plan = diff(&kernel, &wanted);
    apply_all(&mut kernel, &plan);
    assert!(
        kernel
            .rules
            .contains(&Rule::bare(SERVICE_RULE, false, Some(MAIN)))
    );
    assert_eq!(diff(&kernel, &wanted).changes, []);
}
