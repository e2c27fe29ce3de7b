//! What EC2 allows with IPv6 addresses and prefixes, rule by rule, against the model alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use proptest::prelude::*;
use support::Lab;
use vpcnet_lab::model::*;

fn dual() -> Lab {
    Lab::with(VpcConfig::instant().dual_stack(), "m5.large")
}

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn prefixes(lab: &mut Lab, eni: &EniId, wanted: Wanted<Ipv6Net>) -> Result<Vec<Ipv6Net>, ApiError> {
    let ipv6 = WantedIpv6 {
        addresses: Wanted::Count(0),
        prefixes: wanted,
    };
    match lab.ask(Request::AssignIpv6Addresses(AssignIpv6Addresses {
        eni: eni.clone(),
        ipv6,
    }))? {
        Response::AssignedIpv6 { ipv6, .. } => Ok(ipv6.prefixes),
        other => panic!("{other:?}"),
    }
}

fn addresses(lab: &mut Lab, eni: &EniId, wanted: Wanted<Ipv6Addr>) -> Result<Vec<Ipv6Addr>, ApiError> {
    let ipv6 = WantedIpv6 {
        addresses: wanted,
        prefixes: Wanted::Count(0),
    };
    match lab.ask(Request::AssignIpv6Addresses(AssignIpv6Addresses {
        eni: eni.clone(),
        ipv6,
    }))? {
        Response::AssignedIpv6 { ipv6, .. } => Ok(ipv6.addresses),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_comes_up_with_an_address_of_its_subnet_and_imds_tells_it() {
    let mut lab = dual();
    let primary = lab.primary();
    assert_eq!(
        primary.ipv6.addresses,
        ["2001:db8:c10d::4".parse::<Ipv6Addr>().unwrap()]
    );
    let mac = lab.imds("mac").unwrap();
    let field = |lab: &mut Lab, name: &str| lab.imds(&format!("network/interfaces/macs/{mac}/{name}"));
    assert_eq!(lab.imds("ipv6").as_deref(), Some("2001:db8:c10d::4"));
    assert_eq!(field(&mut lab, "ipv6s").as_deref(), Some("2001:db8:c10d::4"));
    assert_eq!(
        field(&mut lab, "vpc-ipv6-cidr-blocks").as_deref(),
        Some("2001:db8:c10d::/56")
    );
    assert_eq!(
        field(&mut lab, "subnet-ipv6-cidr-blocks").as_deref(),
        Some("2001:db8:c10d::/64")
    );
    assert_eq!(field(&mut lab, "ipv6-prefix"), None);
    let got = prefixes(&mut lab, &primary.id, Wanted::Count(1)).unwrap();
    assert_eq!(field(&mut lab, "ipv6-prefix"), Some(got[0].to_string()));
}

#[test]
fn a_vpc_without_ipv6_has_nothing_of_it_and_gives_none() {
    let mut lab = Lab::instant();
    let primary = lab.primary();
    assert_eq!(primary.ipv6, Ipv6::default());
    assert_eq!(lab.imds("ipv6"), None);
    let error = prefixes(&mut lab, &primary.id, Wanted::Count(1)).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    assert!(
        error.message.contains("does not have an IPv6 CIDR block"),
        "{}",
        error.message
    );
    let error = lab.create(|c| c.ipv6.addresses = Wanted::Count(1)).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
}

#[test]
fn a_new_interface_gets_what_is_wanted_and_an_address_of_its_own_at_any_rate() {
    let mut lab = dual();
    let plain = lab.create(|_| ()).unwrap();
    assert_eq!((plain.ipv6.addresses.len(), plain.ipv6.prefixes.len()), (1, 0));
    let named: Ipv6Addr = "2001:db8:c10d::77".parse().unwrap();
    let rich = lab
        .create(|c| {
            c.ipv6.addresses = Wanted::These(vec![named]);
            c.ipv6.prefixes = Wanted::Count(2);
        })
        .unwrap();
    assert_eq!(
        (&rich.ipv6.addresses[..], rich.ipv6.prefixes.len()),
        (&[named][..], 2)
    );
    assert!(
        rich.ipv6
            .prefixes
            .iter()
            .all(|p| p.prefix_len() == 80 && *p == p.trunc())
    );
    let error = lab
        .create(|c| c.ipv6.addresses = Wanted::These(vec![named]))
        .unwrap_err();
    assert_eq!(error.code, "InvalidIPAddress.InUse");
}

#[test]
fn an_interface_has_room_for_as_many_ipv6_addresses_and_prefixes_as_for_ipv4_addresses() {
    let mut lab = dual();
    let eni = lab.primary().id.clone();
    // Ten on an m5.large, one of them taken.
    assert_eq!(prefixes(&mut lab, &eni, Wanted::Count(5)).unwrap().len(), 5);
    assert_eq!(addresses(&mut lab, &eni, Wanted::Count(4)).unwrap().len(), 4);
    let error = prefixes(&mut lab, &eni, Wanted::Count(1)).unwrap_err();
    assert_eq!(error.code, "PrivateIpAddressLimitExceeded");
    // Those of the other family do not count.
    assert_eq!(lab.assign(&eni, Wanted::Count(9)).unwrap().len(), 9);
}

#[test]
fn what_is_named_is_judged_and_nothing_is_taken_when_one_part_cannot_be_had() {
    let mut lab = dual();
    let eni = lab.primary().id.clone();
    let cases = [
        ("2001:db8:c10d:1::/80", "InvalidParameterValue"), // another subnet's
        ("2001:db8:c10d::/80", "InvalidParameterValue"),   // holds addresses EC2 keeps
        ("2001:db8:c10d:0:1::/96", "InvalidParameterValue"), // not a /80
    ];
    for (bad, code) in cases {
        let wanted = Wanted::These(vec![net("2001:db8:c10d:0:9::/80"), net(bad)]);
        assert_eq!(prefixes(&mut lab, &eni, wanted).unwrap_err().code, code, "{bad}");
        assert!(lab.primary().ipv6.prefixes.is_empty(), "{bad}");
    }
    let wanted = net("2001:db8:c10d:0:9::/80");
    assert_eq!(
        prefixes(&mut lab, &eni, Wanted::These(vec![wanted])).unwrap(),
        [wanted]
    );
    // Naming what it has already is no error and brings nothing.
    assert_eq!(prefixes(&mut lab, &eni, Wanted::These(vec![wanted])).unwrap(), []);
    let other = lab.create(|_| ()).unwrap().id.clone();
    let taken = prefixes(&mut lab, &other, Wanted::These(vec![wanted])).unwrap_err();
    assert_eq!(taken.code, "InvalidIPAddress.InUse");
}

#[test]
fn unassigning_frees_what_the_interface_has_and_refuses_what_it_has_not() {
    let mut lab = dual();
    let eni = lab.primary().id.clone();
    let got = prefixes(&mut lab, &eni, Wanted::Count(1)).unwrap();
    let ask = |addresses: &[Ipv6Addr], prefixes: &[Ipv6Net]| Request::UnassignIpv6Addresses {
        eni: eni.clone(),
        ipv6: Ipv6 {
            addresses: addresses.to_vec(),
            prefixes: prefixes.to_vec(),
        },
    };
    assert_eq!(lab.refused(ask(&[], &[])), "MissingParameter");
    assert_eq!(
        lab.refused(ask(&[], &[net("2001:db8:c10d:0:77::/80")])),
        "InvalidParameterValue"
    );
    lab.ask(ask(&[], &got)).unwrap();
    assert!(lab.primary().ipv6.prefixes.is_empty());
    assert_eq!(lab.refused(ask(&[], &got)), "InvalidParameterValue");
    // A deleted interface gives everything back.
    let gone = lab
        .create(|c| c.ipv6.prefixes = Wanted::These(got.clone()))
        .unwrap();
    lab.ask(Request::DeleteNetworkInterface(gone.id.clone())).unwrap();
    assert_eq!(prefixes(&mut lab, &eni, Wanted::These(got.clone())).unwrap(), got);
}

#[test]
fn a_node_may_assign_its_own_prefixes_and_others_may_not() {
    let mut lab = dual();
    let eni = lab.primary().id.clone();
    let wanted = Request::AssignIpv6Addresses(AssignIpv6Addresses {
        eni,
        ipv6: WantedIpv6 {
            addresses: Wanted::Count(0),
            prefixes: Wanted::Count(1),
        },
    });
    let nobody = Caller {
        role: "nobody".to_owned(),
        instance: None,
    };
    let refused = lab.reply(&nobody, wanted.clone()).outcome.unwrap_err();
    assert_eq!(refused.code, "UnauthorizedOperation");
    let node = Caller::node(&lab.node.clone());
    assert!(lab.reply(&node, wanted).outcome.is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `ask` holds the model's own rules after every call: each address and prefix has one owner, none is lost, no two overlap.
    #[test]
    fn however_they_come_and_go_each_has_one_owner(steps in prop::collection::vec((0u8..5, 0u32..4, any::<bool>()), 1..40)) {
        let mut lab = Lab::with(
            VpcConfig { addresses: AddressChoice::Random, ..VpcConfig::instant().dual_stack() },
            "m5.large",
        );
        let mut enis = vec![lab.primary().id.clone()];
        for (what, count, first) in steps {
            let at = if first { 0 } else { enis.len() - 1 };
            let eni = enis[at].clone();
            let owned = lab.vpc.status().instances.iter().flat_map(|i| i.interfaces.clone())
                .chain(lab.vpc.status().unattached)
                .find(|i| i.id == eni).unwrap().ipv6;
            match what {
                0 => if let Ok(made) = lab.create(|c| c.ipv6.prefixes = Wanted::Count(count)) { enis.push(made.id.clone()) },
                1 => { let _ = prefixes(&mut lab, &eni, Wanted::Count(count)); }
                2 => { let _ = addresses(&mut lab, &eni, Wanted::Count(count)); }
                3 => {
                    let ipv6 = Ipv6 { addresses: Vec::new(), prefixes: owned.prefixes };
                    let _ = lab.ask(Request::UnassignIpv6Addresses { eni, ipv6 });
                }
                _ => if at > 0 {
                    lab.ask(Request::DeleteNetworkInterface(eni)).unwrap();
                    enis.remove(at);
                },
            }
            prop_assert_eq!(lab.vpc.check(), Vec::<String>::new());
        }
    }
}
