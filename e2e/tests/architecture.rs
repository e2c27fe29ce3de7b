//! The map in `ARCHITECTURE.md`, held: who depends on whom, and who must not know what.

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a pure crate must not reach, by any path: no I/O, no async, no clock, no randomness, no kernel, no cloud.
const PURE: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "hyper",
    "tonic",
    "axum",
    "rustls",
    "ring",
    "rustix",
    "nix",
    "nftables",
    "netlink-packet-core",
    "netlink-packet-route",
    "netlink-sys",
    "getrandom",
    "rand",
    "chrono",
    "time",
    "tracing",
    "kube",
    "vpcnet-cloud",
    "vpcnet-kube",
    "vpcnet-lab",
    "vpcnet-linux",
    "vpcnet-rpc",
];

/// Each package of the workspace and what it must not reach by any path (`ARCHITECTURE.md`, "Crate map").
const MUST_NOT_KNOW: &[(&str, &[&[&str]])] = &[
    ("vpcnet-ipam", &[PURE, &["vpcnet-cni", "vpcnet-limits"]]),
    ("vpcnet-cni", &[PURE, &["vpcnet-ipam", "vpcnet-limits"]]),
    (
        "vpcnet-config",
        &[
            PURE,
            &["vpcnet-ipam", "vpcnet-cni", "vpcnet-limits", "yaml-rust2"],
        ],
    ),
    ("vpcnet-limits", &[PURE, &["serde", "vpcnet-ipam", "vpcnet-cni"]]),
    (
        "vpcnet-rpc",
        &[&[
            "vpcnet-ipam",
            "vpcnet-cni",
            "vpcnet-limits",
            "vpcnet-linux",
            "vpcnet-cloud",
            "vpcnet-lab",
        ]],
    ),
    (
        "vpcnet-linux",
        &[&[
            "tokio",
            "hyper",
            "tonic",
            "kube",
            "vpcnet-ipam",
            "vpcnet-cni",
            "vpcnet-rpc",
            "vpcnet-cloud",
            "vpcnet-lab",
        ]],
    ),
    (
        "vpcnet-cloud",
        &[&[
            "nftables",
            "netlink-sys",
            "kube",
            "vpcnet-ipam",
            "vpcnet-cni",
            "vpcnet-rpc",
            "vpcnet-linux",
            "vpcnet-lab",
        ]],
    ),
    (
        "vpcnet-kube",
        &[&[
            "nftables",
            "netlink-sys",
            "rustix",
            "tonic",
            "axum",
            "kube",
            "vpcnet-ipam",
            "vpcnet-cni",
            "vpcnet-rpc",
            "vpcnet-linux",
            "vpcnet-cloud",
            "vpcnet-lab",
        ]],
    ),
    // It must carry any VPC CNI, so it knows nothing of ours, and does not share the client that it is there to test.
    (
        "vpcnet-lab",
        &[&[
            "vpcnet-ipam",
            "vpcnet-rpc",
            "vpcnet-cloud",
            "vpcnet-kube",
            "tonic",
            "kube",
        ]],
    ),
    // The plugin: what is not linked does not have to be loaded for each pod.
    (
        "aws-cni",
        &[&[
            "hyper-rustls",
            "rustls",
            "ring",
            "nftables",
            "axum",
            "clap",
            "prometheus",
            "tracing-subscriber",
            "quick-xml",
            "vpcnet-ipam",
            "vpcnet-cloud",
            "vpcnet-lab",
        ]],
    ),
    // The chained one asks nobody: it must not wait for the agent, and carries no gRPC.
    (
        "egress-cni",
        &[&[
            "tokio",
            "tonic",
            "hyper",
            "rustls",
            "ring",
            "nftables",
            "clap",
            "vpcnet-ipam",
            "vpcnet-rpc",
            "vpcnet-cloud",
            "vpcnet-lab",
        ]],
    ),
    (
        "vpcnet-plugin",
        &[&[
            "tokio",
            "tonic",
            "rustix",
            "netlink-sys",
            "vpcnet-ipam",
            "vpcnet-linux",
            "vpcnet-rpc",
            "vpcnet-cloud",
            "vpcnet-lab",
        ]],
    ),
    ("vpcnetd", &[&["vpcnet-lab", "quickcheck", "proptest"]]),
    ("vpcnet", &[&["vpcnet-lab", "axum"]]),
    (
        "vpcnet-bench",
        &[&[
            "vpcnet-ipam",
            "vpcnet-linux",
            "vpcnet-cloud",
            "vpcnet-lab",
            "tokio",
        ]],
    ),
    // A floor that shared code with what is measured against it would move with it.
    (
        "vpcnet-floor",
        &[&[
            "vpcnet-ipam",
            "vpcnet-cni",
            "vpcnet-rpc",
            "vpcnet-linux",
            "tokio",
            "netlink-packet-route",
            "netlink-sys",
        ]],
    ),
    (
        "vpcnet-fuzz",
        &[&["vpcnet-linux", "vpcnet-rpc", "vpcnet-lab", "tonic", "axum"]],
    ),
    // It packs directories.
    (
        "vpcnet-image",
        &[&[
            "vpcnet-ipam",
            "vpcnet-cni",
            "vpcnet-config",
            "vpcnet-linux",
            "vpcnet-cloud",
            "vpcnet-lab",
            "tokio",
        ]],
    ),
    (
        "vpcnet-e2e",
        &[&["vpcnet-ipam", "vpcnet-linux", "vpcnet-cloud", "vpcnet-lab"]],
    ),
];

