//! A lab for the benchmark's time, gone when the value is.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A running lab.
pub(crate) struct Lab {
    bin: PathBuf,
    dir: PathBuf,
}

impl Lab {
    /// Brings one node, `node-1`, up; `options` are those of `vpcnet-lab up`.
    pub(crate) fn up(bin: &Path, options: &[&str]) -> io::Result<Self> {
        let dir = PathBuf::from(format!("/run/vpcbench{}", std::process::id()));
        Self::up_in(bin, dir, &[&["--nodes", "1"], options].concat())
    }

    /// Brings one up with that state directory.
    pub(crate) fn up_in(bin: &Path, dir: PathBuf, options: &[&str]) -> io::Result<Self> {
        let lab = Self {
            bin: bin.to_owned(),
            dir,
        };
        lab.run(&[&["up"], options].concat())?;
        Ok(lab)
    }

    /// The network namespace of a node.
    pub(crate) fn namespace(&self, node: &str) -> String {
        let base = self.dir.file_name().unwrap_or_default();
        format!("{}-{node}", base.to_string_lossy())
    }

    /// Runs this program inside the node, and returns what it printed.
    pub(crate) fn inside(&self, arguments: &[&str]) -> io::Result<String> {
        let bench = std::env::current_exe()?;
        let bench = bench
            .to_str()
            .ok_or_else(|| io::Error::other("this program's path is not UTF-8"))?;
        self.run(&[&["exec", "node-1", "--", bench, "inside"], arguments].concat())
    }

    /// Runs a lab command, and returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> io::Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.output(arguments)?;
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        if status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&stderr);
        Err(io::Error::other(format!(
            "vpcnet-lab {}: {status}: {stdout}{stderr}",
            arguments.join(" ")
        )))
    }

    /// Runs a lab command, and returns how it ended.
    pub(crate) fn output(&self, arguments: &[&str]) -> io::Result<Output> {
        Command::new(self.bin.join("vpcnet-lab"))
            .env("VPCNET_LAB_DIR", &self.dir)
            .args(arguments)
            .output()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(e) = self.run(&["down"]) {
            eprintln!("vpcnet-bench: {e}");
        }
    }
}
