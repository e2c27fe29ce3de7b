//! Refusals as gRPC statuses. The text is what the operator reads in the pod's events, so it says all there is to say.

use tonic::Status;
use vpcnet_ipam::{Refusal, RefusalCause};

use crate::core::CoreGone;

/// The agent is ending.
pub(super) fn gone(error: CoreGone) -> Status {
    Status::unavailable(error.to_string())
}

/// A refusal of the pool in words: cause, thing and next try.
pub(crate) fn text(refusal: &Refusal) -> String {
    match refusal.retry_in {
        Some(wait) => format!("{}; the agent tries again in {}", refusal.message, seconds(wait)),
        // Nothing but a pod's end brings an address then, and that ends the wait of the pod that asks again.
        None if matches!(
            refusal.cause,
            RefusalCause::InstanceFull | RefusalCause::TargetReached
        ) =>
        {
            format!(
                "{}; an address is free again when a pod of this node goes",
                refusal.message
            )
        }
        None => refusal.message.clone(),
    }
}

/// A refusal of the pool.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let text = text(refusal);
    match refusal.cause {
        RefusalCause::InstanceFull
        | RefusalCause::SubnetExhausted
        | RefusalCause::CoolingDown
        | RefusalCause::TargetReached => Status::resource_exhausted(text),
        RefusalCause::Throttled
        | RefusalCause::Ec2Unreachable
        | RefusalCause::Ec2Refused
        | RefusalCause::StillWorking
        | RefusalCause::CheckpointFailed => Status::unavailable(text),
        RefusalCause::Deleted => Status::aborted(text),
        RefusalCause::BadRequest => Status::invalid_argument(text),
    }
}

/// Whole seconds, rounded up: "0 s" would be no answer.
fn seconds(wait: std::time::Duration) -> String {
    format!("{} s", wait.as_millis().div_ceil(1000).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tonic::Code;

    #[test]
    fn a_refusal_keeps_its_sentence_and_says_when_it_is_tried_again() {
        let refusal = Refusal {
            cause: RefusalCause::SubnetExhausted,
            message: "subnet-1 has no free address (InsufficientFreeAddressesInSubnet)".into(),
            retry_in: Some(Duration::from_millis(11_200)),
        };
        let status = refused(&refusal);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "subnet-1 has no free address (InsufficientFreeAddressesInSubnet); the agent tries again in 12 s"
        );
    }

    #[test]
    fn a_full_node_says_what_it_waits_for() {
        let refusal = Refusal {
            cause: RefusalCause::InstanceFull,
            message: "full".into(),
            retry_in: None,
        };
        assert_eq!(
            refused(&refusal).message(),
            "full; an address is free again when a pod of this node goes"
        );
    }

    #[test]
    fn causes_outside_the_pool_are_unavailability() {
        for (cause, code) in [
            (RefusalCause::Ec2Unreachable, Code::Unavailable),
            (RefusalCause::StillWorking, Code::Unavailable),
            (RefusalCause::CheckpointFailed, Code::Unavailable),
            (RefusalCause::InstanceFull, Code::ResourceExhausted),
            (RefusalCause::BadRequest, Code::InvalidArgument),
        ] {
            let refusal = Refusal {
                cause,
                message: "why".into(),
                retry_in: None,
            };
            assert_eq!(refused(&refusal).code(), code);
            assert!(refused(&refusal).message().starts_with("why"));
        }
    }
}
