//! What goes wrong with calls, as rules of the VPC's fault plan.

use std::time::Duration;

use vpcnet_lab::model as ec2;

use super::script::{Target, Wrong};
use super::world::World;

impl World {
    pub(crate) fn add_fault(
        &mut self,
        n: usize,
        target: Target,
        wrong: Wrong,
        times: Option<u64>,
        until: Option<Duration>,
    ) {
        let mut rule = ec2::FaultRule::new(target_of(target), kind_of(wrong));
        rule.node = Some(self.nodes[n].instance.to_string());
        (rule.times, rule.until) = (times, until);
        self.vpc.add_fault(rule);
    }
}

fn target_of(target: Target) -> ec2::FaultTarget {
    let name = match target {
        Target::Imds => return ec2::FaultTarget::Imds("*".into()),
        Target::Create => "CreateNetworkInterface",
        Target::Attach => "AttachNetworkInterface",
        Target::Detach => "DetachNetworkInterface",
        Target::Delete => "DeleteNetworkInterface",
        Target::Assign => "AssignPrivateIpAddresses",
        Target::Unassign => "UnassignPrivateIpAddresses",
        Target::Describe => "Describe*",
        Target::Modify => "ModifyNetworkInterfaceAttribute",
        Target::Any => "*",
    };
    ec2::FaultTarget::Ec2(name.into())
}

fn kind_of(wrong: Wrong) -> ec2::FaultKind {
    let error = |code: &str, status| ec2::FaultKind::Error {
        code: code.into(),
        status,
    };
    let ms = |ms: u32| Duration::from_millis(u64::from(ms));
    match wrong {
        Wrong::Throttled => error("RequestLimitExceeded", 503),
        Wrong::Broken => error("InternalError", 500),
        Wrong::BrokenAfter => ec2::FaultKind::ErrorAfter {
            code: "InternalError".into(),
            status: 500,
        },
        Wrong::Unavailable => error("Unavailable", 503),
        Wrong::Unauthorized => error("UnauthorizedOperation", 403),
        Wrong::Exhausted => error("InsufficientFreeAddressesInSubnet", 400),
        Wrong::NoBlocks => error("InsufficientCidrBlocks", 400),
        Wrong::Limit => error("PrivateIpAddressLimitExceeded", 400),
        Wrong::Hang => ec2::FaultKind::Hang,
        Wrong::HangAfter => ec2::FaultKind::HangAfter,
        Wrong::Drop => ec2::FaultKind::Drop,
        Wrong::LoseAnswer => ec2::FaultKind::LoseAnswer,
        Wrong::Twice => ec2::FaultKind::Duplicate,
        Wrong::Slow(by) => ec2::FaultKind::Slow(ec2::Spread::exactly(ms(by))),
        Wrong::Stale(by) => ec2::FaultKind::Stale(ms(by.min(9_000))),
        Wrong::Missing => error("NotFound", 404),
    }
}
