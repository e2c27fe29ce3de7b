//! The network configuration on stdin.

use serde_json::{Map, Value};

use crate::env::{Verb, is_identifier};
use crate::error::Code;
use crate::json::{DecodeError, Object};
use crate::result::CniResult;
use crate::version::SpecVersion;

/// One container's interface in one network, as GC lists those that live.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attachment {
    /// `CNI_CONTAINERID` of its ADD.
    pub container_id: String,
    /// `CNI_IFNAME` of its ADD.
    pub if_name: String,
}

/// A network configuration: the keys of the specification, and everything else as it stood there.
#[derive(Clone, PartialEq, Debug)]
pub struct NetConf {
    /// `cniVersion`.
    pub version: SpecVersion,
    /// `name` of the network: part of an attachment's identity.
    pub name: String,
    /// `type`: the plugin's own name; empty when absent.
    pub plugin: String,
    /// `prevResult`, read by `version`.
    pub prev_result: Option<CniResult>,
    /// The attachments that live (GC). Absent is not the same as empty.
    pub valid_attachments: Option<Vec<Attachment>>,
    /// `runtimeConfig`: what the runtime fills in for the capabilities that the configuration claims.
    pub runtime_config: Map<String, Value>,
    /// All other keys.
    pub other: Map<String, Value>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON at all.
    #[error("network configuration on stdin is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON with a value of the wrong kind.
    #[error("network configuration: {0}")]
    Decode(#[from] DecodeError),
    /// A version that we do not speak.
    #[error(
        "incompatible CNI versions: configuration is {found:?}, plugin supports [0.3.1, 0.4.0, 1.0.0, 1.1.0]"
    )]
    Version {
        /// `cniVersion`; empty when absent.
        found: String,
    },
    /// The version does not have the verb.
    #[error(
        "incompatible CNI versions: {verb} is not defined in {version}; the configuration needs a newer cniVersion"
    )]
    VerbVersion {
        /// `CNI_COMMAND`.
        verb: Verb,
        /// `cniVersion`.
        version: SpecVersion,
    },
    /// No usable network name.
    #[error(
        "network configuration: name {found:?} is missing or malformed (letters, digits, '_', '.', '-'; starts with a letter or digit)"
    )]
    Name {
        /// `name`; empty when absent.
        found: String,
    },
    /// The result of the ADD cannot be read.
    #[error("could not parse prevResult: {0}")]
    PrevResult(#[source] DecodeError),
    /// CHECK came without the result of the ADD.
    #[error("network configuration: prevResult is missing, and CHECK compares with it")]
    NoPrevResult,
}

impl ConfigError {
    /// The code of the error object.
    pub fn code(&self) -> Code {
        match self {
            Self::Json(_) | Self::Decode(_) | Self::PrevResult(_) => Code::DECODING_FAILURE,
            Self::Version { .. } | Self::VerbVersion { .. } => Code::INCOMPATIBLE_VERSION,
            Self::Name { .. } | Self::NoPrevResult => Code::INVALID_CONFIG,
        }
    }
}

const OWN_KEYS: [&str; 5] = ["cniVersion", "name", "type", "prevResult", "runtimeConfig"];
/// The specification's key, and the name that version 1.1 of the reference library sends beside it.
const GC_KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

impl NetConf {
    /// Reads and checks the configuration of a call of `verb`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(verb: Verb, stdin: &[u8]) -> Result<Self, ConfigError> {
        let whole: Value = serde_json::from_slice(stdin).map_err(ConfigError::Json)?;
        let object = Object::new(&whole, "")?;
        let found = object.string("cniVersion")?.unwrap_or_default();
        let version = SpecVersion::parse(found).ok_or_else(|| ConfigError::Version {
            found: found.to_owned(),
        })?;
        let name = object.string("name")?.unwrap_or_default().to_owned();
        if !is_identifier(&name) {
            return Err(ConfigError::Name { found: name });
        }
        if !version.defines(verb) {
            return Err(ConfigError::VerbVersion { verb, version });
        }
        let plugin = object.string("type")?.unwrap_or_default().to_owned();
        let prev_result = match object.value("prevResult") {
            Some(value) => Some(CniResult::parse(value, "prevResult").map_err(ConfigError::PrevResult)?),
            None if verb == Verb::Check => return Err(ConfigError::NoPrevResult),
            None => None,
        };
        let valid_attachments = attachments(&object)?;
        let runtime_config = match object.value("runtimeConfig") {
            Some(Value::Object(map)) => map.clone(),
            _ => object.object("runtimeConfig").map(|_absent| Map::new())?,
        };
        let mut other = match whole {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        other.retain(|key, _| !OWN_KEYS.contains(&key.as_str()) && !GC_KEYS.contains(&key.as_str()));
        Ok(Self {
            version,
            name,
            plugin,
            prev_result,
            valid_attachments,
            runtime_config,
            other,
        })
    }

    /// The version for an error object about a configuration that may be unusable: its own, if it names one we speak.
    pub fn version_of(stdin: &[u8]) -> SpecVersion {
        serde_json::from_slice::<Value>(stdin)
            .ok()
            .and_then(|v| {
                v.get("cniVersion")
                    .and_then(Value::as_str)
                    .and_then(SpecVersion::parse)
            })
            .unwrap_or(SpecVersion::NEWEST)
    }

