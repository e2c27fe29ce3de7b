//! Who calls, and what they may do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::config::RoleConfig;
use super::error::ApiError;
use super::ids::InstanceId;
use super::policy::{Asked, Policy, Verdict};
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
    roles: BTreeMap<String, Policy>,
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
        self.roles.insert(role.name.clone(), role.policy.clone());
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

    /// What a role may do, if there is such a role.
    pub(crate) fn policy(&self, role: &str) -> Option<&Policy> {
        self.roles.get(role)
    }

    /// What the caller's policy says of an action, whatever it is about; `None`: that depends on what it is about.
    pub(crate) fn of_action(&self, caller: &Caller, action: &str) -> Option<Verdict> {
        let Some(policy) = self.roles.get(&caller.role) else {
            return Some(Verdict::NotAllowed);
        };
        policy.of_action(&format!("ec2:{action}"))
    }

    /// Whether the caller's policy allows the action on something, under some condition.
    pub(crate) fn mentions(&self, caller: &Caller, action: &str) -> bool {
        self.roles
            .get(&caller.role)
            .is_some_and(|policy| policy.mentions(&format!("ec2:{action}")))
    }

    /// Refuses what the caller's policy does not allow, or denies.
    pub(crate) fn authorize(&self, account: &str, caller: &Caller, asked: &Asked) -> Result<(), ApiError> {
        let policy = self.roles.get(&caller.role);
        match policy.map_or(Verdict::NotAllowed, |policy| policy.judge(asked)) {
            Verdict::Allowed => Ok(()),
            verdict => Err(refusal(account, caller, asked, verdict)),
        }
    }
}

/// As EC2 words it: clients and people look for the action in it.
pub(crate) fn refusal(account: &str, caller: &Caller, asked: &Asked, verdict: Verdict) -> ApiError {
    let session = caller.instance.as_ref().map_or("lab", InstanceId::as_str);
    let (action, role) = (&asked.action, &caller.role);
    let on = asked
        .arn
        .as_ref()
        .map_or_else(String::new, |arn| format!(" on resource: {arn}"));
    let why = if verdict == Verdict::Denied {
        "with an explicit deny in an identity-based policy".to_owned()
    } else {
        format!("because no identity-based policy allows the {action} action")
    };
    ApiError::with_status(
        403,
        "UnauthorizedOperation",
        format!(
            "You are not authorized to perform this operation. User: arn:aws:sts::{account}:assumed-role/{role}/{session} \
             is not authorized to perform: {action}{on} {why}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights() -> Rights {
        let role = |name: &str, actions: &[&str]| RoleConfig {
            name: name.to_owned(),
            policy: Policy::allowing(actions),
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
                &Asked {
                    action: format!("ec2:{action}"),
                    arn: None,
                    context: BTreeMap::new(),
                },
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
