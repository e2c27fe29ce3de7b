//! Who calls, and what they may do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::config::RoleConfig;
use super::error::ApiError;
use super::faults::matches_pattern;
use super::ids::InstanceId;
use super::rng::Rng;

/// Who makes a call: a role, and the instance whose credentials speak for it, if any.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Caller {
    /// The role's name.
    pub role: String,
    /// The instance.
    pub instance: Option<InstanceId>,
}

impl Caller {
    /// The people who run the lab.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            role: RoleConfig::ADMIN.to_owned(),
            instance: None,
        }
    }

    /// A node, with the role nodes have.
    #[must_use]
    pub fn node(instance: &InstanceId) -> Self {
        Self {
            role: RoleConfig::NODE.to_owned(),
            instance: Some(instance.clone()),
        }
    }
}

/// What signs a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Credentials {
    /// `AKIA…` of a role's own key, `ASIA…` of a session.
    pub access_key: String,
    /// The signing secret.
    #[serde(skip)]
    pub secret_key: String,
    /// Must come with each request of a session.
    #[serde(skip)]
    pub session_token: Option<String>,
    /// For whom they speak.
    pub caller: Caller,
    /// Lab time from which they are good.
    pub issued: Duration,
    /// Lab time until which they are good; `None`: for ever.
    pub expires: Option<Duration>,
}

/// How long the credentials IMDS hands out are good, as EC2's are. New ones appear when half the time has passed.
const SESSION_LIFE: Duration = Duration::from_secs(6 * 3600);

/// Roles and keys.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    roles: BTreeMap<String, Vec<String>>,
    keys: BTreeMap<String, Credentials>,
    sessions: BTreeMap<InstanceId, String>,
    rng: Rng,
}

impl Rights {
    pub(crate) fn new(roles: &[RoleConfig], seed: u64) -> Self {
        let mut rights = Self {
            roles: BTreeMap::new(),
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            rng: Rng::new(seed),
        };
        for role in roles {
            rights.set_role(role);
            let caller = Caller {
                role: role.name.clone(),
                instance: None,
            };
            rights.issue("AKIA", caller, Duration::ZERO, None);
        }
        rights
    }

    /// Adds a role or replaces what it may do.
    pub(crate) fn set_role(&mut self, role: &RoleConfig) {
        self.roles.insert(role.name.clone(), role.actions.clone());
    }

    fn issue(&mut self, kind: &str, caller: Caller, now: Duration, life: Option<Duration>) -> String {
        let access_key = format!("{kind}{}", self.text(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"));
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let credentials = Credentials {
            access_key: access_key.clone(),
            secret_key: self.text(40, letters),
            session_token: life.map(|_| self.text(200, letters)),
            caller,
            issued: now,
            expires: life.map(|l| now + l),
        };
        self.keys.insert(access_key.clone(), credentials);
        access_key
    }

    fn text(&mut self, length: usize, letters: &[u8]) -> String {
        let count = u64::try_from(letters.len()).unwrap_or(0);
        (0..length)
            .filter_map(|_| {
                usize::try_from(self.rng.below(count))
                    .ok()
                    .and_then(|i| letters.get(i))
            })
            .map(|b| char::from(*b))
            .collect()
    }

    /// The key of a role itself.
    pub(crate) fn role_key(&self, role: &str) -> Option<&Credentials> {
        self.keys
            .values()
            .find(|k| k.caller.instance.is_none() && k.caller.role == role)
    }

    pub(crate) fn find(&self, access_key: &str) -> Option<&Credentials> {
        self.keys.get(access_key)
    }

    /// The credentials an instance reads from IMDS at this time.
    pub(crate) fn session(
        &mut self,
        now: Duration,
        instance: &InstanceId,
        role: &str,
    ) -> Option<Credentials> {
        let current = self.sessions.get(instance).and_then(|k| self.keys.get(k));
        let fresh = current.filter(|c| c.caller.role == role && now < c.issued + SESSION_LIFE / 2);
        if let Some(credentials) = fresh {
            return Some(credentials.clone());
        }
        self.keys.retain(|_, k| k.expires.is_none_or(|e| now < e));
        let caller = Caller {
            role: role.to_owned(),
            instance: Some(instance.clone()),
        };
        let key = self.issue("ASIA", caller, now, Some(SESSION_LIFE));
        self.sessions.insert(instance.clone(), key.clone());
        self.keys.get(&key).cloned()
    }

    /// Takes away all credentials of an instance that is gone.
    pub(crate) fn forget(&mut self, instance: &InstanceId) {
        self.sessions.remove(instance);
        self.keys
            .retain(|_, k| k.caller.instance.as_ref() != Some(instance));
    }

    /// Refuses an action the caller's role does not list.
    pub(crate) fn authorize(&self, account: &str, caller: &Caller, action: &str) -> Result<(), ApiError> {
        let full = format!("ec2:{action}");
        let allowed = self
            .roles
            .get(&caller.role)
            .is_some_and(|a| a.iter().any(|p| matches_pattern(p, &full)));
        if allowed {
            return Ok(());
        }
        let session = caller.instance.as_ref().map_or("lab", InstanceId::as_str);
        Err(ApiError::with_status(
            403,
            "UnauthorizedOperation",
            format!(
                "You are not authorized to perform this operation. User: arn:aws:sts::{account}:assumed-role/{}/{session} \
                 is not authorized to perform: {full} because no identity-based policy allows the {full} action",
                caller.role
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights() -> Rights {
        let role = |name: &str, actions: &[&str]| RoleConfig {
            name: name.to_owned(),
            actions: actions.iter().map(|a| (*a).to_owned()).collect(),
        };
        Rights::new(
            &[
                role("reader", &["ec2:Describe*"]),
                role("tagger", &["ec2:CreateTags"]),
            ],
            1,
        )
    }

    #[test]
    fn a_role_does_what_it_lists_and_nothing_else() {
        let r = rights();
        let may = |role: &str, action| {
            r.authorize(
                "1",
                &Caller {
                    role: role.to_owned(),
                    instance: None,
                },
                action,
            )
            .is_ok()
        };
        assert!(may("reader", "DescribeSubnets") && may("tagger", "CreateTags"));
        assert!(
            !may("reader", "CreateTags") && !may("tagger", "CreateTagsToo") && !may("nobody", "CreateTags")
        );
    }

    #[test]
    fn a_session_is_renewed_at_half_its_life_and_the_old_one_stays_good_to_its_end() {
        let mut r = rights();
        let i = InstanceId::from("i-00000001");
        let hour = Duration::from_secs(3600);
        let first = r.session(Duration::ZERO, &i, "reader").unwrap();
        assert_eq!(r.session(hour * 2, &i, "reader"), Some(first.clone()));
        let second = r.session(hour * 4, &i, "reader").unwrap();
        assert_ne!(first.access_key, second.access_key);
        assert!(r.find(&first.access_key).is_some());
        r.session(hour * 8, &i, "reader").unwrap();
        assert!(r.find(&first.access_key).is_none());
    }
}
