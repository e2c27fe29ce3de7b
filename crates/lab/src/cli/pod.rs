//! `lab pod`: pods by the real plugin, one by one or in bursts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{need_root, print_json};
use crate::cni::{self, Runtime};
use crate::control::{self, Ask, NodeStatus, Status};
use crate::daemon::options::{pair, program};
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::pods::{self, Pod};
use crate::state::Dir;

/// The annotation by which a pod asks for an interface on every network card.
const EVERY_CARD: (&str, &str) = ("k8s.amazonaws.com/nicConfig", "multi-nic-attachment");

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a pod, or with --count a burst of them
    Add(Add),
    /// Remove pods
    Rm {
        /// Their names
        names: Vec<String>,
        /// All pods instead
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// With --all: of this node only
        #[arg(long, requires = "all")]
        node: Option<String>,
        /// How many at a time
        #[arg(long, default_value_t = 8)]
        parallel: usize,
        /// Remove the namespace even when the plugin fails
        #[arg(long)]
        force: bool,
    },
    /// List the pods
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Add {
    /// The node
    pub(super) node: String,
    /// The pod's name
    #[arg(required_unless_present = "count")]
    pub(super) name: Option<String>,
    /// Make so many pods
    #[arg(long, value_name = "N", conflicts_with = "name")]
    pub(super) count: Option<usize>,
    /// So many at a time
    #[arg(long, value_name = "P", default_value_t = 8)]
    pub(super) parallel: usize,
    /// Names of a burst: PREFIX-1, PREFIX-2, …
    #[arg(long, default_value = "pod")]
    pub(super) prefix: String,
    /// Kubernetes namespace
    #[arg(long, default_value = "default")]
    pub(super) namespace: String,
    /// An annotation of the pod; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) annotate: Vec<String>,
    /// Ask for an address of every network card, as the pod's annotation k8s.amazonaws.com/nicConfig does
    #[arg(long)]
    pub(super) every_card: bool,
    /// CNI version of the configuration
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    pub(super) cni_version: String,
    /// The result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What came of a burst.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Burst {
    /// Pods asked for.
    pub(super) count: usize,
    /// ADDs that failed.
    pub(super) failed: usize,
    /// From the first start to the last end.
    pub(super) all_ready_ms: f64,
    /// Over the ADDs that did not fail.
    pub(super) min_ms: f64,
    /// As above.
    pub(super) median_ms: f64,
    /// As above.
    pub(super) max_ms: f64,
    /// Pod and what the plugin said, for those that failed.
    pub(super) failures: Vec<(String, String)>,
    /// The pods made.
    pub(super) pods: Vec<Pod>,
}