/// Must be in nobody's tree, on no platform, under no feature.
const NOWHERE: &[&str] = &[
    "aws-lc-sys",
    "aws-lc-rs",
    "openssl-sys",
    "native-tls",
    "rustables",
];

/// May contain `unsafe`: the thin edges to the kernel, and what measures (`wait4`, which no safe crate has with its usage).
const MAY_BE_UNSAFE: &[&str] = &["vpcnet-linux", "vpcnet-lab", "vpcnet-floor", "vpcnet-bench"];

#[test]
fn no_package_reaches_what_it_must_not_know() {
    let mut broken = Vec::new();
    for (package, forbidden) in MUST_NOT_KNOW {
        let reached = reached_by(package);
        for name in forbidden.iter().copied().flatten() {
            if reached.contains(*name) {
                broken.push(format!(
                    "{package} reaches {name}: see `cargo tree -e normal -p {package} -i {name}`"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_package_of_the_workspace_says_what_it_must_not_know() {
    let listed: BTreeSet<String> = MUST_NOT_KNOW.iter().map(|(name, _)| (*name).to_owned()).collect();
    let there: BTreeSet<String> = packages().into_iter().map(|p| p.name).collect();
    assert_eq!(
        listed, there,
        "left: the table of this test, right: the workspace"
    );
}

#[test]
fn nobody_depends_on_a_binary_the_benchmark_or_these_tests() {
    for package in packages() {
        for dependency in &package.dependencies {
            let leaf = [
                "aws-cni",
                "egress-cni",
                "vpcnetd",
                "vpcnet",
                "vpcnet-bench",
                "vpcnet-floor",
                "vpcnet-e2e",
                "vpcnet-fuzz",
                "vpcnet-image",
            ];
            assert!(
                !leaf.contains(&dependency.as_str()),
                "{} depends on {dependency}",
                package.name
            );
        }
    }
}

#[test]
fn banned_crates_are_nowhere_in_the_lock_file() {
    let lock = read(&root().join("Cargo.lock"));
    for name in NOWHERE {
        assert!(
            !lock.contains(&format!("name = \"{name}\"\n")),
            "{name} is in Cargo.lock"
        );
    }
}

#[test]
fn only_the_edges_to_the_kernel_may_be_unsafe() {
    let open: Vec<String> = packages()
        .into_iter()
        .filter(|p| !MAY_BE_UNSAFE.contains(&p.name.as_str()))
        .flat_map(|p| p.roots)
        .filter(|file| !read(file).contains("#![forbid(unsafe_code)]"))
        .map(|file| file.display().to_string())
        .collect();
    assert!(open.is_empty(), "these do not forbid unsafe code: {open:#?}");
}

/// Time is passed in, state is passed in, names are passed in: a call to the machine would make a replay differ.
#[test]
fn pure_crates_do_not_ask_the_machine() {
    let asks = [
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::os::unix::net",
        "std::process",
        "std::thread",
        "std::env::var",
        "RandomState",
    ];
    for directory in [
        "crates/ipam/src",
        "crates/cni/src",
        "crates/config/src",
        "crates/limits/src",
        "crates/lab/src/model",
    ] {
        for file in rust_files(&root().join(directory)) {
            let text = read(&file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for ask in asks {
                assert!(!code.contains(ask), "{} uses {ask}", file.display());
            }
        }
    }
}

#[test]
fn the_map_names_every_crate() {
    let map = read(&root().join("ARCHITECTURE.md"));
    for package in packages() {
        let directory = package
            .directory
            .strip_prefix(root())
            .unwrap_or(&package.directory)
            .display()
            .to_string();
        let top = directory.split('/').next().unwrap_or_default();
        let named = map.contains(&format!("`{directory}`")) || map.contains(&format!("`{top}/`"));
        assert!(named, "ARCHITECTURE.md does not name {directory}");
    }
}

#[test]
fn every_direct_dependency_has_its_reason_written_down() {
    let reasons = read(&root().join("docs/dependencies.md"));
    let mut missing = BTreeSet::new();
    for package in packages() {
        for dependency in package.dependencies {
            if !dependency.starts_with("vpcnet-") && !reasons.contains(&format!("`{dependency}`")) {
                missing.insert(dependency);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/dependencies.md does not say why these are there: {missing:?}"
    );
}

struct Package {
    name: String,
    directory: PathBuf,
    /// Direct dependencies, of any kind.
    dependencies: Vec<String>,
    /// The root file of its library and of each of its programs.
    roots: Vec<PathBuf>,
}

fn packages() -> Vec<Package> {
    let printed = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
        "--offline",
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&printed).expect("cargo metadata prints JSON");
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let list = |v: &serde_json::Value| v.as_array().cloned().unwrap_or_default();
    let packages: Vec<Package> = list(&metadata["packages"])
        .iter()
        .map(|p| Package {
            name: text(&p["name"]),
            directory: Path::new(&text(&p["manifest_path"]))
                .parent()
                .unwrap_or(Path::new(""))
                .to_owned(),
            dependencies: list(&p["dependencies"])
                .iter()
                .map(|d| text(&d["name"]))
                .collect(),
            roots: list(&p["targets"])
                .iter()
                .filter(|t| list(&t["kind"]).iter().any(|k| k == "lib" || k == "bin"))
                .map(|t| PathBuf::from(text(&t["src_path"])))
                .collect(),
        })
        .collect();
    assert!(
        packages.len() > 10,
        "cargo metadata names only {} packages",
        packages.len()
    );
    packages
}

/// Everything that is compiled into a package, with the features it gets when it is built by itself.
fn reached_by(package: &str) -> BTreeSet<String> {
    let printed = cargo(&[
        "tree",
        "--locked",
        "--offline",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
        package,
    ]);
    let names: BTreeSet<String> = printed
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect();
    assert!(
        printed.starts_with(package),
        "cargo tree of {package} begins with {printed:.60}"
    );
    names
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace")
}

/// The longest piece of an error's words that is the same in every case; empty where the words are another error's.
fn fixed_words(format: &str) -> String {
    let mut pieces = vec![String::new()];
    let mut depth = 0;
    for c in format.chars() {
        match c {
            '{' => {
                depth += 1;
                pieces.push(String::new());
            }
            '}' => depth -= 1,
            c if depth == 0 => pieces.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    pieces.into_iter().max_by_key(String::len).unwrap()
}

#[test]
fn every_error_of_the_plugins_has_an_entry_in_the_troubleshooting_page() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let mut checked = 0;
    for file in ["bins/aws-cni/src/failure.rs", "bins/egress-cni/src/failure.rs"] {
        let source = std::fs::read_to_string(root().join(file)).unwrap();
        let errors = source.split_once("pub(crate) enum Failure").unwrap().1;
        for attribute in errors.split("#[error(").skip(1) {
            let format = attribute.split('"').nth(1).unwrap();
            let words = fixed_words(format);
            // What has no words of its own speaks by those of its cause.
            if words.trim().len() < 3 {
                continue;
            }
            assert!(
                page.contains(words.trim()),
                "{file}: {format:?}: {words:?} is not on the page"
            );
            checked += 1;
        }
    }
    assert!(
        checked > 40,
        "{checked}: the sources are read no longer as they are written"
    );
    let metrics = std::fs::read_to_string(root().join("bins/vpcnetd/src/metrics.rs")).unwrap();
    let causes: Vec<&str> = metrics
        .split("RefusalCause::")
        .skip(1)
        .filter_map(|line| line.split_once("=> \"")?.1.split('"').next())
        .collect();
    assert!(causes.len() >= 11, "{causes:?}");
    for cause in causes {
        assert!(
            page.contains(&format!("| `{cause}` |")),
            "{cause} is not on the page"
        );
    }
}
