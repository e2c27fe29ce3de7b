//! One call to EC2: leave from the back-off, credentials, signature, request, answer; and again, where repeating is harmless.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::form::Form;
use super::{Ec2, Inner};
use crate::backoff::Outcome;
use crate::clock::{amz_date, parse_http_date};
use crate::endpoint::host_header;
use crate::error::{class_of, own};
use crate::http::{Answer, HttpError};
use crate::sigv4::{Scope, Signable, authorization};
use crate::trouble::{self, Try};
use crate::xml::{self, ErrorDocument, optional};
use crate::{CallReport, Credentials, CredentialsError, Ec2Action, Ec2Error, ErrorClass, Service};

/// Longest answer read. A page of 200 interfaces with their addresses and tags is below 1 MiB.
const ANSWER_CAP: usize = 8 << 20;
/// Items asked for in a page.
const PAGE: u32 = 200;
/// Pages read before an answer is taken to be endless.
const PAGES: u32 = 500;
/// How often a read is tried.
const READ_TRIES: u32 = 3;
/// A clock that differs from EC2's by more is corrected for: signatures are good for five minutes.
const SKEW: Duration = Duration::from_secs(240);
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// The answer of actions that answer nothing.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    #[serde(default, rename = "return", deserialize_with = "optional")]
    done: Option<bool>,
}

impl Done {
    /// EC2 says `<return>false</return>` for calls it did not carry out.
    pub(super) fn check(self, action: Ec2Action) -> Result<(), Ec2Error> {
        match self.done {
            Some(false) => Err(failure(
                action,
                own::MALFORMED,
                "EC2 answered without an error that it did not do it",
            )),
            _ => Ok(()),
        }
    }
}

/// An error of ours, of the class its code has.
fn failure(action: Ec2Action, code: &str, message: impl Into<String>) -> Ec2Error {
    let message = message.into();
    Ec2Error {
        class: class_of(code, &message, 0),
        code: code.to_owned(),
        message,
        request_id: None,
        retry_at: None,
        action,
        effect_unknown: false,
    }
}

/// A failed try, and what it says about EC2's state.
struct Failed {
    error: Ec2Error,
    outcome: Outcome,
    /// Nothing was done because the signature was not accepted; fresh credentials or the right time may help.
    unauthenticated: bool,
}

