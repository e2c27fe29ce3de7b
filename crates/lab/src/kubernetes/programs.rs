//! What a cluster is made of, found on this machine before anything is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::LabError;

/// Where [`Programs::find`] looks, unless this says otherwise: beside the lab's own program.
pub const DIRECTORY: &str = "VPCNET_LAB_KUBERNETES";

/// Where Debian's package of the CNI project's plugins puts them. A node of EKS has them, too: containerd asks for `loopback`, and
/// conflists for `portmap`.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// What the nodes' programs call, each with Debian's package of it.
const TOOLS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
];

/// The PATH of all that runs in the cluster, and where its tools are looked for.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs and images of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// Every Kubernetes program, by its first argument.
    pub kubernetes: PathBuf,
    /// Archives of images that every node has from the start.
    pub images: Vec<PathBuf>,
    /// The CNI project's plugins.
    pub plugins: PathBuf,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// [`LabError::Usage`] that names everything missing at once, and how to get it.
    pub fn find() -> Result<Self, LabError> {
        let directory = directory()?;
        let programs = Self {
            kubernetes: directory.join("kubernetes"),
            images: images(&directory),
            plugins: PathBuf::from(CNI_PLUGINS),
        };
        let tools = std::env::split_paths(PATH).collect::<Vec<_>>();
        let there = |name: &str| tools.iter().any(|dir| dir.join(name).is_file());
        let mut packages: Vec<&str> = TOOLS
            .iter()
            .filter(|(name, _)| !there(name))
            .map(|(_, package)| *package)
            .collect();
        if !programs.plugins.join("loopback").is_file() {
            packages.push("containernetworking-plugins");
        }
        packages.dedup();
        let built = programs.kubernetes.is_file() && !programs.images.is_empty();
        match missing(built, &directory, &packages) {
            None => Ok(programs),
            Some(text) => Err(LabError::Usage(text)),
        }
    }

    /// The version it was built as.
    ///
    /// # Errors
    /// When it cannot be run, or says something else.
    pub fn version(&self) -> Result<String, LabError> {
        let spawn = |source| LabError::Spawn {
            program: self.kubernetes.display().to_string(),
            source,
        };
        let said = Command::new(&self.kubernetes)
            .args(["kubelet", "--version"])
            .output()
            .map_err(spawn)?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        match text.trim().strip_prefix("Kubernetes ") {
            Some(version) => Ok(version.to_owned()),
            None => Err(LabError::Refused(format!(
                "{} does not say its version: {text} {}",
                self.kubernetes.display(),
                String::from_utf8_lossy(&said.stderr).trim()
            ))),
        }
    }
}

fn directory() -> Result<PathBuf, LabError> {
    let found = match std::env::var_os(DIRECTORY) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()
            .map_err(LabError::file("find", "this program"))?
            .with_file_name("kubernetes"),
    };
    std::path::absolute(&found).map_err(LabError::file("find", found))
}

fn images(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("images"));
    let mut images: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|x| x == "tar"))
        .collect();
    images.sort();
    images
}

/// What to tell when something is missing.
fn missing(built: bool, directory: &Path, packages: &[&str]) -> Option<String> {
    let mut parts = Vec::new();
    if !built {
        parts.push(format!(
            "the Kubernetes programs and images in {}: 'make kubernetes' builds them (Go, about five minutes on two cores the first \
             time), or {DIRECTORY} names the directory that holds them",
            directory.display()
        ));
    }
    if !packages.is_empty() {
        parts.push(format!(
            "Debian packages: sudo apt-get install --no-install-recommends {}",
            packages.join(" ")
        ));
    }
    (!parts.is_empty()).then(|| {
        format!(
            "--kubernetes needs what is not on this machine yet:\n  * {}",
            parts.join("\n  * ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_missing_is_told_at_once_and_how_to_get_it() {
        let directory = Path::new("/opt/vpcnet/kubernetes");
        assert_eq!(missing(true, directory, &[]), None);
        let text = missing(false, directory, &["containerd", "conntrack"]).unwrap();
        assert!(
            text.contains("/opt/vpcnet/kubernetes") && text.contains("make kubernetes"),
            "{text}"
        );
        assert!(
            text.contains("--no-install-recommends containerd conntrack"),
            "{text}"
        );
        assert!(!missing(true, directory, &["runc"]).unwrap().contains("make"));
    }

    #[test]
    fn images_are_the_archives_of_their_folder() {
        let temp = tempfile::tempdir().unwrap();
        assert!(images(temp.path()).is_empty());
        fs::create_dir(temp.path().join("images")).unwrap();
        for name in ["b.tar", "a.tar", "a.tar.new"] {
            fs::write(temp.path().join("images").join(name), "").unwrap();
        }
        let found = images(temp.path());
        let names: Vec<_> = found
            .iter()
            .filter_map(|p| p.file_name()?.to_str().map(str::to_owned))
            .collect();
        assert_eq!(names, ["a.tar", "b.tar"]);
    }
}
