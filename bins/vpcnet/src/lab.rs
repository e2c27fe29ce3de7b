//! `vpcnet lab …`: hands over to `vpcnet-lab`, which is a program of its own so that node images need not carry the lab.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// `vpcnet-lab` could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {}: {source}; it is built beside vpcnet by `make build`, and is not part of node images", path.display())]
pub(crate) struct LabError {
    /// Where it was expected.
    pub(crate) path: PathBuf,
    /// The kernel's word.
    pub(crate) source: io::Error,
}

/// The lab's program: beside this one, else wherever `PATH` has it.
fn program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("vpcnet-lab"))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| "vpcnet-lab".into())
}

/// Becomes the lab's program with the arguments as they are. Returns only when that fails.
pub(crate) fn exec(arguments: &[OsString]) -> LabError {
    let path = program();
    let source = Command::new(&path).args(arguments).exec();
    LabError { path, source }
}
