//! Calls to AWS as metrics, and what of them an operator should know of.

use std::sync::Arc;

use vpcnet_cloud::{CallReport, Observer, Service};

use crate::metrics::Metrics;
use crate::news::{News, Newsroom};
use crate::published::Publisher;

/// How EC2 says that a role may not do something (EC2 API reference, "Error codes").
const UNAUTHORIZED: [&str; 2] = ["UnauthorizedOperation", "AccessDenied"];

/// Told of every request by the clients.
pub struct Calls {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who tells of rights that are missing; nobody does for IMDS, which knows none.
    pub publisher: Option<Publisher>,
    /// Who tells the node's events of them.
    pub news: Newsroom,
}

impl Calls {
    /// EC2 refuses an action for lack of a right, or carries it out again.
    fn rights(&self, api: &str, error: Option<&str>) {
        let missing = match error {
            Some(code) if UNAUTHORIZED.contains(&code) => {
                self.news.tell(News::Unauthorized {
                    api: api.to_owned(),
                    code: code.to_owned(),
                });
                true
            }
            None => false,
            // Says nothing of rights.
            Some(_) => return,
        };
        let Some(publisher) = &self.publisher else { return };
        if publisher.get().complaints.rights.contains(api) == missing {
            return;
        }
        publisher.change(|p| {
            let rights = &mut p.complaints.rights;
            if missing {
                rights.insert(api.to_owned())
            } else {
                rights.remove(api)
            };
        });
    }
}

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
                self.rights(report.api, report.error);
                self.metrics
                    .ec2_call(report.api, report.error, report.status, report.latency);
            }
            // Under the original's names; their successes are not worth a series each.
            Service::Imds => {
                if let Some(error) = report.error {
                    self.metrics
                        .api_errors
                        .with_label_values(&[report.api, error])
                        .inc();
                }
            }
            Service::Credentials => {
                if let Some(error) = report.error {
                    let errors = &self.metrics.drop_in.utils_errors;
                    errors.with_label_values(&[report.api, error]).inc();
                }
            }
        }
    }

    fn held_back(&self, api: &str) {
        self.metrics.held_back.with_label_values(&[api]).inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::published::Published;

    #[test]
    fn an_action_that_the_role_lacks_is_told_until_it_works() {
        let publisher = Publisher::new(Published::default());
        let calls = Calls {
            metrics: Metrics::new().unwrap(),
            publisher: Some(publisher.clone()),
            news: Newsroom::default(),
        };
        let call = |api: &str, error: Option<&str>| {
            calls.call(CallReport {
                service: Service::Ec2,
                api,
                status: Some(if error.is_some() { 403 } else { 200 }),
                error,
                latency: Duration::ZERO,
            });
            publisher.get().complaints.iter().collect::<Vec<_>>().join("\n")
        };
        assert_eq!(call("CreateTags", None), "");
        let told = call("CreateTags", Some("UnauthorizedOperation"));
        assert!(told.contains("ec2:CreateTags") && told.contains("IAM"), "{told}");
        // Others' calls, and other errors, say nothing of it.
        assert_eq!(call("DescribeSubnets", None), told);
        assert_eq!(call("CreateTags", Some("RequestLimitExceeded")), told);
        assert_eq!(call("CreateTags", None), "");
    }
}