impl Ec2 {
    /// Makes one call. A read is tried up to three times within three time-outs; a call that changes something is made once, after
    /// waiting for its turn for one time-out at most.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        action: Ec2Action,
        form: Form,
    ) -> Result<T, Ec2Error> {
        let inner = &*self.inner;
        let body = Bytes::from(form.into_body());
        let (tries, patience) = if action.is_read() {
            (READ_TRIES, READ_TRIES - 1)
        } else {
            (1, 1)
        };
        // Leave is waited for so long that one whole try still fits behind it.
        let deadline = Instant::now() + inner.http_timeout * patience;
        let mut tried = 0;
        let mut renewed = false;
        let mut last: Option<Ec2Error> = None;
        loop {
            let credentials = match inner.credentials.get(deadline).await {
                Ok(credentials) => credentials,
                Err(error) => return Err(last.unwrap_or_else(|| no_credentials(action, &error))),
            };
            let pass = match inner.gates.pass(action, deadline).await {
                Ok(pass) => pass,
                Err(until) => {
                    inner.observer.held_back(action.name());
                    let error = last.unwrap_or_else(|| Ec2Error {
                        class: ErrorClass::Throttled,
                        retry_at: Some(until),
                        ..failure(
                            action,
                            own::BACKING_OFF,
                            "not called: earlier calls of this action failed or are in flight",
                        )
                    });
                    trouble::tell(Try::HeldBack(&error));
                    return Err(error);
                }
            };
            tried += 1;
            match inner.attempt::<T>(action, body.clone(), &credentials).await {
                Ok(answer) => {
                    pass.settle(Outcome::Answered);
                    trouble::tell(Try::Done);
                    return Ok(answer);
                }
                Err(mut failed) => {
                    failed.error.retry_at = pass.settle(failed.outcome);
                    trouble::tell(Try::Failed(&failed.error));
                    let passing = matches!(failed.outcome, Outcome::Failed | Outcome::Throttled);
                    if failed.unauthenticated && !renewed {
                        renewed = true;
                        tried -= 1;
                        inner.credentials.invalidate(&credentials);
                    } else if !passing || tried >= tries {
                        return Err(failed.error);
                    }
                    last = Some(failed.error);
                }
            }
        }
    }

    /// Calls a Describe action until its last page.
    pub(super) async fn pages<A, T, F>(
        &self,
        action: Ec2Action,
        mut form: Form,
        split: F,
    ) -> Result<Vec<T>, Ec2Error>
    where
        A: DeserializeOwned,
        F: Fn(A) -> (Vec<T>, Option<String>),
    {
        form.number("MaxResults", PAGE);
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let mut page = form.clone();
            page.optional("NextToken", token.as_ref());
            let (items, next) = split(self.call::<A>(action, page).await?);
            found.extend(items);
            match next {
                None => return Ok(found),
                Some(next) if token.as_ref() == Some(&next) => break,
                Some(next) => token = Some(next),
            }
        }
        Err(failure(
            action,
            own::MALFORMED,
            format!("the answer has no last page; {} items read", found.len()),
        ))
    }

    /// A Describe call with ids (which EC2 does not page) or without (which it does).
    pub(super) async fn lookup<A, T, F>(
        &self,
        action: Ec2Action,
        form: Form,
        ids: &[String],
        split: F,
    ) -> Result<Vec<T>, Ec2Error>
    where
        A: DeserializeOwned,
        F: Fn(A) -> (Vec<T>, Option<String>),
    {
        if ids.is_empty() {
            self.pages(action, form, split).await
        } else {
            Ok(split(self.call::<A>(action, form).await?).0)
        }
    }
}

fn no_credentials(action: Ec2Action, cause: &CredentialsError) -> Ec2Error {
    Ec2Error {
        class: if cause.may_pass() {
            ErrorClass::Retry
        } else {
            ErrorClass::Refused
        },
        retry_at: cause.retry_at(),
        ..failure(action, own::CREDENTIALS, cause.to_string())
    }
}

impl Inner {
    async fn attempt<T: DeserializeOwned>(
        &self,
        action: Ec2Action,
        body: Bytes,
        credentials: &Credentials,
    ) -> Result<T, Failed> {
        let request = self.signed(body, credentials).map_err(|message| Failed {
            error: failure(action, own::CONNECT, message),
            outcome: Outcome::Answered,
            unauthenticated: false,
        })?;
        let began = Instant::now();
        let answer = self.http.send(request, ANSWER_CAP, self.http_timeout).await;
        let status = answer.as_ref().ok().map(|a| a.status);
        let result = match answer {
            Ok(answer) if answer.status == 200 => read(action, &answer),
            Ok(answer) => Err(self.refusal(action, &answer)),
            Err(error) => Err(unanswered(action, &error)),
        };
        self.observer.call(CallReport {
            service: Service::Ec2,
            api: action.name(),
            status,
            error: result.as_ref().err().map(|failed| failed.error.code.as_str()),
            latency: began.elapsed(),
        });
        result
    }

    fn signed(&self, body: Bytes, credentials: &Credentials) -> Result<Request<Full<Bytes>>, String> {
        let date = amz_date(self.skew.correct(SystemTime::now()));
        let host = host_header(&self.endpoint);
        let path = self.endpoint.path();
        let mut headers = vec![
            ("content-type", FORM),
            ("host", host.as_str()),
            ("x-amz-date", date.as_str()),
        ];
        if let Some(token) = &credentials.session_token {
            headers.push(("x-amz-security-token", token.expose()));
        }
        let signable = Signable {
            method: "POST",
            path,
            query: &[],
            headers: &headers,
            body: &body,
        };
        let scope = Scope {
            region: &self.region,
            service: "ec2",
            date: &date,
        };
        let mut request = Request::post(self.endpoint.clone())
            .header("authorization", authorization(&signable, scope, credentials));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
            .header("user-agent", self.user_agent.clone())
            .body(Full::new(body))
            // The cause is not shown: it could hold a header's value, and one of them is a secret.
            .map_err(|_| "the request cannot be written: the credentials or the region hold characters no header may have".to_owned())
    }

