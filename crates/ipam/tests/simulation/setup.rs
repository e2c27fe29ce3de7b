//! The VPC that a run begins with, and its weather.

use std::collections::BTreeMap;
use std::time::Duration;

use vpcnet_lab::model as ec2;

use super::script::{Reserved, Setup, SubnetSetup};
use super::world::World;

impl World {
    /// One host in each few has an address that no /28 can hold then.
    pub(crate) fn strew(&mut self, n: usize, setup: &SubnetSetup) {
        if setup.each == 0 {
            return;
        }
        let cidr = cidr(n, setup.length);
        let taken: Vec<std::net::Ipv4Addr> = cidr.hosts().skip(5).step_by(usize::from(setup.each)).collect();
        for at in taken {
            let mut wanted = ec2::CreateNetworkInterface::new(self.subnets[n].clone());
            wanted.primary = Some(at);
            self.admin(ec2::Request::CreateNetworkInterface(wanted));
        }
    }
}

fn cidr(n: usize, length: u8) -> ipnet::Ipv4Net {
    let at = std::net::Ipv4Addr::new(10, 0, u8::try_from(n).unwrap(), 0);
    ipnet::Ipv4Net::new(at, length.clamp(24, 28)).unwrap()
}

/// Exact delays: what is drawn at random would be drawn otherwise in a shorter history.
pub(crate) fn timing(latency: u16, attach: u16, read_lag: u16, imds_lag: u16) -> ec2::Timing {
    let exactly = |ms: u16| ec2::Spread::exactly(Duration::from_millis(u64::from(ms)));
    ec2::Timing {
        ec2_latency: exactly(latency),
        imds_latency: ec2::Spread::ZERO,
        create: exactly(attach / 4),
        attach: exactly(attach),
        detach: exactly(attach),
        launch: ec2::Spread::ZERO,
        terminate: exactly(500),
        read_lag: exactly(read_lag.min(8_000)),
        imds_lag: exactly(imds_lag.min(50_000)),
    }
}

/// What it is while nobody says otherwise.
pub(crate) fn weather(setup: &Setup) -> ec2::Timing {
    match &setup.weather {
        Some(w) => timing(w.latency, w.attach, w.read_lag, w.imds_lag),
        None => timing(50, 200, 0, 500),
    }
}

/// The upper half of a subnet.
fn reservation(cidr: ipnet::Ipv4Net, reserved: Reserved) -> ec2::Reservation {
    ec2::Reservation {
        cidr: cidr.subnets(cidr.prefix_len() + 1).unwrap().nth(1).unwrap(),
        kind: match reserved {
            Reserved::Prefixes => ec2::ReservationKind::Prefix,
            Reserved::Named => ec2::ReservationKind::Explicit,
        },
    }
}

pub(crate) fn vpc(setup: &Setup) -> (ec2::Vpc, Vec<ec2::SubnetId>) {
    let subnet = |(n, s): (usize, &SubnetSetup)| ec2::SubnetConfig {
        name: format!("s{n}"),
        cidr: cidr(n, s.length),
        ipv6: None,
        zone: 'a',
        route: ec2::SubnetRoute::Private,
        tags: BTreeMap::new(),
        reservations: s
            .reserved
            .map(|r| reservation(cidr(n, s.length), r))
            .into_iter()
            .collect(),
    };
    let mut config = ec2::VpcConfig::instant();
    config.subnets = setup.subnets.iter().enumerate().map(subnet).collect();
    config.node_subnets = config.subnets.len();
    config.addresses = if setup.lowest {
        ec2::AddressChoice::Lowest
    } else {
        ec2::AddressChoice::Random
    };
    config.timing = weather(setup);
    config.call_log = 0;
    if setup.throttled {
        config.buckets.enabled = true;
        config.buckets.mutating = ec2::Bucket {
            size: 12.0,
            per_second: 1.0,
        };
        config.buckets.reads = ec2::Bucket {
            size: 30.0,
            per_second: 4.0,
        };
        // Nor is whoever plays the others held up by it.
        config.buckets.by_action.insert(
            "CreateTags".into(),
            ec2::Bucket {
                size: 1e9,
                per_second: 1e9,
            },
        );
    }
    let vpc = ec2::Vpc::new(config, setup.seed);
    let ids = (0..setup.subnets.len()).map(|n| vpc.subnet_named(&format!("s{n}")).unwrap().clone());
    let ids = ids.collect();
    (vpc, ids)
}
