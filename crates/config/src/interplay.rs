//! What settings do to each other: which excludes which, which goes before which, which needs which.

use crate::config::{Config, Family};
use crate::error::{ConfigError, Finding};
use crate::parse;
use crate::read::Reading;
use crate::reader::Reader;
use crate::variable::{Kind, Variable};
use crate::variables::{self, vars};

/// Exactly one of the two families.
pub(crate) fn families(r: &mut Reader, v4: bool, v6: bool) {
    let reason = match (v4, v6) {
        (true, true) => "the pods of a node have addresses of one family; set one of the two to false",
        (false, false) => "pods would have no addresses; set one of the two to true",
        _ => return,
    };
    r.find(Finding::Refused(ConfigError::Contradiction {
        settings: format!("ENABLE_IPv4={v4} and ENABLE_IPv6={v6}"),
        reason,
    }));
}

/// Adds to the findings what only shows when all values are known.
pub(crate) fn judge(reading: &mut Reading) {
    let mut judge = Judge {
        reading,
        found: Vec::new(),
    };
    judge.modes();
    judge.credentials();
    judge.targets();
    judge.interfaces();
    judge.host();
    judge.servers();
    judge.older_names();
    judge.retired();
    let found = judge.found;
    reading.findings.extend(found);
}

struct Judge<'a> {
    reading: &'a Reading,
    found: Vec<Finding>,
}

