//! Calls to AWS as metrics.

use std::sync::Arc;

use vpcnet_cloud::{CallReport, ErrorClass, Observer, Service, class_of};

use crate::metrics::{CallResult, Metrics};

/// Told of every request by the clients.
pub struct Calls(pub Arc<Metrics>);

impl Observer for Calls {
    fn call(&self, report: CallReport<'_>) {
        match report.service {
            Service::Ec2 => {
                tracing::debug!(
                    api = report.api,
                    error = report.error,
                    latency_ms = report.latency.as_millis(),
                    "EC2 call"
                );
                let throttled =
                    |code| class_of(code, "", report.status.unwrap_or(0)) == ErrorClass::Throttled;
                let result = match report.error {
                    None => CallResult::Success,
                    Some(code) if throttled(code) => CallResult::Throttled(code),
                    Some(code) => CallResult::Error(code),
                };
                self.0.ec2_call(report.api, result, report.latency);
            }
            // Under the original's name for errors of all AWS services; their successes are not worth a series each.
            Service::Imds | Service::Credentials => {
                if let Some(error) = report.error {
                    self.0.api_errors.with_label_values(&[report.api, error]).inc();
                }
            }
        }
    }

    fn held_back(&self, api: &str) {
        self.0.held_back.with_label_values(&[api]).inc();
    }
}
