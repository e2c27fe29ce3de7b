//! How calls are judged before they are carried out, how reads lag, and what faults do: against the model alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod rights;
mod support;

use std::time::Duration;

use support::{Lab, ms};
use vpcnet_lab::model::*;

fn timed(change: impl FnOnce(&mut Timing)) -> Lab {
    let mut config = VpcConfig::instant();
    change(&mut config.timing);
    Lab::with(config, "m5.large")
}

fn faulty(target: FaultTarget, kind: FaultKind) -> Lab {
    let mut lab = Lab::instant();
    lab.vpc.add_fault(FaultRule::new(target, kind));
    lab
}

fn ec2(action: &str) -> FaultTarget {
    FaultTarget::Ec2(action.to_owned())
}

fn create_request(lab: &Lab) -> Request {
    Request::CreateNetworkInterface(CreateNetworkInterface::new(lab.subnet("subnet-a")))
}

#[test]
fn an_attachment_passes_through_its_states_in_its_time() {
    let mut lab = timed(|t| {
        t.create = Spread::millis(100, 100);
        t.attach = Spread::millis(1000, 1000);
        t.detach = Spread::millis(500, 500);
    });
    let eni = lab.create(|_| ()).unwrap().id.clone();
    assert_eq!(lab.interface(&eni).status, InterfaceStatus::Pending);
    lab.now = ms(100);
    assert_eq!(lab.interface(&eni).status, InterfaceStatus::Available);
    let attachment = lab.attach(&eni, 1).unwrap();
    assert_eq!(lab.vpc.next_change(), Some(ms(1100)));
    let linked = |lab: &Lab| lab.vpc.fabric().interfaces.iter().any(|i| i.eni == eni);
    lab.now = ms(1099);
    assert_eq!(
        (lab.interface(&eni).status, linked(&lab)),
        (InterfaceStatus::Attaching, false)
    );
    assert_eq!(lab.detach(&attachment).unwrap_err().code, "IncorrectState");
    assert!(lab.vpc.advance(ms(1100)), "the link appears");
    lab.now = ms(1100);
    assert_eq!(
        (lab.interface(&eni).status, linked(&lab)),
        (InterfaceStatus::InUse, true)
    );
    lab.detach(&attachment).unwrap();
    assert_eq!(
        (lab.interface(&eni).status, linked(&lab)),
        (InterfaceStatus::Detaching, true)
    );
    assert_eq!(
        lab.refused(Request::DeleteNetworkInterface(eni.clone())),
        "InvalidParameterValue"
    );
    lab.now = ms(1600);
    assert_eq!(
        (lab.interface(&eni).status, linked(&lab)),
        (InterfaceStatus::Available, false)
    );
}

#[test]
fn a_burst_empties_the_bucket_of_its_action() {
    let mut config = VpcConfig::instant();
    config.buckets.enabled = true;
    let mut lab = Lab::with(config, "m5.large");
    let subnets = |lab: &mut Lab| lab.ask(Request::DescribeSubnets(Describe::all()));
    assert!((0..100).all(|_| subnets(&mut lab).is_ok()));
    let error = subnets(&mut lab).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("RequestLimitExceeded", 503));
    lab.now = ms(50);
    assert!(subnets(&mut lab).is_ok());
}

#[test]
fn a_role_may_do_what_it_lists_and_is_throttled_before_it_is_judged() {
    let mut config = VpcConfig::instant();
    config.buckets.enabled = true;
    let mut lab = Lab::with(config, "m5.large");
    lab.vpc.set_role(&RoleConfig {
        name: RoleConfig::NODE.to_owned(),
        policy: Policy::allowing(&["ec2:Describe*"]),
    });
    let node = Caller::node(&lab.node.clone());
    let create = create_request(&lab);
    let mut code = |request: Request| lab.reply(&node, request).outcome.map_err(|e| (e.code, e.status));
    assert!(code(Request::DescribeSubnets(Describe::all())).is_ok());
    for _ in 0..50 {
        assert_eq!(
            code(create.clone()),
            Err(("UnauthorizedOperation".to_owned(), 403))
        );
    }
    assert_eq!(code(create), Err(("RequestLimitExceeded".to_owned(), 503)));
}

#[test]
fn wrong_parameters_are_noticed_only_after_rights() {
    let mut lab = Lab::instant();
    let nobody = Caller {
        role: "nobody".to_owned(),
        instance: None,
    };
    let wrong = Request::Malformed {
        action: "CreateTags",
        error: ApiError::missing("resourceIdSet"),
    };
    assert_eq!(
        lab.reply(&nobody, wrong.clone()).outcome.unwrap_err().code,
        "UnauthorizedOperation"
    );
    assert_eq!(lab.refused(wrong), "MissingParameter");
}

