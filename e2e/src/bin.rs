//! Where the programs under test lie.

use std::path::{Path, PathBuf};

/// A built binary (`vpcnet-lab`, `vpcnetd`, `aws-cni`, `vpcnet`), from `$VPCNET_BIN_DIR` or `target/vpcnet`.
///
/// # Panics
/// When it is not there: run `make build` first. A test that cannot run must fail, not pass.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let directory =
        std::env::var_os("VPCNET_BIN_DIR").map_or_else(|| workspace().join("target/vpcnet"), PathBuf::from);
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not there: run `make build` first",
        path.display()
    );
    path
}

/// A helper program of this package, built beside the tests.
#[must_use]
pub fn cargo_bin(name: &str) -> PathBuf {
    let mut directory = std::env::current_exe().unwrap_or_default();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not there: run `cargo build -p vpcnet-e2e`",
        path.display()
    );
    path
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}