    /// An answer that is no success.
    fn refusal(&self, action: Ec2Action, answer: &Answer) -> Failed {
        let document = ErrorDocument::parse(&answer.body).unwrap_or_else(|| ErrorDocument {
            code: own::HTTP.to_owned(),
            message: format!(
                "HTTP status {} without an error document; is the endpoint EC2's?",
                answer.status
            ),
            request_id: None,
        });
        let class = class_of(&document.code, &document.message, answer.status);
        let outcome = match class {
            ErrorClass::Throttled => Outcome::Throttled,
            ErrorClass::Retry if answer.status >= 500 => Outcome::Failed,
            _ => Outcome::Answered,
        };
        let renewable = matches!(
            document.code.as_str(),
            "AuthFailure"
                | "ExpiredToken"
                | "ExpiredTokenException"
                | "InvalidClientTokenId"
                | "RequestExpired"
                | "RequestTimeTooSkewed"
                | "SignatureDoesNotMatch"
        );
        if renewable {
            self.skew.learn(answer);
        }
        Failed {
            error: Ec2Error {
                class,
                code: document.code,
                message: document.message,
                request_id: document.request_id,
                retry_at: None,
                action,
                effect_unknown: !action.is_read() && outcome == Outcome::Failed,
            },
            outcome,
            unauthenticated: renewable,
        }
    }
}

fn read<T: DeserializeOwned>(action: Ec2Action, answer: &Answer) -> Result<T, Failed> {
    xml::parse_answer(action.name(), &answer.body).map_err(|cause| Failed {
        error: Ec2Error {
            effect_unknown: !action.is_read(),
            ..failure(
                action,
                own::MALFORMED,
                format!("the answer cannot be read: {}", xml::cut(&cause, 300)),
            )
        },
        outcome: Outcome::Failed,
        unauthenticated: false,
    })
}

fn unanswered(action: Ec2Action, cause: &HttpError) -> Failed {
    let (code, sent) = match cause {
        HttpError::Connect { .. } => (own::CONNECT, false),
        HttpError::Timeout { .. } => (own::TIMEOUT, true),
        HttpError::Broken { .. } => (own::BROKEN, true),
        HttpError::TooLong { .. } => (own::MALFORMED, true),
    };
    Failed {
        error: Ec2Error {
            effect_unknown: sent && !action.is_read(),
            ..failure(action, code, cause.to_string())
        },
        outcome: Outcome::Failed,
        unauthenticated: false,
    }
}

/// How far this machine's clock is from EC2's, learned from refusals.
#[derive(Debug, Default)]
pub(super) struct Skew(std::sync::atomic::AtomicI64);

impl Skew {
    fn correct(&self, now: SystemTime) -> SystemTime {
        let seconds = self.0.load(std::sync::atomic::Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        }
        .unwrap_or(now)
    }

    /// Compares the answer's `Date` with this machine's clock.
    fn learn(&self, answer: &Answer) {
        let date = answer
            .headers
            .get("date")
            .and_then(|v| v.to_str().ok())
            .and_then(parse_http_date);
        let Some(theirs) = date else { return };
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(0);
        let ahead = match theirs.duration_since(SystemTime::now()) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        };
        let wanted = if ahead.unsigned_abs() > SKEW.as_secs() {
            ahead
        } else {
            0
        };
        if self.0.swap(wanted, std::sync::atomic::Ordering::Relaxed) != wanted && wanted != 0 {
            tracing::warn!(
                seconds = wanted,
                "this machine's clock differs from EC2's: signing with EC2's time"
            );
        }
    }
}
