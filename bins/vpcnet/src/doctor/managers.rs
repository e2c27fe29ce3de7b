//! Other programs of the node that manage rules, routes and links, and what they have to leave alone. They are known by their
//! files, below a given root.

use std::fs;
use std::path::{Path, PathBuf};

use super::Findings;

/// Looks below `root`.
pub(super) fn look(root: &Path) -> Findings {
    let mut found = Findings::of("node");
    let host = Host { root };
    networkd(&mut found, &host);
    network_manager(&mut found, &host);
    net_utils(&mut found, &host);
    links(&mut found, &host);
    if host.has("run/firewalld") || host.has("var/run/firewalld") {
        found.warn(
            "firewalld runs: its reload rejects what it does not know of",
            "disable it, or put pods' links into its zone trusted",
        );
    }
    if found.all.is_empty() {
        found.ok("no other manager of links, routes or rules was found");
    }
    found
}

struct Host<'a> {
    root: &'a Path,
}

impl Host<'_> {
    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A configuration file and the ones that add to it.
    fn settings(&self, directories: &[&str], name: &str) -> String {
        let mut text = String::new();
        for directory in directories {
            let main = self.root.join(directory).join(name);
            text.push_str(&fs::read_to_string(&main).unwrap_or_default());
            text.push('\n');
            for file in files(&self.root.join(directory).join(format!("{name}.d"))) {
                text.push_str(&fs::read_to_string(file).unwrap_or_default());
                text.push('\n');
            }
        }
        text
    }
}

/// Those of a directory, by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// The last value of a key; lines that are comments do not count.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().map(str::trim);
    let mut values = lines.filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    });
    values.next_back()
}

fn is_off(value: Option<&str>) -> bool {
    value.is_some_and(|v| ["no", "false", "0", "off"].contains(&v.to_ascii_lowercase().as_str()))
}

fn networkd(found: &mut Findings, host: &Host<'_>) {
    if !host.has("run/systemd/netif") {
        return;
    }
    let text = host.settings(
        &["usr/lib/systemd", "lib/systemd", "etc/systemd", "run/systemd"],
        "networkd.conf",
    );
    let lacking: Vec<&str> = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"]
        .into_iter()
        .filter(|key| !is_off(value(&text, key)))
        .collect();
    if lacking.is_empty() {
        found.ok("systemd-networkd leaves rules and routes of others alone");
    } else {
        let wanted: Vec<String> = lacking.iter().map(|key| format!("{key}=no")).collect();
        found.warn(
            format!("systemd-networkd runs and removes rules and routes of others when it restarts ({} not set to no); the agent puts them back", lacking.join(", ")),
            format!("[Network] {} in /etc/systemd/networkd.conf.d/vpcnet.conf", wanted.join(" ")),
        );
    }
}

fn network_manager(found: &mut Findings, host: &Host<'_>) {
    if !host.has("run/NetworkManager") {
        return;
    }
    let text = host.settings(
        &[
            "usr/lib/NetworkManager",
            "etc/NetworkManager",
            "run/NetworkManager",
        ],
        "NetworkManager.conf",
    );
    let more: String = ["etc/NetworkManager/conf.d", "usr/lib/NetworkManager/conf.d"]
        .iter()
        .flat_map(|directory| files(&host.root.join(directory)))
        .map(|file| fs::read_to_string(file).unwrap_or_default())
        .collect();
    let text = text + &more;
    let left_alone = text
        .lines()
        .any(|line| line.trim().starts_with("unmanaged-devices") && line.contains("eni"));
    if left_alone {
        found.ok("NetworkManager leaves pods' links alone");
    } else {
        found.warn(
            "NetworkManager runs, and takes on further interfaces and pods' links",
            "[keyfile] unmanaged-devices=interface-name:eni*;interface-name:vlan* in /etc/NetworkManager/conf.d/vpcnet.conf, with the further interfaces of the instance",
        );
    }
}