    /// The plugin's own keys, for typed access.
    pub fn keys(&self) -> Object<'_> {
        Object::of(&self.other, "")
    }
}

/// What either key lists. Both are sent with the same content; should they ever differ, what one of them
/// names lives.
fn attachments(object: &Object<'_>) -> Result<Option<Vec<Attachment>>, DecodeError> {
    let mut all: Option<Vec<Attachment>> = None;
    for key in GC_KEYS {
        for (at, value) in match object.array(key)? {
            Some(list) => {
                all.get_or_insert_default();
                list
            }
            None => continue,
        } {
            let entry = Object::new(value, at)?;
            let text = |key: &str| entry.string(key)?.ok_or_else(|| entry.missing(key, "a string"));
            let attachment = Attachment {
                container_id: text("containerID")?.to_owned(),
                if_name: text("ifname")?.to_owned(),
            };
            let list = all.get_or_insert_default();
            if !list.contains(&attachment) {
                list.push(attachment);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(verb: Verb, conf: &Value) -> Result<NetConf, ConfigError> {
        NetConf::parse(verb, conf.to_string().as_bytes())
    }

    #[track_caller]
    fn fails(verb: Verb, conf: &Value, code: u32, words: &str) {
        let error = parse(verb, conf).unwrap_err();
        assert_eq!(error.code(), Code(code), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn unknown_keys_are_kept() {
        let conf = parse(
            Verb::Add,
            &json!({ "cniVersion": "0.4.0", "name": "n", "type": "aws-cni", "mtu": "9001", "x": { "y": 1 },
                     "runtimeConfig": { "a": { "k": "v" } } }),
        )
        .unwrap();
        assert_eq!(conf.plugin, "aws-cni");
        assert_eq!(conf.keys().string("mtu").unwrap(), Some("9001"));
        assert_eq!(conf.other.get("x"), Some(&json!({ "y": 1 })));
        assert!(!conf.other.contains_key("name"));
        assert_eq!(conf.runtime_config.get("a"), Some(&json!({ "k": "v" })));
    }

    #[test]
    fn each_kind_of_bad_configuration_has_its_code() {
        let error = NetConf::parse(Verb::Add, b"{").unwrap_err();
        assert_eq!(error.code(), Code::DECODING_FAILURE);
        fails(Verb::Add, &json!([]), 6, "expected an object, found an array");
        fails(
            Verb::Add,
            &json!({ "cniVersion": 4 }),
            6,
            "cniVersion: expected a string",
        );
        fails(Verb::Add, &json!({ "name": "n" }), 1, "incompatible CNI versions");
        fails(
            Verb::Add,
            &json!({ "cniVersion": "9.9.9", "name": "n" }),
            1,
            "9.9.9",
        );
        fails(Verb::Add, &json!({ "cniVersion": "1.0.0" }), 7, "name");
        fails(
            Verb::Add,
            &json!({ "cniVersion": "1.0.0", "name": "-n" }),
            7,
            "\"-n\"",
        );
        fails(
            Verb::Add,
            &json!({ "cniVersion": "1.0.0", "name": "n", "runtimeConfig": [] }),
            6,
            "runtimeConfig",
        );
        fails(
            Verb::Check,
            &json!({ "cniVersion": "1.0.0", "name": "n" }),
            7,
            "prevResult",
        );
        fails(
            Verb::Check,
            &json!({ "cniVersion": "0.3.1", "name": "n" }),
            1,
            "CHECK",
        );
        fails(Verb::Gc, &json!({ "cniVersion": "1.0.0", "name": "n" }), 1, "GC");
        fails(
            Verb::Status,
            &json!({ "cniVersion": "0.4.0", "name": "n" }),
            1,
            "STATUS",
        );
        fails(
            Verb::Del,
            &json!({ "cniVersion": "0.4.0", "name": "n", "prevResult": { "ips": [{ "address": "x" }] } }),
            6,
            "could not parse prevResult: prevResult.ips[0].address",
        );
    }

    #[test]
    fn an_absent_list_of_attachments_is_not_an_empty_one() {
        let gc = |list: &Value| {
            let mut conf = json!({ "cniVersion": "1.1.0", "name": "n" });
            if let (Some(conf), Some(list)) = (conf.as_object_mut(), list.as_object()) {
                conf.extend(list.clone());
            }
            parse(Verb::Gc, &conf).map(|c| c.valid_attachments)
        };
        let a = json!({ "containerID": "a", "ifname": "eth0" });
        let b = json!({ "containerID": "b", "ifname": "eth0" });
        assert_eq!(gc(&json!({})).unwrap(), None);
        assert_eq!(gc(&json!({ "cni.dev/valid-attachments": null })).unwrap(), None);
        assert_eq!(
            gc(&json!({ "cni.dev/valid-attachments": [] })).unwrap(),
            Some(vec![])
        );
        assert_eq!(
            gc(&json!({ "cni.dev/attachments": [a] }))
                .unwrap()
                .map(|l| l.len()),
            Some(1)
        );
        let both = gc(&json!({ "cni.dev/valid-attachments": [a], "cni.dev/attachments": [a, b] }))
            .unwrap()
            .unwrap();
        assert_eq!(
            both.iter().map(|x| x.container_id.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        let error = gc(&json!({ "cni.dev/valid-attachments": [{ "containerID": "a" }] })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network configuration: cni.dev/valid-attachments[0].ifname: expected a string, found nothing"
        );
    }
}