#[test]
fn describe_pages_and_refuses_what_ec2_refuses() {
    let mut lab = Lab::instant();
    for _ in 0..11 {
        lab.create(|_| ()).unwrap();
    }
    let page = |max_results, next_token| {
        Request::DescribeNetworkInterfaces(Describe {
            max_results,
            next_token,
            ..Describe::default()
        })
    };
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let Response::Interfaces(p) = lab.ask(page(Some(5), token)).unwrap() else {
            panic!()
        };
        seen.extend(p.items.iter().map(|i| i.id.clone()));
        token = p.next_token;
        if token.is_none() {
            break;
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 12);
    assert_eq!(lab.refused(page(Some(4), None)), "InvalidParameterValue");
    assert_eq!(lab.refused(page(Some(1001), None)), "InvalidParameterValue");
    assert_eq!(
        lab.refused(page(None, Some("nonsense".to_owned()))),
        "InvalidPaginationToken"
    );
    let both = Describe {
        ids: vec![seen[0].to_string()],
        max_results: Some(5),
        ..Describe::default()
    };
    assert_eq!(
        lab.refused(Request::DescribeNetworkInterfaces(both)),
        "InvalidParameterCombination"
    );
    let unknown = Describe::all().filter("colour", &["red"]);
    assert_eq!(
        lab.refused(Request::DescribeNetworkInterfaces(unknown)),
        "InvalidParameterValue"
    );
    for (id, code) in [
        ("eni-00000001", "InvalidNetworkInterfaceID.NotFound"),
        ("nonsense", "InvalidNetworkInterfaceId.Malformed"),
    ] {
        assert_eq!(
            lab.refused(Request::DescribeNetworkInterfaces(Describe::ids([id]))),
            code
        );
    }
}

#[test]
fn a_read_shows_the_state_of_a_while_ago_and_a_write_sees_the_present() {
    let mut lab = timed(|t| t.read_lag = Spread::millis(300, 300));
    lab.now = ms(1000);
    let eni = lab.create(|_| ()).unwrap().id.clone();
    let by_id = || Describe::ids([&eni]);
    assert_eq!(
        lab.interfaces(by_id()).unwrap_err().code,
        "InvalidNetworkInterfaceID.NotFound"
    );
    lab.attach(&eni, 1).unwrap();
    lab.now = ms(1300);
    assert!(lab.interfaces(by_id()).unwrap()[0].attachment.is_some());
    let attachment = lab.interface(&eni).attachment.clone().unwrap().id;
    lab.detach(&attachment).unwrap();
    lab.ask(Request::DeleteNetworkInterface(eni.clone())).unwrap();
    lab.now = ms(1599);
    assert!(
        lab.interfaces(by_id()).unwrap()[0].attachment.is_some(),
        "still shown as it was"
    );
    lab.now = ms(1600);
    assert_eq!(
        lab.interfaces(by_id()).unwrap_err().code,
        "InvalidNetworkInterfaceID.NotFound"
    );
}

#[test]
fn imds_shows_changes_late_and_in_their_order() {
    let mut lab = timed(|t| t.imds_lag = Spread::millis(1000, 1000));
    lab.now = ms(5000);
    let eni = lab.create(|_| ()).unwrap();
    let attachment = lab.attach(&eni.id, 1).unwrap();
    let macs = |lab: &mut Lab| lab.imds("network/interfaces/macs/").unwrap().lines().count();
    assert_eq!(macs(&mut lab), 1);
    lab.now = ms(5500);
    let second = lab.assign(&eni.id, Wanted::Count(1)).unwrap()[0];
    lab.now = ms(6000);
    assert_eq!(macs(&mut lab), 2);
    let path = format!("network/interfaces/macs/{}/local-ipv4s", eni.mac);
    assert_eq!(lab.imds(&path).unwrap(), eni.primary.unwrap().to_string());
    lab.now = ms(6500);
    assert_eq!(
        lab.imds(&path).unwrap(),
        format!("{}\n{second}", eni.primary.unwrap())
    );
    lab.detach(&attachment).unwrap();
    lab.now = ms(7499);
    assert_eq!(macs(&mut lab), 2, "lists what is gone");
    lab.now = ms(7500);
    assert_eq!((macs(&mut lab), lab.imds(&path)), (1, None));
}

