//! Credentials: what they are, and one place that keeps them fresh.

mod container;
mod role;
mod source;
mod web_identity;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use container::ContainerSource;
pub use source::CredentialSource;
pub use web_identity::WebIdentitySource;

use crate::error::ConfigError;
use crate::gate::chance;
use crate::http::HttpClient;
use crate::{NoObserver, Observer};

/// Credentials are renewed so long before they end, and up to as much earlier again so that nodes do not renew together.
const MARGIN: Duration = Duration::from_secs(300);
/// Credentials that are at their end when they come (their source lags, or this clock is wrong) are used, and asked for again so much later.
const STALE_PERIOD: Duration = Duration::from_secs(60);
/// Longest time one renewal may take.
const RENEWAL: Duration = Duration::from_secs(10);
/// Longest wait after a renewal that failed.
const FAILURE_CAP: Duration = Duration::from_secs(60);

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A key to sign with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Names the key; not secret.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: Secret,
    /// Goes with temporary keys.
    pub session_token: Option<Secret>,
    /// When it ends by its source's clock; `None` for keys that do not end.
    pub expires: Option<SystemTime>,
}

impl Credentials {
    /// A key that does not end.
    pub fn new(access_key_id: &str, secret_access_key: &str, session_token: Option<&str>) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(secret_access_key),
            session_token: session_token.map(Secret::new),
            expires: None,
        }
    }
}

/// Why there are no credentials. Holds nothing of what a source answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no credentials from {origin}: {cause}")]
pub struct CredentialsError {
    /// Where they were to come from.
    pub origin: &'static str,
    /// What failed, and what can be done.
    pub cause: String,
    passing: bool,
    retry_at: Option<Instant>,
}

impl CredentialsError {
    /// The source did not answer, or not now.
    pub(crate) fn passing(origin: &'static str, cause: impl Into<String>) -> Self {
        Self {
            origin,
            cause: cause.into(),
            passing: true,
            retry_at: None,
        }
    }

    /// The source refuses, or is set up wrongly.
    pub(crate) fn lasting(origin: &'static str, cause: impl Into<String>) -> Self {
        Self {
            origin,
            cause: cause.into(),
            passing: false,
            retry_at: None,
        }
    }

    /// Whether it may succeed later without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        self.passing
    }

    /// When the source is asked again at the earliest.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

#[derive(Default)]
struct State {
    current: Option<Held>,
    failed: Option<(CredentialsError, Instant)>,
    failures: u32,
}

struct Held {
    credentials: Arc<Credentials>,
    /// `None`: never.
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

/// Credentials from one source, renewed before they end, by one caller at a time. Cloning is cheap; clones share them.
///
/// A source is asked only when somebody needs credentials: an idle node asks nobody. While a renewal is under way, or fails, the
/// credentials at hand are used as long as they last.
#[derive(Clone)]
pub struct CredentialProvider {
    inner: Arc<Inner>,
}

struct Inner {
    source: CredentialSource,
    http: HttpClient,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
    renewing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for CredentialProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialProvider")
            .field("source", &self.inner.source)
            .finish_non_exhaustive()
    }
}

