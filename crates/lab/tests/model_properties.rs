//! Whatever is asked of a VPC, in whatever order and with whatever faults, its invariants hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use proptest::prelude::*;
use vpcnet_lab::model::*;

/// A step of a run; numbers pick among what there is.
#[derive(Clone, Debug)]
enum Step {
    Run {
        kind: bool,
    },
    Terminate(usize),
    Create {
        subnet: usize,
        secondary: u32,
        prefixes: u32,
        token: Option<u8>,
    },
    Attach {
        eni: usize,
        instance: usize,
        device_index: u32,
        card: u32,
    },
    Detach(usize),
    Delete(usize),
    Assign {
        eni: usize,
        count: u32,
    },
    AssignPrefixes {
        eni: usize,
        count: u32,
    },
    AssignNamed {
        eni: usize,
        last: u8,
        reassign: bool,
    },
    Unassign {
        eni: usize,
        pick: usize,
    },
    UnassignPrefix {
        eni: usize,
        pick: usize,
    },
    KeepOnTermination {
        eni: usize,
        delete: bool,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let pick = 0usize..8;
    prop_oneof![
        1 => any::<bool>().prop_map(|kind| Step::Run { kind }),
        1 => pick.clone().prop_map(Step::Terminate),
        4 => (0usize..3, 0u32..12, 0u32..3, proptest::option::of(0u8..4))
            .prop_map(|(subnet, secondary, prefixes, token)| Step::Create { subnet, secondary, prefixes, token }),
        4 => (pick.clone(), 0usize..3, 0u32..5, 0u32..2)
            .prop_map(|(eni, instance, device_index, card)| Step::Attach { eni, instance, device_index, card }),
        2 => pick.clone().prop_map(Step::Detach),
        2 => pick.clone().prop_map(Step::Delete),
        4 => (pick.clone(), 1u32..14).prop_map(|(eni, count)| Step::Assign { eni, count }),
        3 => (pick.clone(), 1u32..4).prop_map(|(eni, count)| Step::AssignPrefixes { eni, count }),
        2 => (pick.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(eni, last, reassign)| Step::AssignNamed { eni, last, reassign }),
        3 => (pick.clone(), pick.clone()).prop_map(|(eni, pick)| Step::Unassign { eni, pick }),
        2 => (pick.clone(), pick.clone()).prop_map(|(eni, pick)| Step::UnassignPrefix { eni, pick }),
        1 => (pick, any::<bool>()).prop_map(|(eni, delete)| Step::KeepOnTermination { eni, delete }),
        3 => (0u64..2000).prop_map(Step::Wait),
    ]
}

fn fault() -> impl Strategy<Value = FaultRule> {
    let kind = prop_oneof![
        Just(FaultKind::LoseAnswer),
        Just(FaultKind::HangAfter),
        Just(FaultKind::Hang),
        Just(FaultKind::Duplicate),
        Just(FaultKind::Error {
            code: "InternalError".to_owned(),
            status: 500
        }),
        Just(FaultKind::ErrorAfter {
            code: "Unavailable".to_owned(),
            status: 503
        }),
    ];
    (kind, 0.0..0.5).prop_map(|(kind, probability)| FaultRule {
        probability: Some(probability),
        ..FaultRule::new(FaultTarget::Ec2("*".to_owned()), kind)
    })
}

struct Run {
    vpc: Vpc,
    now: Duration,
}

impl Run {
    fn new(seed: u64, choice: AddressChoice, faults: Vec<FaultRule>) -> Self {
        let mut config = VpcConfig {
            addresses: choice,
            faults,
            ..VpcConfig::default()
        };
        // Small ones fill up and fragment.
        for (subnet, cidr) in config.subnets.iter_mut().zip(["10.0.0.0/26", "10.0.1.0/27"]) {
            subnet.cidr = cidr.parse().unwrap();
        }
        let mut spare = config.subnets[0].clone();
        spare.name = "spare".to_owned();
        spare.cidr = "10.0.2.0/25".parse().unwrap();
        spare.reservations = vec![
            Reservation {
                cidr: "10.0.2.32/27".parse().unwrap(),
                kind: ReservationKind::Prefix,
            },
            Reservation {
                cidr: "10.0.2.96/28".parse().unwrap(),
                kind: ReservationKind::Explicit,
            },
        ];
        config.subnets.push(spare);
        Self {
            vpc: Vpc::new(config, seed),
            now: Duration::ZERO,
        }
    }

