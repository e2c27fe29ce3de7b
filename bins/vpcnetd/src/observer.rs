//! Calls to AWS as metrics.

use std::sync::Arc;

use vpcnet_cloud::{CallReport, Observer, Service};

use crate::metrics::Metrics;
use crate::news::{News, Newsroom};

/// How EC2 says that a role may not do something (EC2 API reference, "Error codes").
const UNAUTHORIZED: [&str; 2] = ["UnauthorizedOperation", "AccessDenied"];

/// Told of every request by the clients.
pub struct Calls(pub Arc<Metrics>, pub Newsroom);

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
                self.0
                    .ec2_call(report.api, report.error, report.status, report.latency);
                if let Some(code) = report.error.filter(|code| UNAUTHORIZED.contains(code)) {
                    self.1.tell(News::Unauthorized {
                        api: report.api.to_owned(),
                        code: code.to_owned(),
                    });
                }
            }
            // Under the original's names; their successes are not worth a series each.
            Service::Imds => {
                if let Some(error) = report.error {
                    self.0.api_errors.with_label_values(&[report.api, error]).inc();
                }
            }
            Service::Credentials => {
                if let Some(error) = report.error {
                    let errors = &self.0.drop_in.utils_errors;
                    errors.with_label_values(&[report.api, error]).inc();
                }
            }
        }
    }

    fn held_back(&self, api: &str) {
        self.0.held_back.with_label_values(&[api]).inc();
    }
}
