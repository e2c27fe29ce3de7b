//! The VPC keeps its log of calls.

use std::time::Duration;

use super::calls::{Call, CallCount, Face};
use super::error::ApiError;
use super::ids::InstanceId;
use super::response::Response;
use super::rights::Caller;
use super::vpc::{Fate, Vpc};

impl Vpc {
    pub(crate) fn log_call(
        &mut self,
        caller: &Caller,
        action: &str,
        outcome: &Result<Response, ApiError>,
        fate: Fate,
        latency: Duration,
        request_id: &str,
    ) {
        let result = match (fate, outcome) {
            (Fate::Hang, _) => "hung",
            (Fate::Lose, _) => "lost",
            (Fate::Deliver, Ok(_)) => "ok",
            (Fate::Deliver, Err(e)) => &e.code,
        };
        let call = Call {
            number: 0,
            at: self.now,
            face: Face::Ec2,
            caller: self.caller_name(caller.instance.as_ref(), &caller.role),
            action: action.to_owned(),
            result: result.to_owned(),
            latency,
            request_id: request_id.to_owned(),
        };
        self.log.add(call, action);
    }

    pub(crate) fn log_imds(
        &mut self,
        instance: &InstanceId,
        method: &str,
        path: &str,
        result: String,
        latency: Duration,
    ) {
        let call = Call {
            number: 0,
            at: self.now,
            face: Face::Imds,
            caller: self.caller_name(Some(instance), "unknown"),
            action: format!("{method} {path}"),
            result,
            latency,
            request_id: String::new(),
        };
        self.log.add(call, method);
    }

    /// Logs a call that was refused before it had a caller: no or wrong signature, unknown action.
    pub fn log_stranger(&mut self, now: Duration, action: &str, error: &ApiError) -> String {
        self.advance(now);
        let request_id = self.request_id();
        let call = Call {
            number: 0,
            at: self.now,
            face: Face::Ec2,
            caller: "stranger".to_owned(),
            action: action.to_owned(),
            result: error.code.clone(),
            latency: Duration::ZERO,
            request_id: request_id.clone(),
        };
        self.log.add(call, "-");
        request_id
    }

    fn caller_name(&self, instance: Option<&InstanceId>, role: &str) -> String {
        instance.map_or_else(
            || role.to_owned(),
            |id| {
                self.instances
                    .get(id)
                    .map_or_else(|| id.to_string(), |i| i.name().to_owned())
            },
        )
    }

    /// The last calls, oldest first.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.log.last()
    }

    /// All calls since the start, counted.
    #[must_use]
    pub fn call_counts(&self) -> Vec<CallCount> {
        self.log.counts()
    }
}
