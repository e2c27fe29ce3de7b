//! What EC2 allows with interfaces and addresses, rule by rule, against the model alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::Ipv4Addr;

use support::{Lab, ms, small_subnet};
use vpcnet_lab::model::*;

fn small(cidr: &str, reservations: Vec<Reservation>) -> Lab {
    let mut config = VpcConfig::instant();
    config.subnets.push(SubnetConfig {
        reservations,
        ..small_subnet(cidr)
    });
    Lab::with(config, "m5.large")
}

#[test]
fn a_node_comes_up_with_its_primary_interface_and_a_public_address_where_the_subnet_is_public() {
    let mut lab = Lab::instant();
    let primary = lab.primary();
    assert_eq!(primary.primary, Some(Ipv4Addr::new(10, 0, 0, 4)));
    assert_eq!(primary.public, Some(Ipv4Addr::new(198, 51, 100, 2)));
    assert_eq!(primary.status, InterfaceStatus::InUse);
    assert!(primary.attachment.as_ref().unwrap().delete_on_termination);

    let second = lab
        .vpc
        .run_instance(ms(0), &NodeSpec::new("node-2", "m5.large"))
        .unwrap();
    lab.node = second;
    let private = lab.primary();
    assert_eq!(
        (private.primary, private.public),
        (Some(Ipv4Addr::new(10, 0, 16, 4)), None)
    );
}

#[test]
fn a_third_interface_is_the_last_an_m5_large_takes() {
    let mut lab = Lab::instant();
    for device_index in 1..=2 {
        let eni = lab.create(|_| ()).unwrap();
        lab.attach(&eni.id, device_index).unwrap();
    }
    let eni = lab.create(|_| ()).unwrap();
    let error = lab.attach(&eni.id, 3).unwrap_err();
    assert_eq!(error.code, "AttachmentLimitExceeded");
    assert_eq!(error.message, "Interface count 4 exceeds the limit for m5.large");
}

#[test]
fn each_network_card_has_its_own_limit_and_its_own_indexes() {
    let mut lab = Lab::with(VpcConfig::instant(), "p4d.24xlarge");
    let cards = vpcnet_limits::lookup("p4d.24xlarge").unwrap().cards.clone();
    let node = lab.node.clone();
    let attach = |lab: &mut Lab, card, device_index| {
        let eni = lab.create(|_| ()).unwrap().id.clone();
        lab.ask(Request::AttachNetworkInterface(AttachNetworkInterface {
            eni,
            instance: node.clone(),
            device_index,
            card,
        }))
    };
    assert!(attach(&mut lab, 1, 1).is_ok());
    assert!(attach(&mut lab, 0, 1).is_ok());
    assert_eq!(attach(&mut lab, 1, 1).unwrap_err().code, "InvalidParameterValue");
    let last = u32::try_from(cards.len()).unwrap();
    assert_eq!(
        attach(&mut lab, last, 1).unwrap_err().code,
        "InvalidParameterValue"
    );
    for device_index in 2..=cards[1].interfaces {
        assert!(attach(&mut lab, 1, device_index).is_ok());
    }
    assert_eq!(
        attach(&mut lab, 1, 90).unwrap_err().code,
        "AttachmentLimitExceeded"
    );
}

#[test]
fn ten_addresses_are_the_most_an_interface_of_an_m5_large_has_and_a_prefix_takes_one_slot() {
    let mut lab = Lab::instant();
    let primary = lab.primary().id.clone();
    assert_eq!(
        lab.assign(&primary, Wanted::Count(10)).unwrap_err().code,
        "PrivateIpAddressLimitExceeded"
    );
    assert_eq!(lab.assign(&primary, Wanted::Count(8)).unwrap().len(), 8);
    assert_eq!(
        lab.assign_prefixes(&primary, 2).unwrap_err().code,
        "PrivateIpAddressLimitExceeded"
    );
    assert_eq!(lab.assign_prefixes(&primary, 1).unwrap().len(), 1);
    assert_eq!(
        lab.assign(&primary, Wanted::Count(1)).unwrap_err().code,
        "PrivateIpAddressLimitExceeded"
    );
}

#[test]
fn an_interface_with_more_addresses_than_the_type_allows_cannot_be_attached() {
    let mut lab = Lab::instant();
    let eni = lab.create(|c| c.secondary = Wanted::Count(12)).unwrap();
    assert_eq!(
        lab.attach(&eni.id, 1).unwrap_err().code,
        "PrivateIpAddressLimitExceeded"
    );
}

