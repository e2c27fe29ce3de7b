//! How an action failed, in the pool's terms.

use std::time::Instant;

use vpcnet_cloud::{Ec2Error, ErrorClass};
use vpcnet_ipam::{ActionId, Event, FailureClass};

use crate::clock;

/// One failed action.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it asks of the pool.
    pub class: FailureClass,
    /// For people.
    pub message: String,
    /// Not before this time.
    pub retry_at: Option<Instant>,
}

impl Failure {
    /// Worth repeating.
    pub fn retry(message: String) -> Self {
        Self {
            class: FailureClass::Retry,
            message,
            retry_at: None,
        }
    }

    /// Not worth repeating unchanged.
    pub fn refused(message: String) -> Self {
        Self {
            class: FailureClass::Refused,
            message,
            retry_at: None,
        }
    }

    /// Another interface sits where this one was to be attached.
    pub fn device_taken(message: String) -> Self {
        Self {
            class: FailureClass::DeviceTaken,
            message,
            retry_at: None,
        }
    }

    /// What was to be done does not fit any more; it was not tried.
    pub fn overtaken(message: String) -> Self {
        Self {
            class: FailureClass::Overtaken,
            message,
            retry_at: None,
        }
    }

    /// The thing is gone.
    pub fn gone(message: String) -> Self {
        Self {
            class: FailureClass::Gone,
            message,
            retry_at: None,
        }
    }

    /// The report to the pool.
    #[must_use]
    pub fn event(self, id: ActionId) -> Event {
        Event::ActionFailed {
            id,
            class: self.class,
            message: self.message,
            retry_at: self.retry_at.map(clock::from_instant),
        }
    }
}

impl From<Ec2Error> for Failure {
    fn from(error: Ec2Error) -> Self {
        let class = match error.class {
            ErrorClass::Retry => FailureClass::Retry,
            ErrorClass::Throttled => FailureClass::Throttled,
            ErrorClass::Exhausted => FailureClass::SubnetExhausted,
            ErrorClass::LimitReached => FailureClass::LimitReached,
            ErrorClass::Refused => FailureClass::Refused,
            ErrorClass::Gone => FailureClass::Gone,
        };
        Self {
            class,
            message: error.to_string(),
            retry_at: error.retry_at,
        }
    }
}