/// Amazon Linux's tools give further interfaces tables and rules of their own.
fn net_utils(found: &mut Findings, host: &Host<'_>) {
    let rules = ["usr/lib/udev/rules.d", "lib/udev/rules.d", "etc/udev/rules.d"];
    let tool = rules.iter().find_map(|directory| {
        files(&host.root.join(directory)).into_iter().find(|file| {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.contains("ec2-net") || name.contains("vpc-policy-routes") || name.contains("ec2net")
        })
    });
    if let Some(file) = tool {
        let shown = Path::new("/").join(file.strip_prefix(host.root).unwrap_or(&file));
        found.warn(
            format!("ec2-net-utils is here ({}): it sets addresses, tables and rules of further interfaces too", shown.display()),
            "mask its units (policy-routes@, refresh-policy-routes@), or use an image for EKS, which does not run it for them",
        );
    }
}

/// What udev does to links as they appear.
fn links(found: &mut Findings, host: &Host<'_>) {
    let directories = [
        "etc/systemd/network",
        "run/systemd/network",
        "usr/lib/systemd/network",
        "lib/systemd/network",
    ];
    let policy = directories.iter().any(|directory| {
        files(&host.root.join(directory)).into_iter().any(|file| {
            let is_link = file.extension().is_some_and(|ending| ending == "link");
            is_link
                && value(&fs::read_to_string(file).unwrap_or_default(), "MACAddressPolicy")
                    == Some("persistent")
        })
    });
    if policy {
        found.note("udev has MACAddressPolicy=persistent: pods' links are made with their addresses, so it leaves them");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn found(files: &[(&str, &str)]) -> Vec<(Verdict, String)> {
        let dir = root(files);
        look(dir.path())
            .all
            .into_iter()
            .map(|f| (f.verdict, f.text))
            .collect()
    }

    #[test]
    fn a_node_without_managers_is_well() {
        assert_eq!(found(&[])[0].0, Verdict::Ok);
    }

    #[test]
    fn networkd_must_be_told_to_leave_rules_and_routes_of_others() {
        let runs = ("run/systemd/netif/state", "");
        let half = (
            "etc/systemd/networkd.conf",
            "[Network]\n# ManageForeignRoutes=no\nManageForeignRoutingPolicyRules = no\n",
        );
        let rest = (
            "usr/lib/systemd/networkd.conf.d/80-ec2.conf",
            "[Network]\nManageForeignRoutes=No\n",
        );
        let (verdict, text) = &found(&[runs, half])[0];
        assert_eq!(*verdict, Verdict::Warning);
        assert!(text.contains("(ManageForeignRoutes not set"), "{text}");
        assert_eq!(found(&[runs, half, rest])[0].0, Verdict::Ok);
        // A later file says otherwise.
        let back = ("etc/systemd/networkd.conf.d/a.conf", "ManageForeignRoutes=yes\n");
        assert_eq!(found(&[runs, half, rest, back])[0].0, Verdict::Warning);
    }

    #[test]
    fn network_manager_must_be_told_of_pods_links() {
        let runs = ("run/NetworkManager/devices/2", "");
        let told = (
            "etc/NetworkManager/conf.d/x.conf",
            "[keyfile]\nunmanaged-devices=interface-name:eni*\n",
        );
        assert_eq!(found(&[runs])[0].0, Verdict::Warning);
        assert_eq!(found(&[runs, told])[0].0, Verdict::Ok);
    }

    #[test]
    fn tools_that_set_up_further_interfaces_are_named() {
        let (verdict, text) = &found(&[("usr/lib/udev/rules.d/99-vpc-policy-routes.rules", "")])[0];
        assert_eq!(*verdict, Verdict::Warning);
        assert!(
            text.contains("/usr/lib/udev/rules.d/99-vpc-policy-routes.rules"),
            "{text}"
        );
    }

    #[test]
    fn udevs_policy_of_addresses_is_only_to_be_known() {
        let policy = (
            "usr/lib/systemd/network/99-default.link",
            "[Link]\nMACAddressPolicy=persistent\n",
        );
        assert_eq!(found(&[policy])[0].0, Verdict::Note);
    }
}