#[test]
fn assignment_answers_with_the_new_addresses_only() {
    let mut lab = Lab::instant();
    let primary = lab.primary();
    let first = lab.assign(&primary.id, Wanted::Count(2)).unwrap();
    let second = lab.assign(&primary.id, Wanted::Count(1)).unwrap();
    assert_eq!((first.len(), second.len()), (2, 1));
    assert!(!first.contains(&second[0]) && Some(second[0]) != primary.primary);
    assert_eq!(lab.interface(&primary.id).secondary, [first, second].concat());
}

#[test]
fn a_full_subnet_gives_nothing_and_takes_nothing() {
    let mut lab = small("10.0.100.0/28", Vec::new());
    let small = lab.subnet("small");
    assert_eq!(lab.free("small"), 11);
    let eni = lab.create(|c| c.subnet = small.clone()).unwrap();
    assert_eq!(
        lab.assign(&eni.id, Wanted::Count(11)).unwrap_err().code,
        "InsufficientFreeAddressesInSubnet"
    );
    assert_eq!(lab.free("small"), 10);
    lab.assign(&eni.id, Wanted::Count(10)).unwrap();
    let error = lab.create(|c| c.subnet = small.clone()).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.status),
        ("InsufficientFreeAddressesInSubnet", 400)
    );
    // An interface whose secondary addresses do not fit leaves its primary one behind free.
    let given = lab.interface(&eni.id).secondary[0];
    lab.ask(Request::UnassignPrivateIpAddresses {
        eni: eni.id.clone(),
        addresses: vec![given],
        prefixes: vec![],
    })
    .unwrap();
    let too_many = lab.create(|c| {
        c.subnet = small.clone();
        c.secondary = Wanted::Count(1);
    });
    assert_eq!(too_many.unwrap_err().code, "InsufficientFreeAddressesInSubnet");
    assert_eq!(lab.free("small"), 1);
}

#[test]
fn fragmentation_leaves_no_block_where_most_addresses_are_free() {
    let mut lab = small("10.0.100.0/26", Vec::new());
    let small = lab.subnet("small");
    let eni = lab.create(|c| c.subnet = small).unwrap();
    // One address in the middle of each of the two whole blocks.
    let strewn = vec![Ipv4Addr::new(10, 0, 100, 24), Ipv4Addr::new(10, 0, 100, 40)];
    lab.assign(&eni.id, Wanted::These(strewn)).unwrap();
    assert!(lab.free("small") > 50);
    assert_eq!(
        lab.assign_prefixes(&eni.id, 1).unwrap_err().code,
        "InsufficientCidrBlocks"
    );
}

#[test]
fn a_prefix_reservation_is_for_prefixes_and_an_explicit_one_for_those_who_name_it() {
    let reserve = |cidr: &str, kind| Reservation {
        cidr: cidr.parse().unwrap(),
        kind,
    };
    let mut lab = small(
        "10.0.100.0/26",
        vec![
            reserve("10.0.100.16/28", ReservationKind::Prefix),
            reserve("10.0.100.32/28", ReservationKind::Explicit),
        ],
    );
    let small = lab.subnet("small");
    let eni = lab.create(|c| c.subnet = small).unwrap().id.clone();
    let got = lab.assign(&eni, Wanted::Count(26)).unwrap();
    assert!(got.iter().all(|a| !(16..48).contains(&a.octets()[3])));
    assert_eq!(
        lab.assign(&eni, Wanted::Count(1)).unwrap_err().code,
        "InsufficientFreeAddressesInSubnet"
    );
    assert_eq!(
        lab.assign_prefixes(&eni, 1).unwrap()[0].to_string(),
        "10.0.100.16/28"
    );
    assert_eq!(
        lab.assign_prefixes(&eni, 1).unwrap_err().code,
        "InsufficientCidrBlocks"
    );
    lab.assign(&eni, Wanted::These(vec![Ipv4Addr::new(10, 0, 100, 33)]))
        .unwrap();
}

#[test]
fn named_addresses_are_refused_with_the_reason() {
    let mut lab = Lab::instant();
    let eni = lab.create(|_| ()).unwrap();
    let mut name = |a: [u8; 4]| lab.assign(&eni.id, Wanted::These(vec![a.into()])).unwrap_err();
    assert_eq!(name([10, 0, 0, 4]).code, "InvalidIPAddress.InUse");
    assert!(name([10, 0, 0, 1]).message.contains("reserved"));
    assert!(name([10, 9, 0, 1]).message.contains("does not fall within"));
}

