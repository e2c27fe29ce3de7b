//! The plugin's own keys in the configuration, with the AWS VPC CNI's names, defaults and tolerance.

use std::path::PathBuf;

use vpcnet_cni::{NetConf, Object};
use vpcnet_plugin::{Level, LogTo};

use crate::failure::Failure;

const DEFAULT_PREFIX: &str = "eni";
/// Prefix and eleven digits of the hash must be a link name of at most 15 bytes.
const LONGEST_PREFIX: usize = 4;
/// What a VPC's interfaces carry (jumbo frames); also the most that is accepted.
const DEFAULT_MTU: u32 = 9001;
/// What each IPv4 host must take (RFC 791).
const LEAST_MTU: u32 = 576;
/// Capability by which containerd passes the pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const NIC_CONFIG: &str = "k8s.amazonaws.com/nicConfig";
const MULTI_NIC: &str = "multi-nic-attachment";

/// The plugin's own keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settings {
    /// `vethPrefix`: how host veths begin; at most 4 characters.
    pub(crate) veth_prefix: String,
    /// `mtu`, in bytes.
    pub(crate) mtu: u32,
    /// A word on `mtu` when it was passed over.
    pub(crate) mtu_note: Option<String>,
    /// `pluginLogFile`.
    pub(crate) log_to: LogTo,
    /// `pluginLogLevel`.
    pub(crate) log_level: Level,
    /// The pod's annotation asks for an interface on each network card.
    pub(crate) multi_nic: bool,
    /// `VPCNET_SOCKET`, else `agentSocket`, else the default.
    pub(crate) agent_socket: PathBuf,
    /// The network policy agent's, in the same directory.
    pub(crate) npa_socket: PathBuf,
}

impl Settings {
    /// Reads them; `socket` is the environment's choice of the agent's socket.
    ///
    /// # Errors
    /// A value of the wrong kind, a veth prefix that makes no link name.
    pub(crate) fn read(conf: &NetConf, socket: Option<String>) -> Result<Self, Failure> {
        let keys = conf.keys();
        let text = |key: &str| keys.string(key).map_err(Failure::Settings);
        let veth_prefix = match text("vethPrefix")? {
            None | Some("") => DEFAULT_PREFIX.to_owned(),
            Some(prefix) => checked_prefix(prefix)?,
        };
        let (mtu, mtu_note) = mtu(text("mtu")?);
        // Only branch interfaces would use it, but a wrong type is told now rather than then.
        text("podSGEnforcingMode")?;
        let log_to = LogTo::parse(text("pluginLogFile")?.unwrap_or_default());
        let log_level = Level::parse(text("pluginLogLevel")?.unwrap_or_default());
        let chosen = socket.filter(|s| !s.is_empty());
        let agent_socket = match chosen {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(text("agentSocket")?.unwrap_or(vpcnet_rpc::AGENT_SOCKET)),
        };
        let npa = std::path::Path::new(vpcnet_rpc::NPA_SOCKET)
            .file_name()
            .unwrap_or_default();
        let npa_socket = agent_socket.with_file_name(npa);
        Ok(Self {
            veth_prefix,
            mtu,
            mtu_note,
            log_to,
            log_level,
            multi_nic: wants_multi_nic(conf),
            agent_socket,
            npa_socket,
        })
    }
}

fn checked_prefix(prefix: &str) -> Result<String, Failure> {
    let why = if prefix.len() > LONGEST_PREFIX {
        "it can be at most 4 characters long"
    } else if !prefix
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        "link names are made of letters, digits, '-', '_' and '.'"
    } else {
        return Ok(prefix.to_owned());
    };
    Err(Failure::VethPrefix {
        found: prefix.to_owned(),
        why,
    })
}

/// The original takes 9001 in the place of anything else, without an error, and so do we: a node must not lose its pods'
/// network to a typing error. The note is for the log.
fn mtu(text: Option<&str>) -> (u32, Option<String>) {
    let Some(text) = text else {
        return (DEFAULT_MTU, None);
    };
    match text.parse::<u32>() {
        Ok(mtu) if (LEAST_MTU..=DEFAULT_MTU).contains(&mtu) => (mtu, None),
        _ => (
            DEFAULT_MTU,
            Some(format!(
                "mtu {text:?} is no number from {LEAST_MTU} to {DEFAULT_MTU}: {DEFAULT_MTU}"
            )),
        ),
    }
}