pub(super) fn run(dir: &Dir, command: Command) -> Result<ExitCode, LabError> {
    match command {
        Command::Add(add) => {
            need_root()?;
            let names = match (&add.name, add.count) {
                (Some(name), _) => vec![name.clone()],
                (None, count) => (1..=count.unwrap_or_default())
                    .map(|n| format!("{}-{n}", add.prefix))
                    .collect(),
            };
            let single = add.name.is_some();
            let burst = burst(dir, &add, &names)?;
            report(&burst, &add, single)?;
            Ok(if burst.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Rm {
            names,
            all,
            node,
            parallel,
            force,
        } => {
            need_root()?;
            let pods = if all {
                pods::list(dir)?
                    .into_iter()
                    .filter(|p| node.as_ref().is_none_or(|n| p.node == *n))
                    .collect()
            } else {
                names
                    .iter()
                    .map(|name| pods::find(dir, name))
                    .collect::<Result<Vec<Pod>, LabError>>()?
            };
            let failures = remove(dir, &pods, parallel, force)?;
            for (name, why) in &failures {
                eprintln!("vpcnet lab: pod {name} was not removed: {why}");
            }
            Ok(if failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::List { json } => {
            let pods = pods::list(dir)?;
            if json {
                print_json(&pods)?;
            } else {
                for pod in pods {
                    let address = words(&pod, "-");
                    println!("{:<12} {:<24} {:<16} {}", pod.node, pod.name, address, pod.netns);
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn report(burst: &Burst, add: &Add, single: bool) -> Result<(), LabError> {
    if add.json {
        return print_json(burst);
    }
    for (name, why) in &burst.failures {
        eprintln!("vpcnet lab: pod {name}: {why}");
    }
    if let (true, [pod]) = (single, burst.pods.as_slice()) {
        let address = words(pod, "no address");
        println!(
            "pod/{} on {} has {address} ({:.1} ms)",
            pod.name,
            pod.node,
            pod.add_ms.unwrap_or_default()
        );
    } else if !single {
        println!(
            "{} of {} pods ready after {:.0} ms; ADD min {:.1} / median {:.1} / max {:.1} ms; {} failed",
            burst.pods.len(),
            burst.count,
            burst.all_ready_ms,
            burst.min_ms,
            burst.median_ms,
            burst.max_ms,
            burst.failed
        );
    }
    Ok(())
}

/// The pod's addresses, or what is said when it has none.
fn words(pod: &Pod, none: &str) -> String {
    let all: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
    if all.is_empty() {
        none.to_owned()
    } else {
        all.join(" ")
    }
}

fn place(node: &NodeStatus) -> Result<Place, LabError> {
    Place::of_node(&node.namespace, node.holder)
}

fn plugin() -> Result<PathBuf, LabError> {
    program("aws-cni", "AWS_CNI")
}

/// Makes pods of those names, `parallel` at a time.
pub(super) fn burst(dir: &Dir, add: &Add, names: &[String]) -> Result<Burst, LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    let (plugin, place) = (plugin()?, place(status.node(&add.node)?)?);
    let runtime = Runtime {
        dir,
        plugin: &plugin,
        node: &place,
    };
    let mut annotations = Map::new();
    for text in &add.annotate {
        let (key, value) = pair(text)?;
        annotations.insert(key, Value::String(value));
    }
    if add.every_card {
        let (key, value) = EVERY_CARD;
        annotations.insert(key.to_owned(), Value::String(value.to_owned()));
    }
    let config = cni::config(&add.cni_version, &annotations);
    let start = Instant::now();
    let results = side_by_side(names, add.parallel, |index, name| {
        runtime.add(Pod {
            name: name.clone(),
            namespace: add.namespace.clone(),
            node: add.node.clone(),
            netns: dir.names().pod(name),
            container_id: cni::container_id(index as u64),
            ifname: "eth0".to_owned(),
            annotations: annotations.clone(),
            config: config.clone(),
            result: None,
            address: None,
            add_ms: None,
        })
    });
    let mut burst = Burst {
        count: names.len(),
        all_ready_ms: start.elapsed().as_secs_f64() * 1e3,
        ..Burst::default()
    };
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(Ok(pod)) => burst.pods.push(pod),
            Ok(Err((failure, took))) => {
                burst
                    .failures
                    .push((name.clone(), format!("{failure} after {} ms", took.as_millis())));
            }
            Err(e) => burst.failures.push((name.clone(), e.to_string())),
        }
    }
    burst.failed = burst.failures.len();
    let mut times: Vec<f64> = burst.pods.iter().filter_map(|p| p.add_ms).collect();
    times.sort_by(f64::total_cmp);
    burst.min_ms = times.first().copied().unwrap_or_default();
    burst.median_ms = times.get(times.len() / 2).copied().unwrap_or_default();
    burst.max_ms = times.last().copied().unwrap_or_default();
    Ok(burst)
}

/// Removes pods; returns those that could not be, with what the plugin said.
fn remove(dir: &Dir, pods: &[Pod], parallel: usize, force: bool) -> Result<Vec<(String, String)>, LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    let plugin = plugin()?;
    let results = side_by_side(pods, parallel, |_, pod| {
        let place = place(status.node(&pod.node)?)?;
        let result = Runtime {
            dir,
            plugin: &plugin,
            node: &place,
        }
        .del(pod)?;
        if result.is_err() && force {
            pod.forget(dir)?;
        }
        Ok(result)
    });
    let failure = |(pod, result): (&Pod, Result<Result<_, cni::Failure>, LabError>)| {
        let why = match result {
            Ok(Ok(_)) => return None,
            Ok(Err(failure)) => failure.to_string(),
            Err(e) => e.to_string(),
        };
        Some((pod.name.clone(), why))
    };
    Ok(pods.iter().zip(results).filter_map(failure).collect())
}

/// Does `work` for all items, `parallel` at a time, results in the items' order.
fn side_by_side<I: Sync, T: Send>(
    items: &[I],
    parallel: usize,
    work: impl Fn(usize, &I) -> Result<T, LabError> + Sync,
) -> Vec<Result<T, LabError>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<T, LabError>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..parallel.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(index, item);
                    done.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((index, result));
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_side_by_side_keeps_the_order_of_its_results() {
        let items: Vec<usize> = (0..50).collect();
        let results = side_by_side(&items, 7, |index, item| Ok(index * 100 + item));
        let results: Vec<usize> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, (0..50).map(|n| n * 101).collect::<Vec<_>>());
        assert!(side_by_side(&[] as &[usize], 0, |_, _| Ok(())).is_empty());
    }
}