impl CredentialProvider {
    /// Credentials from `source`. Asks for none yet.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(source: CredentialSource) -> Result<Self, ConfigError> {
        Self::with_observer(source, Arc::new(NoObserver))
    }

    /// Credentials from `source`, with somebody told of the calls.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn with_observer(source: CredentialSource, observer: Arc<dyn Observer>) -> Result<Self, ConfigError> {
        Ok(Self {
            inner: Arc::new(Inner {
                source,
                http: HttpClient::new()?,
                observer,
                state: Mutex::new(State::default()),
                renewing: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// Where the credentials come from, for people.
    pub fn origin(&self) -> &'static str {
        self.inner.source.origin()
    }

    /// Credentials that can be used now.
    ///
    /// # Errors
    /// If there are none at hand and the source gives none before `deadline`, or gave none just now.
    pub async fn get(&self, deadline: Instant) -> Result<Arc<Credentials>, CredentialsError> {
        let inner = &*self.inner;
        let at_hand = match inner.at_hand() {
            AtHand::Fresh(credentials) => return Ok(credentials),
            AtHand::Due(credentials) => Some(credentials),
            AtHand::None => None,
        };
        // One caller renews; others use what is at hand, or wait if there is nothing.
        let _renewing = match &at_hand {
            Some(credentials) => match inner.renewing.try_lock() {
                Ok(guard) => guard,
                Err(_) => return Ok(credentials.clone()),
            },
            None => match tokio::time::timeout_at(deadline.into(), inner.renewing.lock()).await {
                Ok(guard) => guard,
                Err(_) => return Err(inner.late()),
            },
        };
        if let AtHand::Fresh(credentials) = inner.at_hand() {
            return Ok(credentials);
        }
        if let Some(error) = inner.failed_just_now() {
            return at_hand.ok_or(error);
        }
        let until = deadline.min(Instant::now() + RENEWAL);
        let renewed =
            tokio::time::timeout_at(until.into(), inner.source.fetch(&inner.http, &*inner.observer)).await;
        match renewed.unwrap_or_else(|_| Err(inner.late())) {
            Ok(credentials) => Ok(inner.keep(credentials)),
            Err(error) => {
                let error = inner.note_failure(error);
                at_hand.ok_or(error)
            }
        }
    }

    /// EC2 did not accept these credentials: the next caller asks the source again (if nobody has since).
    pub(crate) fn invalidate(&self, refused: &Credentials) {
        let mut state = self.inner.state();
        if state
            .current
            .as_ref()
            .is_some_and(|held| *held.credentials == *refused && held.ends_at.is_some())
        {
            state.current = None;
        }
    }
}

enum AtHand {
    Fresh(Arc<Credentials>),
    Due(Arc<Credentials>),
    None,
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_hand(&self) -> AtHand {
        let now = Instant::now();
        match &self.state().current {
            Some(held) if held.renew_at.is_none_or(|at| now < at) => AtHand::Fresh(held.credentials.clone()),
            Some(held) if held.ends_at.is_none_or(|at| now < at) => AtHand::Due(held.credentials.clone()),
            _ => AtHand::None,
        }
    }

    fn failed_just_now(&self) -> Option<CredentialsError> {
        let state = self.state();
        state
            .failed
            .as_ref()
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(error, _)| error.clone())
    }

    fn late(&self) -> CredentialsError {
        CredentialsError::passing(self.source.origin(), "it did not answer in time")
    }

    fn keep(&self, credentials: Credentials) -> Arc<Credentials> {
        let credentials = Arc::new(credentials);
        let now = Instant::now();
        let held = match credentials.expires {
            None => Held {
                credentials: credentials.clone(),
                renew_at: None,
                ends_at: None,
            },
            Some(expires) => {
                // From here on the monotonic clock counts: a jump of the wall clock does not end good credentials.
                let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
                let early = MARGIN + MARGIN.mul_f64(chance());
                let renew_in = left.saturating_sub(early).max(STALE_PERIOD);
                let ends_at = Some(now + left.max(STALE_PERIOD * 2));
                Held {
                    credentials: credentials.clone(),
                    renew_at: Some(now + renew_in),
                    ends_at,
                }
            }
        };
        let mut state = self.state();
        *state = State {
            current: Some(held),
            failed: None,
            failures: 0,
        };
        credentials
    }

    fn note_failure(&self, mut error: CredentialsError) -> CredentialsError {
        let mut state = self.state();
        let bound = Duration::from_secs(1)
            .saturating_mul(1 << state.failures.min(6))
            .min(FAILURE_CAP);
        state.failures += 1;
        let until = Instant::now() + bound.mul_f64(0.5 + chance() / 2.0);
        error.retry_at = Some(until);
        state.failed = Some((error.clone(), until));
        error
    }
}

#[cfg(test)]
mod tests;
