//! The simulation: nodes that run the real pool, journal and checkpoint against the lab's model of a VPC, with everything
//! going wrong that can, and the laws checked at every step. See `CONTRIBUTING.md`, "The simulation".

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "simulation/calls.rs"]
mod calls;
#[path = "simulation/draw.rs"]
mod draw;
#[path = "simulation/dying.rs"]
mod dying;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/files.rs"]
mod files;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/laws.rs"]
mod laws;
#[path = "simulation/making.rs"]
mod making;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/others.rs"]
mod others;
#[path = "simulation/pods.rs"]
mod pods;
#[path = "simulation/rest.rs"]
mod rest;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/setup.rs"]
mod setup;
#[path = "simulation/shrink.rs"]
mod shrink;
#[path = "simulation/starting.rs"]
mod starting;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use history::{Failure, History, draw, run};

/// Steps of one history, about.
const STEPS: u64 = 4_000;
/// Steps of a run unless `VPCNET_SIM_STEPS` says otherwise.
const ALL: u64 = 1_000_000;
/// Seed of the first history unless `VPCNET_SIM_SEED` says otherwise: the same in every run, so that what passed passes again.
const SEED: u64 = 20_261_121;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/regressions")
}

/// What went wrong, as short as it can be told; and how to see it again.
fn tell(seed: u64, history: &History, failure: &Failure) -> String {
    let small = shrink::shrink(history, failure);
    let again = history::tell(&small).err().unwrap_or_else(|| failure.clone());
    let about = format!(
        "{}\n{}\nseed {seed}",
        again.broken.law,
        again.broken.detail.lines().next().unwrap_or_default()
    );
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{seed}.history"));
    let _ = std::fs::write(&file, small.to_text(&about));
    format!(
        "seed {seed}: {}\n{}\n\nwhat led to it:\n{}\n\n{} of {} operations are enough:\n{}\nkept as {}: move it to {} \
         when it is mended",
        again.broken.law,
        again.broken.detail,
        again.log.join("\n"),
        small.ops.len(),
        history.ops.len(),
        small.to_text(&about),
        file.display(),
        kept().display()
    )
}

/// What went wrong once does so no more.
fn run_what_is_kept() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(kept())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "history"))
    {
        let history = History::of_text(&std::fs::read_to_string(file).unwrap());
        if let Err(failure) = history::tell(&history) {
            panic!(
                "{}: {}\n{}\n{}",
                file.display(),
                failure.broken.law,
                failure.broken.detail,
                failure.log.join("\n")
            );
        }
    }
}

/// The last that happened before a failure, for `VPCNET_SIM_BRIEF`.
const LINES: usize = 60;

/// One line about a failure, and the last that led to it.
fn brief(steps: u64, seed: u64, history: &History, Failure { broken, .. }: &Failure) -> String {
    let detail = broken.detail.lines().next().unwrap_or_default();
    let log = history::tell(history).err().map(|f| f.log).unwrap_or_default();
    let last = log[log.len().saturating_sub(LINES)..].join("\n");
    format!(
        "\nafter {steps} steps, seed {seed}: {}: {detail}\n{last}",
        broken.law
    )
}

/// With `VPCNET_SIM_SURVEY=1` it goes on after a failure, and tells at the end which laws were broken in how many histories.
/// With `VPCNET_SIM_BRIEF=1` the kept histories are left out and no failure is made small.
/// `VPCNET_SIM_STEPS=10000000 VPCNET_SIM_SEED=7 cargo test -p vpcnet-ipam --test simulation -- --nocapture`.
#[test]
fn whatever_happens_the_laws_hold_and_all_comes_to_rest() {
    let briefly = number("VPCNET_SIM_BRIEF") == Some(1);
    if !briefly {
        run_what_is_kept();
    }
    let all = number("VPCNET_SIM_STEPS").unwrap_or(ALL);
    let first = number("VPCNET_SIM_SEED").unwrap_or(SEED);
    let survey = number("VPCNET_SIM_SURVEY") == Some(1);
    let (began, mut steps, mut seed) = (Instant::now(), 0, first);
    let mut found: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    while steps < all {
        let (history, result) = draw(seed, STEPS);
        match result {
            Ok(more) => steps += more,
            Err(failure) if briefly => panic!("{}", brief(steps + failure.steps, seed, &history, &failure)),
            Err(failure) if survey => {
                steps += STEPS;
                let (count, _) = found
                    .entry(failure.broken.law)
                    .or_insert_with(|| (0, tell(seed, &history, &failure)));
                *count += 1;
            }
            Err(failure) => panic!("{}", tell(seed, &history, &failure)),
        }
        seed += 1;
    }
    for (law, (count, first)) in &found {
        println!("==== {law}: in {count} histories; the first:\n{first}\n");
    }
    println!(
        "{steps} steps of {} histories from seed {first} on in {:.1} s",
        seed - first,
        began.elapsed().as_secs_f64()
    );
    assert!(found.is_empty(), "{} laws were broken", found.len());
}

/// A history is all there is to a run: without that, neither a seed nor a short history would mean anything.
#[test]
fn the_same_history_gives_the_same_run() {
    let (history, drawn) = draw(SEED, 500);
    let (again, _) = draw(SEED, 500);
    assert_eq!(history, again);
    let text = history.to_text("for people");
    assert_eq!(History::of_text(&text), history);
    assert_eq!(run(&history).ok(), drawn.ok());
}
