//! The plugins' configuration file: from the template, the settings and what the plugins speak. Pure.
//!
//! The text has tokens, as amazon-vpc-cni-k8s's has, and users mount templates of their own. Beside the tokens only what a
//! setting asks for is changed: keys that nobody here knows stay.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use vpcnet_config::{Config, Family, PortChoice};
use vpcnet_rpc::AGENT_SOCKET;

/// Where no template is given.
pub(crate) const BUILT_IN: &str = include_str!("10-aws.conflist");
/// Our plugin's `type`.
const AWS_CNI: &str = "aws-cni";

/// Range, default route and files of the egress plugin: amazon-vpc-cni-k8s's, since pods on both have addresses of it.
struct Egress {
    subnet: &'static str,
    to: &'static str,
    directory: &'static str,
}

const EGRESS_V4: Egress = Egress {
    subnet: "169.254.172.0/22",
    to: "0.0.0.0/0",
    directory: "/run/cni/v6pd/egress-v4-ipam",
};
const EGRESS_V6: Egress = Egress {
    subnet: "fd00::ac:00/118",
    to: "::/0",
    directory: "/run/cni/v4pd/egress-v6-ipam",
};

/// The template cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConflistError {
    /// With its tokens replaced it is no JSON.
    #[error("with its tokens replaced it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It has not the form of a network's configuration list.
    #[error("{key}: {expected} was expected, as in a CNI network configuration list")]
    Form {
        /// Where.
        key: String,
        /// What belongs there.
        expected: &'static str,
    },
}

fn wrong(key: impl Into<String>, expected: &'static str) -> ConflistError {
    ConflistError::Form {
        key: key.into(),
        expected,
    }
}

/// Whether pods reach the other family through the node, so that the node's address of that family is needed.
pub(crate) fn egress(config: &Config) -> bool {
    config.egress.v4 || config.egress.v6
}

/// A network configuration list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conflist(Map<String, Value>);

impl Conflist {
    /// From a template. `node` is the node's address of the family that egress reaches; without one egress is off.
    ///
    /// # Errors
    /// [`ConflistError`].
    pub(crate) fn render(
        template: &str,
        config: &Config,
        node: Option<IpAddr>,
    ) -> Result<Self, ConflistError> {
        let mut text = template.to_owned();
        for (token, value) in tokens(config, node) {
            text = text.replace(token, &in_json(&value));
        }
        let Value::Object(list) = serde_json::from_str(&text)? else {
            return Err(wrong("the file", "an object"));
        };
        let mut conflist = Self(list);
        conflist.check()?;
        conflist.take_settings(config);
        Ok(conflist)
    }

    fn check(&self) -> Result<(), ConflistError> {
        for key in ["name", "cniVersion"] {
            if self.text_at(key).is_none_or(str::is_empty) {
                return Err(wrong(key, "a text"));
            }
        }
        let plugins = self.0.get("plugins").and_then(Value::as_array);
        let plugins = plugins
            .filter(|p| !p.is_empty())
            .ok_or_else(|| wrong("plugins", "a list of plugins"))?;
        for (at, plugin) in plugins.iter().enumerate() {
            // It becomes a file's name.
            let named = plugin["type"]
                .as_str()
                .is_some_and(|kind| !kind.is_empty() && !kind.contains('/'));
            if !named {
                return Err(wrong(format!("plugins[{at}].type"), "a plugin's name"));
            }
        }
        Ok(())
    }

