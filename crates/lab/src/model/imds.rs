//! What the instance metadata service tells an instance: session tokens, and a tree that lags behind the truth.
//!
//! Paths and formats: EC2 user guide, "Instance metadata categories". A change shows after a delay of its own; until
//! then the tree is the one before it, so it may list what is gone and miss what is there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::FaultKind;
use super::ids::InstanceId;
use super::imds_tree::Tree;
use super::vpc::{Fate, Vpc};

/// Longest life of a session token, six hours (EC2 user guide, "Use IMDSv2").
const LONGEST_TOKEN: u64 = 21_600;

/// What a metadata answer carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImdsBody {
    /// The value, or the listing of a directory, one name a line.
    Text(String),
    /// Nothing but the status.
    Empty,
}

/// What comes of a metadata request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImdsReply {
    /// HTTP status: 200, 400, 401, 404, or what the fault plan says.
    pub status: u16,
    /// What it carries.
    pub body: ImdsBody,
    /// How long the client waits for it.
    pub latency: Duration,
    /// Whether it gets there.
    pub fate: Fate,
}

/// Session tokens by their text: whose, and until when.
pub(crate) type Sessions = BTreeMap<String, (InstanceId, Duration)>;

impl Vpc {
    /// A change an instance's tree is to show.
    pub(crate) fn imds_change(&mut self, instance: &InstanceId) {
        let lag = self.weather.delay(self.config.timing.imds_lag);
        let now = self.now;
        let shows = self.imds_shows.entry(instance.clone()).or_default();
        let not_before = shows.back().map_or(Duration::ZERO, |(_, at)| *at);
        shows.push_back((now, not_before.max(now + lag)));
    }

    /// The moment whose state the tree of an instance shows now.
    fn imds_moment(&mut self, instance: &InstanceId) -> Duration {
        let now = self.now;
        let Some(shows) = self.imds_shows.get_mut(instance) else {
            return now;
        };
        // The newest change that shows stays: it says which state is seen until the next one shows.
        while shows.get(1).is_some_and(|(_, visible)| *visible <= now) {
            shows.pop_front();
        }
        match shows.front() {
            None => now,
            Some((made, visible)) if *visible <= now => match shows.get(1) {
                None => now,
                Some(_) => *made,
            },
            // Nothing shows yet: the state just before the first change.
            Some((made, _)) => made.saturating_sub(Duration::from_nanos(1)),
        }
    }

    /// Answers `GET path` of an instance that has shown a good token. `path` begins with a slash.
    pub fn imds(&mut self, now: Duration, instance: &InstanceId, path: &str) -> ImdsReply {
        self.advance(now);
        let (mut reply, stale) = match self.imds_weather(instance, path) {
            Ok(weather) => weather,
            Err(refusal) => return self.imds_done(instance, "GET", path, refusal),
        };
        let moment = match stale {
            Some(by) => now.saturating_sub(by),
            None => self.imds_moment(instance),
        };
        let (status, body) = match self.imds_value(instance, moment, path) {
            Some(text) => (200, ImdsBody::Text(text)),
            None => (404, ImdsBody::Empty),
        };
        if reply.status == 200 {
            (reply.status, reply.body) = (status, body);
        }
        self.imds_done(instance, "GET", path, reply)
    }