/// Anything that is not the one value is passed over, as in the original: the annotation is a user's, and
/// `runtimeConfig` the runtime's, so neither may keep a pod from starting.
fn wants_multi_nic(conf: &NetConf) -> bool {
    let runtime = Object::of(&conf.runtime_config, "runtimeConfig");
    let annotations = runtime.object(ANNOTATIONS).ok().flatten();
    let asked = annotations.and_then(|a| a.string(NIC_CONFIG).ok().flatten());
    asked == Some(MULTI_NIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vpcnet_cni::Verb;

    fn read(extra: Value) -> Result<Settings, Failure> {
        read_with(extra, None)
    }

    fn read_with(extra: Value, socket: Option<&str>) -> Result<Settings, Failure> {
        let mut conf = json!({ "cniVersion": "1.1.0", "name": "aws-cni" });
        conf.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let conf = NetConf::parse(Verb::Add, conf.to_string().as_bytes()).unwrap();
        Settings::read(&conf, socket.map(str::to_owned))
    }

    #[test]
    fn nothing_set_gives_the_originals_defaults() {
        let settings = read(json!({})).unwrap();
        assert_eq!(settings.veth_prefix, "eni");
        assert_eq!(settings.mtu, 9001);
        assert_eq!(settings.log_to, LogTo::Stderr);
        assert_eq!(settings.log_level, Level::Debug);
        assert!(!settings.multi_nic);
        assert_eq!(
            settings.agent_socket,
            PathBuf::from("/var/run/aws-node/ipamd.sock")
        );
        assert_eq!(settings.npa_socket, PathBuf::from("/var/run/aws-node/npa.sock"));
        assert_eq!(read(json!({ "vethPrefix": "" })).unwrap().veth_prefix, "eni");
    }

    #[test]
    fn an_mtu_that_is_none_is_9001_without_an_error() {
        for (text, mtu) in [
            ("1500", 1500),
            ("576", 576),
            ("9001", 9001),
            ("575", 9001),
            ("9002", 9001),
            ("x", 9001),
        ] {
            let settings = read(json!({ "mtu": text })).unwrap();
            assert_eq!(settings.mtu, mtu, "{text}");
            assert_eq!(settings.mtu_note.is_some(), text.parse() != Ok(mtu), "{text}");
        }
    }

    #[test]
    fn wrong_types_and_prefixes_are_errors() {
        assert_eq!(read(json!({ "mtu": 9001 })).unwrap_err().code().0, 6);
        assert_eq!(read(json!({ "vethPrefix": 1 })).unwrap_err().code().0, 6);
        assert_eq!(read(json!({ "vethPrefix": "vpcni" })).unwrap_err().code().0, 7);
        assert_eq!(read(json!({ "vethPrefix": "a/b" })).unwrap_err().code().0, 7);
    }

    #[test]
    fn the_environment_chooses_the_socket_before_the_configuration() {
        let conf = json!({ "agentSocket": "/a/x.sock" });
        assert_eq!(
            read(conf.clone()).unwrap().agent_socket,
            PathBuf::from("/a/x.sock")
        );
        let settings = read_with(conf, Some("/b/y.sock")).unwrap();
        assert_eq!(settings.agent_socket, PathBuf::from("/b/y.sock"));
        assert_eq!(settings.npa_socket, PathBuf::from("/b/npa.sock"));
    }

    #[test]
    fn only_the_one_annotation_asks_for_several_cards() {
        let wants = |value: Value| {
            read(json!({ "runtimeConfig": { ANNOTATIONS: { NIC_CONFIG: value } } }))
                .unwrap()
                .multi_nic
        };
        assert!(wants(json!("multi-nic-attachment")));
        assert!(!wants(json!("other")));
        assert!(!wants(json!(7)));
        assert!(
            !read(json!({ "runtimeConfig": { ANNOTATIONS: [] } }))
                .unwrap()
                .multi_nic
        );
    }

    #[test]
    fn the_log_never_goes_to_stdout() {
        assert_eq!(
            read(json!({ "pluginLogFile": "stdout" })).unwrap().log_to,
            LogTo::Stderr
        );
        let settings = read(json!({ "pluginLogFile": "/l", "pluginLogLevel": "WARN" })).unwrap();
        assert_eq!(settings.log_to, LogTo::File("/l".into()));
        assert_eq!(settings.log_level, Level::Warn);
    }
}