    fn take_settings(&mut self, config: &Config) {
        if config.plugin.bandwidth {
            self.chain(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }));
        }
        if config.plugin.disable_pod_v6 {
            let off = ["all", "default", "lo"]
                .map(|link| (format!("net.ipv6.conf.{link}.disable_ipv6"), Value::from("1")));
            self.chain(json!({ "type": "tuning", "sysctl": Map::from_iter(off) }));
        }
        // The plugin has amazon-vpc-cni-k8s's path built in.
        if config.socket.as_os_str() != AGENT_SOCKET {
            let socket = Value::from(config.socket.to_string_lossy());
            if let Some(ours) = self.ours_mut() {
                ours.entry("agentSocket").or_insert(socket);
            }
        }
    }

    /// Puts a plugin at the chain's end, unless it is in it.
    fn chain(&mut self, plugin: Value) {
        let kind = plugin.get("type").and_then(Value::as_str);
        if self.types().any(|there| Some(there) == kind) {
            return;
        }
        if let Some(Value::Array(plugins)) = self.0.get_mut("plugins") {
            plugins.push(plugin);
        }
    }

    fn ours_mut(&mut self) -> Option<&mut Map<String, Value>> {
        let plugins = self.0.get_mut("plugins")?.as_array_mut()?;
        let ours = plugins.iter_mut().find(|p| p["type"] == AWS_CNI)?;
        ours.as_object_mut()
    }

    fn text_at(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// The programs of the chain, in its order.
    pub(crate) fn types(&self) -> impl Iterator<Item = &str> {
        let plugins = self.0.get("plugins").and_then(Value::as_array);
        plugins.into_iter().flatten().filter_map(|p| p["type"].as_str())
    }

    /// What our plugin is to be asked with for STATUS, where the chain has it. Its log is stderr: the log file's path is the
    /// host's.
    pub(crate) fn question(&self) -> Option<Value> {
        let plugins = self.0.get("plugins")?.as_array()?;
        let mut ours = plugins.iter().find(|p| p["type"] == AWS_CNI)?.clone();
        let keys = ours.as_object_mut()?;
        keys.insert("name".into(), self.0.get("name")?.clone());
        // The version that has STATUS.
        keys.insert("cniVersion".into(), "1.1.0".into());
        keys.insert("pluginLogFile".into(), "stderr".into());
        Some(ours)
    }

    /// Says which versions of the specification may be spoken: those that all of `spoken` have, from `cniVersion` on. A list
    /// that the template has stays.
    pub(crate) fn speak(&mut self, spoken: &[BTreeSet<String>]) {
        if self.0.contains_key("cniVersions") {
            return;
        }
        let least = self.text_at("cniVersion").and_then(number);
        let Some((first, rest)) = spoken.split_first() else {
            return;
        };
        let mut common: Vec<_> = first
            .iter()
            .filter(|version| rest.iter().all(|other| other.contains(*version)))
            .filter_map(|version| Some((number(version)?, version)))
            .filter(|(number, _)| least.is_none_or(|least| *number >= least))
            .collect();
        common.sort();
        let versions: Vec<&String> = common.into_iter().map(|(_, version)| version).collect();
        // Only what `cniVersion` says anyway is nothing to be added.
        if versions.len() > 1 {
            self.0.insert("cniVersions".into(), json!(versions));
        }
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.0).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// `1.0.0`.
fn number(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(a)), Some(Ok(b)), Some(Ok(c)), None) => Some((a, b, c)),
        _ => None,
    }
}

/// As it stands between the quotes of a JSON text.
fn in_json(value: &str) -> String {
    let quoted = Value::from(value).to_string();
    let inner = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

fn tokens(config: &Config, node: Option<IpAddr>) -> [(&'static str, String); 12] {
    let plugin = &config.plugin;
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (egress_log, range) = match config.family {
        Family::V6 => (&plugin.egress_v4_log_file, EGRESS_V4),
        Family::V4 => (&plugin.egress_v6_log_file, EGRESS_V6),
    };
    let node = node.filter(|_| egress(config));
    let ports = match config.host.ports {
        PortChoice::Random => "prng",
        PortChoice::HashRandom => "hashrandom",
        PortChoice::Kernel => "none",
    };
    [
        ("__VETHPREFIX__", config.host.veth_prefix.clone()),
        ("__MTU__", config.host.pod_mtu.to_string()),
        ("__PODSGENFORCINGMODE__", config.branch.enforcing.word().into()),
        ("__PLUGINLOGFILE__", path(&plugin.log_file)),
        ("__PLUGINLOGLEVEL__", plugin.log_level.word().into()),
        ("__EGRESSPLUGINLOGFILE__", path(egress_log)),
        ("__EGRESSPLUGINENABLED__", node.is_some().to_string()),
        ("__EGRESSPLUGINIPAMSUBNET__", range.subnet.into()),
        ("__EGRESSPLUGINIPAMDST__", range.to.into()),
        ("__EGRESSPLUGINIPAMDATADIR__", range.directory.into()),
        ("__RANDOMIZESNAT__", ports.into()),
        (
            "__NODEIP__",
            node.map(|node| node.to_string()).unwrap_or_default(),
        ),
    ]
}

#[cfg(test)]
#[path = "conflist_tests.rs"]
mod tests;
