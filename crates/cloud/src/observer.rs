//! Who is told about each call made, for metrics and logs.

use std::time::Duration;

/// The service a call went to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Service {
    /// The EC2 Query API.
    Ec2,
    /// The instance metadata service.
    Imds,
    /// A source of credentials that is not IMDS: STS, or a container credentials endpoint.
    Credentials,
}

/// One request that was answered, or was given up on. Retries are reported one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallReport<'a> {
    /// The service called.
    pub service: Service,
    /// EC2: the action. IMDS: the path below `/latest/`, interface addresses replaced by `:mac` so that the set of names is small.
    pub api: &'a str,
    /// HTTP status; `None` if no answer came.
    pub status: Option<u16>,
    /// Error code (EC2's own where it sent one), `None` on success. A 404 from IMDS is an answer, not an error.
    pub error: Option<&'a str>,
    /// From the request's first byte (waiting for a back-off not included) to the end of the answer.
    pub latency: Duration,
}

/// Told of every request. Called on the async executor: it must not block.
pub trait Observer: Send + Sync {
    /// A request ended.
    fn call(&self, report: CallReport<'_>);

    /// A call to EC2 was not made: its action backs off for longer than the caller can wait. `api`: the action.
    fn held_back(&self, api: &str) {
        let _ = api;
    }
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn call(&self, _: CallReport<'_>) {}
}