#[test]
fn the_tree_of_imds_is_what_agents_read() {
    let mut lab = Lab::instant();
    let primary = lab.primary();
    lab.assign_prefixes(&primary.id, 1).unwrap();
    let mac = primary.mac.to_string();
    assert_eq!(lab.imds("mac"), Some(mac.clone()));
    assert_eq!(lab.imds("local-ipv4").as_deref(), Some("10.0.0.4"));
    assert_eq!(
        lab.imds("placement/availability-zone").as_deref(),
        Some("us-west-2a")
    );
    assert_eq!(
        lab.imds("placement/availability-zone/").as_deref(),
        Some("us-west-2a")
    );
    assert_eq!(lab.imds("placement/region").as_deref(), Some("us-west-2"));
    assert_eq!(lab.imds("network/interfaces/macs"), Some(format!("{mac}/")));
    assert_eq!(lab.imds("iam/security-credentials/").as_deref(), Some("lab-node"));
    let base = format!("network/interfaces/macs/{mac}");
    assert_eq!(
        lab.imds(&base).unwrap().lines().collect::<Vec<_>>(),
        [
            "device-number",
            "interface-id",
            "ipv4-associations/",
            "ipv4-prefix",
            "local-hostname",
            "local-ipv4s",
            "mac",
            "owner-id",
            "public-hostname",
            "public-ipv4s",
            "security-group-ids",
            "security-groups",
            "subnet-id",
            "subnet-ipv4-cidr-block",
            "vpc-id",
            "vpc-ipv4-cidr-block",
            "vpc-ipv4-cidr-blocks",
        ]
    );
    assert_eq!(
        lab.imds(&format!("{base}/subnet-ipv4-cidr-block")).as_deref(),
        Some("10.0.0.0/20")
    );
    assert_eq!(
        lab.imds(&format!("{base}/ipv4-prefix")).as_deref(),
        Some("10.0.0.16/28")
    );
    assert_eq!(lab.imds(&format!("{base}/ipv6s")), None);
    assert_eq!(lab.imds("network/interfaces/macs/02:00:00:00:00:00/"), None);
}

#[test]
fn a_lost_answer_leaves_its_effect_and_a_hang_before_leaves_none() {
    for (kind, fate, made) in [
        (FaultKind::LoseAnswer, Fate::Lose, 1),
        (FaultKind::HangAfter, Fate::Hang, 1),
        (FaultKind::Hang, Fate::Hang, 0),
        (FaultKind::Drop, Fate::Lose, 0),
        (FaultKind::Duplicate, Fate::Deliver, 2),
        (
            FaultKind::Error {
                code: "InternalError".to_owned(),
                status: 500,
            },
            Fate::Deliver,
            0,
        ),
        (
            FaultKind::ErrorAfter {
                code: "InternalError".to_owned(),
                status: 500,
            },
            Fate::Deliver,
            1,
        ),
    ] {
        let mut lab = faulty(ec2("CreateNetworkInterface"), kind.clone());
        let request = create_request(&lab);
        let reply = lab.reply(&Caller::admin(), request);
        assert_eq!(reply.fate, fate, "{kind:?}");
        let found = lab
            .interfaces(Describe::all().filter("status", &["available"]))
            .unwrap();
        assert_eq!(found.len(), made, "{kind:?}");
    }
}

