//! The kept corpus, each entry as it is and then changed at random, for a bounded time: `VPCNET_FUZZ_SECONDS` a target, 2 unless it is set.
//! `VPCNET_FUZZ_SEED` chooses the changes; the same ones unless it is set. What fails is written to `target/fuzz/findings/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vpcnet_fuzz::mutate::{Random, mutant};
use vpcnet_fuzz::{TARGETS, Target};

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no whole number")),
        Err(_) => default,
    }
}

/// The entries, in the order of their names.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    paths.into_iter().map(read).collect()
}

fn run(name: &str) {
    let target = vpcnet_fuzz::target(name).expect("it is a target");
    let corpus = corpus(target);
    for (path, bytes) in &corpus {
        check(target, bytes, &path.display().to_string());
    }
    let entries: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let (seed, seconds) = (number("VPCNET_FUZZ_SEED", 1), number("VPCNET_FUZZ_SECONDS", 2));
    let mut random = Random::new(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0_u64;
    while Instant::now() < end {
        let input = mutant(&mut random, &entries, target.words);
        check(target, &input, &format!("change {runs} of seed {seed}"));
        runs += 1;
    }
    println!(
        "{name}: {} entries, {runs} changed ones of seed {seed}",
        entries.len()
    );
}

fn check(target: &Target, bytes: &[u8], which: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.check)(bytes))).is_ok() {
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fuzz/findings");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(format!("{}-{}", target.name, std::process::id()));
    fs::write(&file, bytes).unwrap();
    panic!(
        "{} does not hold for {which}, kept as {}: {}",
        target.name,
        file.display(),
        String::from_utf8_lossy(bytes.get(..bytes.len().min(2000)).unwrap_or_default())
    );
}

macro_rules! bounded {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|t| t.name), run);
        }
    };
}

bounded!(checkpoint state ec2_xml imds cni_stdin cni_args kubernetes);