#[test]
fn an_address_moves_to_another_interface_only_when_that_is_allowed() {
    let mut lab = Lab::instant();
    let (a, b) = (
        lab.create(|_| ()).unwrap().id.clone(),
        lab.create(|_| ()).unwrap().id.clone(),
    );
    let moving = lab.assign(&a, Wanted::Count(1)).unwrap();
    assert_eq!(
        lab.assign(&b, Wanted::These(moving.clone())).unwrap_err().code,
        "InvalidIPAddress.InUse"
    );
    let reassign = |addresses: Vec<Ipv4Addr>| {
        Request::AssignPrivateIpAddresses(AssignPrivateIpAddresses {
            eni: b.clone(),
            addresses: Wanted::These(addresses),
            prefixes: Wanted::Count(0),
            allow_reassignment: true,
        })
    };
    lab.ask(reassign(moving.clone())).unwrap();
    assert_eq!(lab.interface(&b).secondary, moving);
    assert!(lab.interface(&a).secondary.is_empty());
    let primary = lab.interface(&a).primary.unwrap();
    assert_eq!(lab.refused(reassign(vec![primary])), "InvalidParameterValue");
}

#[test]
fn only_what_an_interface_has_can_be_unassigned_and_never_its_primary_address() {
    let mut lab = Lab::instant();
    let eni = lab.create(|c| c.secondary = Wanted::Count(2)).unwrap();
    let unassign = |addresses: Vec<Ipv4Addr>| Request::UnassignPrivateIpAddresses {
        eni: eni.id.clone(),
        addresses,
        prefixes: vec![],
    };
    assert_eq!(
        lab.refused(unassign(vec![eni.primary.unwrap()])),
        "InvalidParameterValue"
    );
    assert_eq!(
        lab.refused(unassign(vec![eni.secondary[0], Ipv4Addr::new(10, 0, 0, 99)])),
        "InvalidParameterValue"
    );
    assert_eq!(lab.interface(&eni.id).secondary.len(), 2);
    lab.ask(unassign(vec![eni.secondary[0]])).unwrap();
    assert_eq!(lab.interface(&eni.id).secondary, [eni.secondary[1]]);
    assert_eq!(
        lab.refused(unassign(vec![eni.secondary[0]])),
        "InvalidParameterValue"
    );
}

#[test]
fn an_interface_in_use_is_neither_deleted_nor_attached_again() {
    let mut lab = Lab::instant();
    let eni = lab.create(|_| ()).unwrap().id.clone();
    let attachment = lab.attach(&eni, 1).unwrap();
    let error = lab.ask(Request::DeleteNetworkInterface(eni.clone())).unwrap_err();
    assert_eq!(
        error.message,
        format!("Network interface '{eni}' is currently in use.")
    );
    assert_eq!(
        lab.attach(&eni, 2).unwrap_err().code,
        "InvalidNetworkInterface.InUse"
    );
    lab.detach(&attachment).unwrap();
    assert_eq!(
        lab.detach(&attachment).unwrap_err().code,
        "InvalidAttachmentID.NotFound"
    );
    lab.ask(Request::DeleteNetworkInterface(eni.clone())).unwrap();
    let gone = lab.ask(Request::DeleteNetworkInterface(eni.clone())).unwrap_err();
    assert_eq!(
        gone.message,
        format!("The networkInterface ID '{eni}' does not exist")
    );
}

#[test]
fn the_primary_interface_is_never_detached() {
    let mut lab = Lab::instant();
    let attachment = lab.primary().attachment.as_ref().unwrap().id.clone();
    assert_eq!(lab.detach(&attachment).unwrap_err().code, "OperationNotPermitted");
}

#[test]
fn interfaces_stay_in_their_zone_and_indexes_are_unique() {
    let mut lab = Lab::instant();
    let other_zone = lab.subnet("subnet-b");
    let far = lab.create(|c| c.subnet = other_zone).unwrap();
    assert_eq!(
        lab.attach(&far.id, 1).unwrap_err().code,
        "InvalidParameterCombination"
    );
    let near = lab.create(|_| ()).unwrap();
    assert_eq!(lab.attach(&near.id, 0).unwrap_err().code, "InvalidParameterValue");
}