    fn imds_value(&mut self, instance: &InstanceId, moment: Duration, path: &str) -> Option<String> {
        let rest = path.strip_prefix('/')?;
        let (version, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if version.is_empty() {
            return Some("1.0\n2021-07-15\nlatest".to_owned());
        }
        let dated = version.len() == 10 && version.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if !(version == "latest" || version == "1.0" || dated) {
            return None;
        }
        let credentials = self.imds_credentials(instance);
        let tree = Tree::of(self, instance, moment, credentials.as_ref())?;
        tree.get(rest)
    }

    fn imds_credentials(&mut self, instance: &InstanceId) -> Option<super::rights::Credentials> {
        let role = self.instances.get(instance)?.role.clone()?;
        self.rights.session(self.now, instance, &role)
    }

    /// Answers `PUT /latest/api/token`: a session token good for `ttl` seconds, `None`: the header was missing or no
    /// number.
    pub fn imds_token(&mut self, now: Duration, instance: &InstanceId, ttl: Option<u64>) -> ImdsReply {
        self.advance(now);
        let path = "/latest/api/token";
        let (mut reply, _) = match self.imds_weather(instance, path) {
            Ok(weather) => weather,
            Err(refusal) => return self.imds_done(instance, "PUT", path, refusal),
        };
        if reply.status == 200 {
            match ttl.filter(|t| (1..=LONGEST_TOKEN).contains(t)) {
                None => reply.status = 400,
                Some(ttl) => {
                    let token = format!(
                        "AQAE{:016x}{:016x}{:016x}==",
                        self.weather.word(),
                        self.weather.word(),
                        self.weather.word()
                    );
                    let now = self.now;
                    self.sessions.retain(|_, (_, until)| *until > now);
                    self.sessions
                        .insert(token.clone(), (instance.clone(), now + Duration::from_secs(ttl)));
                    reply.body = ImdsBody::Text(token);
                }
            }
        }
        self.imds_done(instance, "PUT", path, reply)
    }

    /// Whether a request of an instance may be answered: its token is good, or it needs none. Seconds the token is
    /// still good for, where there is one.
    ///
    /// # Errors
    /// The 401 to send instead; it is logged.
    pub fn imds_session(
        &mut self,
        now: Duration,
        instance: &InstanceId,
        path: &str,
        token: Option<&str>,
    ) -> Result<Option<u64>, ImdsReply> {
        self.advance(now);
        let optional = self
            .instances
            .get(instance)
            .is_some_and(|i| i.http_tokens == super::config::HttpTokens::Optional);
        match token {
            None if optional => return Ok(None),
            None => {}
            Some(token) => {
                if let Some((whose, until)) = self.sessions.get(token)
                    && whose == instance
                    && self.now < *until
                {
                    return Ok(Some(until.saturating_sub(self.now).as_secs()));
                }
            }
        }
        let latency = self.weather.delay(self.config.timing.imds_latency);
        let reply = ImdsReply {
            status: 401,
            body: ImdsBody::Empty,
            latency,
            fate: Fate::Deliver,
        };
        Err(self.imds_done(instance, "GET", path, reply))
    }

    /// How many hops the answer to a token request of this instance travels.
    #[must_use]
    pub fn imds_hop_limit(&self, instance: &InstanceId) -> u8 {
        self.instances.get(instance).map_or(1, |i| i.hop_limit)
    }

    /// What the fault plan makes of a request; `Err`: it ends here.
    fn imds_weather(
        &mut self,
        instance: &InstanceId,
        path: &str,
    ) -> Result<(ImdsReply, Option<Duration>), ImdsReply> {
        let below = path
            .trim_start_matches('/')
            .split_once('/')
            .map_or("", |(_, rest)| rest);
        let fault = self.strike(None, Some(below), Some(instance));
        let latency = self.weather.delay(self.config.timing.imds_latency);
        let mut reply = ImdsReply {
            status: 200,
            body: ImdsBody::Empty,
            latency,
            fate: Fate::Deliver,
        };
        let mut stale = None;
        match fault {
            None | Some(FaultKind::Duplicate) => {}
            Some(FaultKind::Error { status, .. }) => {
                reply.status = status;
                return Err(reply);
            }
            Some(FaultKind::ErrorAfter { status, .. }) => reply.status = status,
            Some(FaultKind::Hang) => {
                reply.fate = Fate::Hang;
                return Err(reply);
            }
            Some(FaultKind::Drop) => {
                reply.fate = Fate::Lose;
                return Err(reply);
            }
            Some(FaultKind::HangAfter) => reply.fate = Fate::Hang,
            Some(FaultKind::LoseAnswer) => reply.fate = Fate::Lose,
            Some(FaultKind::Slow(spread)) => reply.latency += self.weather.delay(spread),
            Some(FaultKind::Stale(by)) => stale = Some(by),
        }
        Ok((reply, stale))
    }

    fn imds_done(&mut self, instance: &InstanceId, method: &str, path: &str, reply: ImdsReply) -> ImdsReply {
        let result = match reply.fate {
            Fate::Hang => "hung".to_owned(),
            Fate::Lose => "lost".to_owned(),
            Fate::Deliver if reply.status == 200 => "ok".to_owned(),
            Fate::Deliver => reply.status.to_string(),
        };
        self.log_imds(instance, method, path, result, reply.latency);
        reply
    }
}