    fn interface(&self, pick: usize) -> Option<InterfaceSummary> {
        let status = self.vpc.status();
        let attached = status.instances.into_iter().flat_map(|i| i.interfaces);
        let all: Vec<_> = attached.chain(status.unattached).collect();
        all.get(pick % all.len().max(1)).cloned()
    }

    fn instance(&self, pick: usize) -> Option<InstanceId> {
        let all = self.vpc.status().instances;
        all.get(pick % all.len().max(1)).map(|i| i.id.clone())
    }

    fn subnet(&self, pick: usize) -> SubnetId {
        self.vpc.status().subnets[pick].id.clone()
    }

    fn request(&mut self, step: &Step) -> Option<Request> {
        let assign = |eni: EniId, addresses, prefixes, allow_reassignment| {
            Request::AssignPrivateIpAddresses(AssignPrivateIpAddresses {
                eni,
                addresses,
                prefixes,
                allow_reassignment,
            })
        };
        Some(match step {
            Step::Wait(n) => {
                self.now += Duration::from_millis(*n);
                return None;
            }
            Step::Run { kind } => {
                let name = format!("n-{:?}", self.now);
                let kind = if *kind { "m5.large" } else { "t3.small" };
                // Refused when the subnet is full, which is fine.
                let _ = self.vpc.run_instance(self.now, &NodeSpec::new(&name, kind));
                return None;
            }
            Step::Terminate(pick) => Request::TerminateInstances(vec![self.instance(*pick)?]),
            Step::Create {
                subnet,
                secondary,
                prefixes,
                token,
            } => {
                let mut wanted = CreateNetworkInterface::new(self.subnet(*subnet));
                if *prefixes > 0 {
                    wanted.prefixes = Wanted::Count(*prefixes);
                } else {
                    wanted.secondary = Wanted::Count(*secondary);
                }
                wanted.client_token = token.map(|t| t.to_string());
                Request::CreateNetworkInterface(wanted)
            }
            Step::Attach {
                eni,
                instance,
                device_index,
                card,
            } => Request::AttachNetworkInterface(AttachNetworkInterface {
                eni: self.interface(*eni)?.id,
                instance: self.instance(*instance)?,
                device_index: *device_index,
                card: *card,
            }),
            Step::Detach(pick) => {
                let eni = self.interface(*pick)?.id;
                let read = Request::DescribeNetworkInterfaces(Describe::ids([eni]));
                let Ok(Response::Interfaces(page)) = self.vpc.call(self.now, &Caller::admin(), read).outcome
                else {
                    return None;
                };
                let attachment = page.items.first()?.attachment.as_ref()?.id.clone();
                Request::DetachNetworkInterface {
                    attachment,
                    force: false,
                }
            }
            Step::Delete(pick) => Request::DeleteNetworkInterface(self.interface(*pick)?.id),
            Step::Assign { eni, count } => assign(
                self.interface(*eni)?.id,
                Wanted::Count(*count),
                Wanted::Count(0),
                false,
            ),
            Step::AssignPrefixes { eni, count } => assign(
                self.interface(*eni)?.id,
                Wanted::Count(0),
                Wanted::Count(*count),
                false,
            ),
            Step::AssignNamed { eni, last, reassign } => {
                let interface = self.interface(*eni)?;
                let [a, b, c, _] = interface.primary?.octets();
                assign(
                    interface.id,
                    Wanted::These(vec![[a, b, c, *last].into()]),
                    Wanted::Count(0),
                    *reassign,
                )
            }
            Step::Unassign { eni, pick } => {
                let interface = self.interface(*eni)?;
                let address = *interface.secondary.get(pick % interface.secondary.len().max(1))?;
                Request::UnassignPrivateIpAddresses {
                    eni: interface.id,
                    addresses: vec![address],
                    prefixes: vec![],
                }
            }
            Step::UnassignPrefix { eni, pick } => {
                let interface = self.interface(*eni)?;
                let prefix = *interface.prefixes.get(pick % interface.prefixes.len().max(1))?;
                Request::UnassignPrivateIpAddresses {
                    eni: interface.id,
                    addresses: vec![],
                    prefixes: vec![prefix],
                }
            }
            Step::KeepOnTermination { eni, delete } => {
                let eni = self.interface(*eni)?.id;
                let read = Request::DescribeNetworkInterfaces(Describe::ids([&eni]));
                let Ok(Response::Interfaces(page)) = self.vpc.call(self.now, &Caller::admin(), read).outcome
                else {
                    return None;
                };
                let attachment = page.items.first()?.attachment.as_ref()?.id.clone();
                let change = AttributeChange::DeleteOnTermination {
                    attachment,
                    delete: *delete,
                };
                Request::ModifyNetworkInterfaceAttribute { eni, change }
            }
        })
    }
}

/// Every address in the fabric belongs to one interface there.
fn owners_are_unique(view: &FabricView) -> Result<(), String> {
    let mut seen = std::collections::BTreeMap::new();
    for interface in &view.interfaces {
        for net in &interface.addresses {
            for address in net.network().to_bits()..=net.broadcast().to_bits() {
                if let Some(other) = seen.insert(address, &interface.eni) {
                    return Err(format!("{address:#x} is routed to {other} and {}", interface.eni));
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_step(
        seed in any::<u64>(),
        lowest in any::<bool>(),
        faults in proptest::collection::vec(fault(), 0..3),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let choice = if lowest { AddressChoice::Lowest } else { AddressChoice::Random };
        let mut run = Run::new(seed, choice, faults);
        for step in steps {
            if let Some(request) = run.request(&step) {
                run.vpc.call(run.now, &Caller::admin(), request);
            }
            run.vpc.advance(run.now);
            prop_assert_eq!(run.vpc.check(), Vec::<String>::new(), "after {:?}", step);
            prop_assert_eq!(owners_are_unique(&run.vpc.fabric()), Ok(()));
        }
        // Left alone, everything that is under way ends.
        while let Some(next) = run.vpc.next_change() {
            run.vpc.advance(next);
        }
        prop_assert_eq!(run.vpc.check(), Vec::<String>::new());
    }

    #[test]
    fn the_fabric_moves_only_with_its_generation(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new(seed, AddressChoice::Lowest, Vec::new());
        let mut before = (run.vpc.fabric_generation(), run.vpc.fabric());
        for step in steps {
            if let Some(request) = run.request(&step) {
                run.vpc.call(run.now, &Caller::admin(), request);
            }
            run.vpc.advance(run.now);
            let after = (run.vpc.fabric_generation(), run.vpc.fabric());
            prop_assert!(before.1 == after.1 || before.0 != after.0, "the view changed unnoticed by {:?}", step);
            before = after;
        }
    }

    #[test]
    fn time_in_small_steps_is_time_in_one(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..40)) {
        let (mut coarse, mut fine) = (
            Run::new(seed, AddressChoice::Random, Vec::new()),
            Run::new(seed, AddressChoice::Random, Vec::new()),
        );
        for step in steps {
            let (a, b) = (coarse.request(&step), fine.request(&step));
            prop_assert_eq!(&a, &b);
            while let Some(next) = fine.vpc.next_change().filter(|n| *n <= fine.now) {
                fine.vpc.advance(next);
            }
            if let (Some(a), Some(b)) = (a, b) {
                let coarse_reply = coarse.vpc.call(coarse.now, &Caller::admin(), a);
                let fine_reply = fine.vpc.call(fine.now, &Caller::admin(), b);
                prop_assert_eq!(coarse_reply.outcome, fine_reply.outcome);
            }
            coarse.vpc.advance(coarse.now);
            fine.vpc.advance(fine.now);
            prop_assert_eq!(coarse.vpc.status(), fine.vpc.status());
        }
    }
}
