//! vpcnet's plugin on a machine whose agent the lab itself has started: what the agent's image does once its agent serves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::LabError;

/// The network configuration that the plugin is run with; `portmap` is the CNI project's.
#[must_use]
pub fn conflist() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "aws-cni",
        "disableCheck": true,
        "plugins": [
            {
                "name": "aws-cni",
                "type": "aws-cni",
                "vethPrefix": "eni",
                "mtu": "9001",
                "podSGEnforcingMode": "strict",
                "pluginLogFile": "/var/log/aws-routed-eni/plugin.log",
                "pluginLogLevel": "DEBUG",
                "capabilities": {"io.kubernetes.cri.pod-annotations": true},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}

/// Puts the plugin and, last, the configuration on the machine whose pid 1 is `init`: the node is Ready soon after.
///
/// # Errors
/// [`LabError::File`].
pub fn install(init: i32, plugin: &Path) -> Result<(), LabError> {
    let root = PathBuf::from(format!("/proc/{init}/root"));
    let program = fs::read(plugin).map_err(LabError::file("read", plugin))?;
    put(&root.join("opt/cni/bin/aws-cni"), &program, 0o755)?;
    let text = format!("{:#}\n", conflist());
    put(
        &root.join("etc/cni/net.d/10-aws.conflist"),
        text.as_bytes(),
        0o644,
    )
}

/// Whole or not at all: containerd watches the directory.
fn put(file: &Path, content: &[u8], mode: u32) -> Result<(), LabError> {
    let new = file.with_extension("new");
    fs::write(&new, content)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&new, file))
        .map_err(LabError::file("write", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("10-aws.conflist");
        put(&file, b"old", 0o600).unwrap();
        put(&file, b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(
            fs::read_dir(temp.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
    }

    #[test]
    fn the_plugin_gets_annotations_and_portmap_gets_ports() {
        let plugins = conflist()["plugins"].clone();
        assert_eq!(
            plugins[0]["capabilities"]["io.kubernetes.cri.pod-annotations"],
            true
        );
        assert_eq!(plugins[1]["capabilities"]["portMappings"], true);
    }
}
