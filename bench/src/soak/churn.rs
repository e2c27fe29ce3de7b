//! Pods that come and go, as a kubelet makes them: what fails is tried again, what was removed is sometimes removed again, and sometimes
//! the namespace goes before the DEL comes.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dice::Dice;
use super::judge::{self, Failed, Verdict};
use super::laws::Pool;
use super::run::{Run, lock};
use super::world::{self, Pod};
use crate::lab::Lab;

/// How long a DEL may be refused, however often the agent is restarted meanwhile.
const REMOVED_WITHIN: Duration = Duration::from_secs(120);

/// One of those who make and remove pods on a node, until the run is stopped.
pub(super) fn work(run: &Run, node: &'static str, worker: u64, mut dice: Dice) {
    let mut number = 0;
    while !run.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(dice.between(200, 2200)));
        let _turn = run.turn.read();
        if run.stop.load(Ordering::Relaxed) {
            return;
        }
        let wanted = lock(&run.wanted).get(node).copied().unwrap_or_default();
        let living = run.living(node);
        // Also at rest pods come and go.
        let grow = living < wanted || (living == wanted && dice.percent(50));
        if grow {
            number += 1;
            if let Some(pod) = add(run, node, &format!("churn-{node}-{worker}-{number}")) {
                run.lay_down(node, pod);
            }
        } else if let Some(pod) = run.take(node, dice.between(0, 1000)) {
            remove(run, &pod, &mut dice);
        }
    }
}

/// Adds a pod; judges when that fails.
pub(super) fn add(run: &Run, node: &'static str, name: &str) -> Option<Pod> {
    let began = Instant::now();
    match ask(&run.world.lab, node, name) {
        Ok(Ok((pod, took))) => {
            run.count(|counts| counts.adds.push(took));
            if let Some(other) = run.born(&pod) {
                run.fail(format!(
                    "{} was given to {name} while {other} has it",
                    pod.address
                ));
            }
            Some(pod)
        }
        Ok(Err(words)) => {
            let verdict = judged(run, node, &words, began);
            run.add_failed(verdict, &words);
            if verdict == Verdict::Wrong {
                run.fail(format!("ADD of {name} on {node}: {words}"));
            }
            None
        }
        Err(e) => {
            run.fail(format!("ADD of {name} on {node}: {e}"));
            None
        }
    }
}

/// The pod and how long ADD took, ms; or the plugin's words.
fn ask(lab: &Lab, node: &str, name: &str) -> io::Result<Result<(Pod, f64), String>> {
    let output = lab.output(&["pod", "add", node, name, "--json"])?;
    let Ok(burst) = serde_json::from_slice::<Value>(&output.stdout) else {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(words));
    };
    let made = burst.pointer("/pods/0");
    if let Some((pod, made)) = made.and_then(|made| Some((world::pod(made)?, made))) {
        let took = made.get("add_ms").and_then(Value::as_f64).unwrap_or(f64::NAN);
        return Ok(Ok((pod, took)));
    }
    let words = burst.pointer("/failures/0/1").and_then(Value::as_str);
    Ok(Err(words.unwrap_or("no pod and no failure").to_owned()))
}

fn judged(run: &Run, node: &'static str, words: &str, began: Instant) -> Verdict {
    let failed_at = Instant::now();
    let agent_away = run.was_away(node, began, failed_at);
    // Not to be had while the agent is away: then there was nothing to give either.
    let page = run.world.page(node, "/v1/vpcnet/pool");
    let pool = page.map(|page| Pool::read(&page)).unwrap_or_default();
    let since = u64::try_from(failed_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = run.world.status().unwrap_or_default();
    let in_ec2 = world::instances(&status)
        .get(node)
        .map_or(0, |i| i.addresses.values().map(|all| all.len()).sum());
    judge::add(Failed {
        words,
        agent_away,
        hindered: run.was_hindered(node, began, failed_at),
        in_ec2,
        free: judge::to_give(&pool, pool.now.saturating_sub(since)),
    })
}

/// Removes a pod, in one of the ways that runtimes have.
pub(super) fn remove(run: &Run, pod: &Pod, dice: &mut Dice) {
    run.dies(pod);
    if dice.percent(7) {
        // Its node's kernel takes the link with it. The DEL finds no namespace.
        if let Err(e) = std::process::Command::new("ip")
            .args(["netns", "del", &pod.netns])
            .status()
        {
            run.fail(format!("removing the namespace of {}: {e}", pod.name));
        }
        run.count(|counts| counts.namespaces_gone_first += 1);
        std::thread::sleep(Duration::from_millis(dice.between(0, 4000)));
    }
    let give_up = Instant::now() + REMOVED_WITHIN;
    loop {
        let began = Instant::now();
        let Err(e) = run.world.lab.run(&["pod", "rm", &pod.name]) else {
            break;
        };
        if !run.was_away(&pod.node, began, Instant::now()) {
            run.fail(format!("DEL of {} on {}: {e}", pod.name, pod.node));
        } else {
            run.count(|counts| counts.dels_failed_while_away += 1);
        }
        if Instant::now() > give_up {
            run.fail(format!(
                "{} on {} could not be removed for {} s: {e}",
                pod.name,
                pod.node,
                REMOVED_WITHIN.as_secs()
            ));
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    run.count(|counts| counts.dels += 1);
    if dice.percent(8) {
        let began = Instant::now();
        match run.world.del_again(pod) {
            Err(e) if !run.was_away(&pod.node, began, Instant::now()) => {
                run.fail(format!("the second DEL of {} on {}: {e}", pod.name, pod.node));
            }
            _ => run.count(|counts| counts.dels_repeated += 1),
        }
    }
}