impl Judge<'_> {
    fn config(&self) -> &Config {
        &self.reading.config
    }

    fn refuse(&mut self, settings: &str, reason: &'static str) {
        self.found.push(Finding::Refused(ConfigError::Contradiction {
            settings: settings.to_owned(),
            reason,
        }));
    }

    fn note(&mut self, text: String) {
        self.found.push(Finding::Noted(text));
    }

    /// The setting has no effect. Said only if it asks for something else than the default, which the manifest spells out.
    fn idle(&mut self, variable: &Variable, because: &str) {
        if let Some(value) = self.changed(variable) {
            let name = variable.name;
            self.found.push(Finding::Ignored(format!(
                "{name}={} has no effect: {because}",
                brief(value)
            )));
        }
    }

    /// The value, if it holds and is not what the default says.
    fn changed(&self, variable: &Variable) -> Option<&str> {
        let value = self.reading.accepted(variable)?;
        (!same(variable.kind, value, variable.default)).then_some(value)
    }

    fn modes(&mut self) {
        let v6 = self.config().family == Family::V6;
        let pool = &self.config().pool;
        let prefixes = pool.prefixes;
        let no_target =
            pool.warm_prefix == 0 && pool.warm_ip.is_none() && pool.minimum_ip.is_none() && !pool.auto;
        if v6 && !prefixes {
            self.refuse(
                "ENABLE_IPv6=true without ENABLE_PREFIX_DELEGATION=true",
                "IPv6 addresses come from prefixes; set both",
            );
        }
        if v6 && self.config().interfaces.custom_networking.is_some() {
            self.refuse(
                "ENABLE_IPv6=true with AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true",
                "custom networking is for IPv4 only; unset one of the two",
            );
        }
        if prefixes && !v6 && no_target {
            self.refuse(
                "ENABLE_PREFIX_DELEGATION=true with WARM_PREFIX_TARGET=0",
                "with neither WARM_IP_TARGET nor MINIMUM_IP_TARGET nothing is kept for pods; set one of the three to 1 or more",
            );
        }
    }

    /// The EC2 client would refuse these at the start as well: here it is said together with all else.
    fn credentials(&mut self) {
        let set = |v: &Variable| {
            let mut given = self.reading.given.iter();
            given.any(|g| g.variable.name == v.name && !g.value.is_empty())
        };
        let key = set(&vars::AWS_ACCESS_KEY_ID);
        let secret = set(&vars::AWS_SECRET_ACCESS_KEY);
        let token_alone = set(&vars::AWS_WEB_IDENTITY_TOKEN_FILE) && !set(&vars::AWS_ROLE_ARN);
        if key != secret {
            self.refuse(
                if key {
                    "AWS_ACCESS_KEY_ID without AWS_SECRET_ACCESS_KEY"
                } else {
                    "AWS_SECRET_ACCESS_KEY without AWS_ACCESS_KEY_ID"
                },
                "credentials need both; set the other, or neither",
            );
        } else if !key && token_alone {
            self.refuse(
                "AWS_WEB_IDENTITY_TOKEN_FILE without AWS_ROLE_ARN",
                "the token is exchanged for a role; name it",
            );
        }
    }

    fn targets(&mut self) {
        const COUNTED: [&Variable; 5] = [
            &vars::WARM_ENI_TARGET,
            &vars::WARM_IP_TARGET,
            &vars::MINIMUM_IP_TARGET,
            &vars::WARM_PREFIX_TARGET,
            &vars::MAX_ENI,
        ];
        let pool = &self.config().pool;
        let (prefixes, warm_prefix) = (pool.prefixes, pool.warm_prefix);
        let (warm_ip, minimum_ip) = (pool.warm_ip, pool.minimum_ip);
        let first = match (warm_ip, minimum_ip) {
            (Some(n), _) => Some(format!("WARM_IP_TARGET={n}")),
            (None, Some(n)) => Some(format!("MINIMUM_IP_TARGET={n}")),
            (None, None) => None,
        };
        let all_idle = if self.config().family == Family::V6 {
            Some("with IPv6 each interface has one /80 prefix, which never runs out")
        } else if !pool.provisioning {
            Some("nothing is created or given back")
        } else {
            None
        };
        if let Some(because) = all_idle {
            COUNTED.into_iter().for_each(|v| self.idle(v, because));
            return;
        }
        if self.config().pool.auto {
            for target in COUNTED.into_iter().filter(|v| v.name != vars::MAX_ENI.name) {
                self.idle(target, "VPCNET_WARM_POOL=auto sizes the pool by what comes");
            }
            return;
        }
        if let Some(first) = &first {
            let goes_before = format!("{first} goes before it");
            self.idle(&vars::WARM_ENI_TARGET, &goes_before);
            if prefixes && self.changed(&vars::WARM_PREFIX_TARGET).is_some() {
                self.note(format!(
                    "WARM_PREFIX_TARGET={warm_prefix} does not make the pool grow: {goes_before}; an interface is still freed only \
                     when the others hold that many empty prefixes"
                ));
            }
        } else if prefixes {
            self.idle(
                &vars::WARM_ENI_TARGET,
                "in prefix mode WARM_PREFIX_TARGET says what is kept",
            );
        }
        if !prefixes {
            self.idle(
                &vars::WARM_PREFIX_TARGET,
                "there are no prefixes without ENABLE_PREFIX_DELEGATION=true",
            );
        }
        if let (None, Some(n)) = (warm_ip, minimum_ip) {
            self.note(format!(
                "MINIMUM_IP_TARGET={n} alone keeps no address free once {n} pods run: each further pod waits for EC2; set \
                 WARM_IP_TARGET too"
            ));
        }
        if self.config().interfaces.multi_nic && first.is_some() {
            self.note("ENABLE_MULTI_NIC=true: network cards other than the first keep 1 address, whatever the targets say".into());
        }
    }

    fn interfaces(&mut self) {
        if self.config().interfaces.custom_networking.is_none() {
            for key in [&vars::ENI_CONFIG_ANNOTATION_DEF, &vars::ENI_CONFIG_LABEL_DEF] {
                self.idle(key, "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG is not true");
            }
        }
        if !self.config().branch.enabled {
            self.idle(
                &vars::POD_SECURITY_GROUP_ENFORCING_MODE,
                "ENABLE_POD_ENI is not true",
            );
        }
    }

    fn host(&mut self) {
        let host = &self.config().host;
        let (external, mtu, pod_mtu) = (host.external_snat, host.mtu, host.pod_mtu);
        let prefix = host.veth_prefix.clone();
        let other_family = match self.config().family {
            Family::V4 => (&vars::ENABLE_V4_EGRESS, "it is for IPv6 clusters"),
            Family::V6 => (&vars::ENABLE_V6_EGRESS, "it is for IPv4 clusters"),
        };
        if external {
            let because = "AWS_VPC_K8S_CNI_EXTERNALSNAT=true: there is no SNAT here";
            self.idle(&vars::AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS, because);
            self.idle(&vars::AWS_VPC_K8S_CNI_RANDOMIZESNAT, because);
        }
        self.idle(other_family.0, other_family.1);
        if pod_mtu > mtu {
            self.note(format!(
                "POD_MTU={pod_mtu} is more than AWS_VPC_ENI_MTU={mtu}: pods would send packets that the interfaces cannot"
            ));
        }
        // What names of network cards, loopback and VLAN devices on nodes begin with.
        let node = ["eth", "ens", "enp", "eno", "lo", "vlan"];
        if let Some(name) = node.iter().find(|n| n.starts_with(&prefix)) {
            self.note(format!(
                "AWS_VPC_K8S_CNI_VETHPREFIX={prefix}: names of the node's own interfaces ({name}…) may begin with it too, and would be \
                 taken for pods'"
            ));
        }
    }

    fn servers(&mut self) {
        if self.config().metrics.is_none() {
            self.idle(&vars::VPCNET_METRICS_BIND_ADDRESS, "DISABLE_METRICS=true");
        }
        if self.config().introspection.is_none() {
            self.idle(&vars::INTROSPECTION_BIND_ADDRESS, "DISABLE_INTROSPECTION=true");
        }
    }

    fn older_names(&mut self) {
        for (newer, older) in [
            (&vars::AWS_ENDPOINT_URL_EC2, &vars::AWS_EC2_ENDPOINT),
            (&vars::AWS_REGION, &vars::AWS_DEFAULT_REGION),
        ] {
            let (first, second) = (self.reading.accepted(newer), self.reading.accepted(older));
            if first.is_some() && second.is_some() && first != second {
                self.idle(older, &format!("{} goes before it", newer.name));
            }
        }
    }

    fn retired(&mut self) {
        for given in &self.reading.given {
            if given.variable.kind == Kind::Nothing && !given.value.is_empty() {
                self.found.push(Finding::Ignored(format!(
                    "{}={} has no effect any more; remove it",
                    given.variable.name,
                    brief(&given.value)
                )));
            }
        }
    }
}

/// Two values of a kind that mean the same.
pub(crate) fn same(kind: Kind, a: &str, b: &str) -> bool {
    // As where it is read, an empty number is none, which is also what 0 is.
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    match kind {
        Kind::Bool => parse::boolean(a) == parse::boolean(b),
        Kind::Number { .. } | Kind::NumberOrNone | Kind::Seconds { .. } | Kind::Mtu => number(a) == number(b),
        Kind::Bind => parse::bind(a) == parse::bind(b),
        Kind::ChoiceAnyCase(_) => a.eq_ignore_ascii_case(b),
        _ => a == b,
    }
}

/// A value as it is written in a manifest where that is plain, else quoted.
pub(crate) fn brief(value: &str) -> String {
    let plain =
        value.len() <= 60 && !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    if plain {
        value.to_owned()
    } else {
        crate::error::shown(value)
    }
}

/// The variable of that name.
pub(crate) fn known(name: &str) -> Option<&'static Variable> {
    variables::all().find(|v| v.name == name)
}