#[test]
fn a_token_makes_a_duplicated_call_one_interface() {
    let mut lab = faulty(ec2("Create*"), FaultKind::Duplicate);
    lab.create(|c| c.client_token = Some("t".to_owned())).unwrap();
    assert_eq!(
        lab.interfaces(Describe::all().filter("status", &["available"]))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_rule_strikes_the_call_it_names_and_no_other() {
    let error = || FaultKind::Error {
        code: "InternalError".to_owned(),
        status: 500,
    };
    let run = |change: &dyn Fn(&mut FaultRule)| {
        let mut lab = Lab::instant();
        let mut rule = FaultRule::new(ec2("DescribeSubnets"), error());
        change(&mut rule);
        lab.vpc.add_fault(rule);
        let node = Caller::node(&lab.node.clone());
        let mut struck = Vec::new();
        for n in 1..=6u64 {
            lab.now = Duration::from_secs(n);
            let caller = if n % 2 == 0 { node.clone() } else { Caller::admin() };
            if lab
                .reply(&caller, Request::DescribeSubnets(Describe::all()))
                .outcome
                .is_err()
            {
                struck.push(n);
            }
            assert!(lab.ask(Request::DescribeVpcs(Describe::all())).is_ok());
        }
        struck
    };
    assert_eq!(run(&|_| ()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(run(&|r| r.nth = Some(3)), [3]);
    assert_eq!(run(&|r| r.every = Some(3)), [3, 6]);
    assert_eq!(run(&|r| r.times = Some(2)), [1, 2]);
    assert_eq!(run(&|r| r.node = Some("node-1".to_owned())), [2, 4, 6]);
    assert_eq!(
        run(&|r| {
            r.from = Duration::from_secs(2);
            r.until = Some(Duration::from_secs(4));
        }),
        [2, 3]
    );
    assert_eq!(run(&|r| r.probability = Some(0.0)), Vec::<u64>::new());
}

#[test]
fn imds_answers_what_the_fault_plan_says() {
    let mut lab = Lab::instant();
    lab.vpc.add_fault(FaultRule::new(
        FaultTarget::Imds("meta-data/network/*".to_owned()),
        FaultKind::Error {
            code: String::new(),
            status: 429,
        },
    ));
    let hang = lab.vpc.add_fault(FaultRule::new(
        FaultTarget::Imds("meta-data/mac".to_owned()),
        FaultKind::Hang,
    ));
    let node = lab.node.clone();
    let get = |lab: &mut Lab, path: &str| lab.vpc.imds(ms(0), &node, path);
    assert_eq!(
        get(&mut lab, "/latest/meta-data/network/interfaces/macs/").status,
        429
    );
    assert_eq!(get(&mut lab, "/latest/meta-data/mac").fate, Fate::Hang);
    assert!(lab.vpc.remove_fault(hang));
    assert_eq!(get(&mut lab, "/latest/meta-data/mac").status, 200);
}

#[test]
fn a_stale_answer_is_older_than_the_lag() {
    let mut lab = Lab::instant();
    lab.now = Duration::from_secs(100);
    lab.create(|_| ()).unwrap();
    lab.now = Duration::from_secs(110);
    assert_eq!(lab.interfaces(Describe::all()).unwrap().len(), 2);
    lab.vpc.add_fault(FaultRule::new(
        ec2("Describe*"),
        FaultKind::Stale(Duration::from_secs(20)),
    ));
    assert_eq!(lab.interfaces(Describe::all()).unwrap().len(), 1);
}

#[test]
fn the_log_names_caller_action_and_result() {
    let mut lab = Lab::instant();
    let node = Caller::node(&lab.node.clone());
    lab.reply(&node, Request::DescribeSubnets(Describe::all()))
        .outcome
        .unwrap();
    lab.reply(&node, Request::TerminateInstances(vec![]))
        .outcome
        .unwrap_err();
    lab.imds("mac");
    let seen: Vec<_> = lab
        .vpc
        .calls()
        .map(|c| (c.caller.as_str(), c.action.as_str(), c.result.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("node-1", "DescribeSubnets", "ok"),
            ("node-1", "TerminateInstances", "UnauthorizedOperation"),
            ("node-1", "GET /latest/meta-data/mac", "ok"),
        ]
    );
}

#[test]
fn instance_types_are_those_of_the_limits_table() {
    let mut lab = Lab::instant();
    let of = |ids: &[&str]| Request::DescribeInstanceTypes(Describe::ids(ids));
    let Response::InstanceTypes(page) = lab.ask(of(&["m5.large"])).unwrap() else {
        panic!()
    };
    assert_eq!((page.items.len(), page.items[0].ipv4_per_interface), (1, 10));
    assert_eq!(lab.refused(of(&["m5.large", "x0.none"])), "InvalidInstanceType");
    let Response::InstanceTypes(page) = lab.ask(of(&[])).unwrap() else {
        panic!()
    };
    assert_eq!(page.items.len(), 100);
    assert!(page.next_token.is_some());
}

#[test]
fn the_same_seed_and_calls_give_the_same_vpc() {
    let run = |seed| {
        let mut vpc = Vpc::new(VpcConfig::default(), seed);
        let mut replies = Vec::new();
        let node = vpc.run_instance(ms(0), &NodeSpec::new("n", "m5.large")).unwrap();
        for n in 1..20 {
            let subnet = vpc.subnet_named("subnet-a").unwrap().clone();
            let request = Request::CreateNetworkInterface(CreateNetworkInterface::new(subnet));
            replies.push(vpc.call(ms(n * 100), &Caller::node(&node), request));
        }
        (replies, vpc.status())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).1, run(8).1);
}