#[test]
fn the_same_token_makes_one_interface_and_other_parameters_are_a_mismatch() {
    let mut lab = Lab::instant();
    let token = |c: &mut CreateNetworkInterface| c.client_token = Some("once".to_owned());
    let first = lab.create(token).unwrap();
    let again = lab.create(token).unwrap();
    assert_eq!(first.id, again.id);
    let other = lab.create(|c| {
        token(c);
        c.secondary = Wanted::Count(1);
    });
    assert_eq!(other.unwrap_err().code, "IdempotentParameterMismatch");
    assert_eq!(
        lab.interfaces(Describe::all().filter("status", &["available"]))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn termination_takes_what_is_marked_and_leaves_the_rest_available() {
    let mut lab = Lab::instant();
    let (kept, gone) = (
        lab.create(|_| ()).unwrap().id.clone(),
        lab.create(|_| ()).unwrap().id.clone(),
    );
    lab.attach(&kept, 1).unwrap();
    let attachment = lab.attach(&gone, 2).unwrap();
    let change = AttributeChange::DeleteOnTermination {
        attachment,
        delete: true,
    };
    lab.ask(Request::ModifyNetworkInterfaceAttribute {
        eni: gone.clone(),
        change,
    })
    .unwrap();
    let node = lab.node.clone();
    lab.ask(Request::TerminateInstances(vec![node.clone()])).unwrap();
    let left = lab.interfaces(Describe::all()).unwrap();
    assert_eq!(
        left.iter().map(|i| (&i.id, i.status)).collect::<Vec<_>>(),
        [(&kept, InterfaceStatus::Available)]
    );
    assert!(lab.vpc.fabric().nodes.is_empty() && lab.vpc.fabric().public.is_empty());
    match lab
        .ask(Request::DescribeInstances(Describe::ids([node])))
        .unwrap()
    {
        Response::Instances(page) => assert_eq!(page.items[0].instance.state, InstanceState::Terminated),
        other => panic!("{other:?}"),
    }
}

#[test]
fn attributes_change_one_at_a_time_and_only_by_the_present_attachment() {
    let mut lab = Lab::instant();
    let eni = lab.create(|_| ()).unwrap().id.clone();
    let modify = |change| Request::ModifyNetworkInterfaceAttribute {
        eni: eni.clone(),
        change,
    };
    lab.ask(modify(AttributeChange::SourceDestCheck(false))).unwrap();
    lab.ask(modify(AttributeChange::Description("mine".to_owned())))
        .unwrap();
    let node_group = lab.vpc.group_named("node").unwrap().clone();
    lab.ask(modify(AttributeChange::Groups(vec![node_group.clone()])))
        .unwrap();
    let seen = lab.interface(&eni);
    assert_eq!(
        (seen.source_dest_check, seen.description.as_str()),
        (false, "mine")
    );
    assert_eq!(seen.groups, [node_group]);
    let stranger = AttachmentId::from("eni-attach-00000001");
    let change = AttributeChange::DeleteOnTermination {
        attachment: stranger,
        delete: true,
    };
    assert_eq!(lab.refused(modify(change)), "InvalidAttachmentID.NotFound");
    let unknown = AttributeChange::Groups(vec![GroupId::from("sg-00000001")]);
    assert_eq!(lab.refused(modify(unknown)), "InvalidGroup.NotFound");
}

#[test]
fn an_efa_only_interface_has_no_address() {
    let mut lab = Lab::instant();
    let eni = lab.create(|c| c.kind = InterfaceKind::EfaOnly).unwrap();
    assert_eq!((eni.primary, eni.slots()), (None, 0));
    assert_eq!(
        lab.assign(&eni.id, Wanted::Count(1)).unwrap_err().code,
        "InvalidParameterCombination"
    );
}

#[test]
fn tags_come_at_creation_and_later_and_obey_ec2s_rules() {
    let mut lab = Lab::instant();
    let eni = lab
        .create(|c| drop(c.tags.insert("a".to_owned(), "1".to_owned())))
        .unwrap()
        .id
        .to_string();
    let tag = |key: &str, value: &str| Request::CreateTags {
        resources: vec![eni.clone()],
        tags: Tags::from([(key.to_owned(), value.to_owned())]),
    };
    lab.ask(tag("b", "2")).unwrap();
    assert_eq!(lab.refused(tag("aws:x", "")), "InvalidParameterValue");
    assert_eq!(lab.refused(tag(&"k".repeat(129), "")), "InvalidParameterValue");
    for n in 0..48 {
        lab.ask(tag(&format!("k{n}"), "")).unwrap();
    }
    assert_eq!(lab.refused(tag("one-too-many", "")), "TagLimitExceeded");
    let found = lab
        .interfaces(Describe::all().filter("tag:b", &["2"]).filter("tag-key", &["a"]))
        .unwrap();
    assert_eq!(found.len(), 1);
    let delete = |key: &str, value: Option<&str>| Request::DeleteTags {
        resources: vec![eni.clone()],
        tags: vec![(key.to_owned(), value.map(str::to_owned))],
    };
    lab.ask(delete("a", Some("other"))).unwrap();
    lab.ask(delete("b", None)).unwrap();
    let tags = lab.interfaces(Describe::ids([&eni])).unwrap()[0].tags.clone();
    assert!(tags.contains_key("a") && !tags.contains_key("b"));
    let missing = Request::CreateTags {
        resources: vec!["eni-00000001".to_owned()],
        tags,
    };
    assert_eq!(lab.refused(missing), "InvalidNetworkInterfaceID.NotFound");
}
