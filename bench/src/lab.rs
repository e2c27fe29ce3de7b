//! A lab for the benchmark's time, gone when the value is.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A running lab of one node, `node-1`.
pub(crate) struct Lab {
    bin: PathBuf,
    dir: PathBuf,
}

impl Lab {
    /// Brings it up; `options` are those of `vpcnet-lab up`.
    pub(crate) fn up(bin: &Path, options: &[&str]) -> io::Result<Self> {
        let dir = PathBuf::from(format!("/run/vpcbench{}", std::process::id()));
        let lab = Self {
            bin: bin.to_owned(),
            dir,
        };
        lab.run(&[&["up", "--nodes", "1"], options].concat())?;
        Ok(lab)
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
        } = Command::new(self.bin.join("vpcnet-lab"))
            .env("VPCNET_LAB_DIR", &self.dir)
            .args(arguments)
            .output()?;
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
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(e) = self.run(&["down"]) {
            eprintln!("vpcnet-bench: {e}");
        }
    }
}
