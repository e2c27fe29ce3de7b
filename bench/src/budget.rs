//! What the agent asks of EC2, by occasion: counted in a lab of its own.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::lab::Lab;
use crate::outside::{calls, settled};

/// 3 interfaces with 9 addresses for pods each.
const TYPE: &str = "m5.large";
const NODE: &str = "node-1";
/// Pods that the primary interface serves beside the first.
const POOLED: usize = 8;

/// Calls by occasion, and by action.
pub(crate) fn measure(bin: &std::path::Path) -> io::Result<Value> {
    let lab = Lab::up(bin, &["--type", TYPE])?;
    let mut so_far = Vec::new();
    settled(&lab)?;
    let cold = since(&lab, &mut so_far)?;

    lab.run(&["pod", "add", NODE, "first"])?;
    settled_after(&lab, so_far.len() + 3)?;
    let interface = since(&lab, &mut so_far)?;

    for number in 1..=POOLED {
        lab.run(&["pod", "add", NODE, &format!("pod-{number}")])?;
    }
    let pods = since(&lab, &mut so_far)?;

    lab.run(&["agent", "kill", NODE])?;
    lab.run(&["agent", "start", NODE])?;
    settled_after(&lab, 0)?;
    let warm = since(&lab, &mut so_far)?;
    Ok(json!({
        "cold_start": cold,
        "warm_start": warm,
        "further_interface": interface,
        "eight_pods": pods,
    }))
}

/// Calls to EC2 that came after those counted so far, by action.
fn since(lab: &Lab, so_far: &mut Vec<String>) -> io::Result<Value> {
    let all = actions(lab)?;
    let mut by_action: Map<String, Value> = Map::new();
    for action in all.iter().skip(so_far.len()) {
        let count = by_action.get(action).and_then(Value::as_u64).unwrap_or(0);
        by_action.insert(action.clone(), json!(count + 1));
    }
    by_action.insert("all".to_owned(), json!(all.len() - so_far.len()));
    *so_far = all;
    Ok(by_action.into())
}

fn actions(lab: &Lab) -> io::Result<Vec<String>> {
    let printed: Value = serde_json::from_str(&lab.run(&["calls", "--json"])?)?;
    let of_ec2 = |c: &&Value| c.get("face").and_then(Value::as_str) == Some("ec2");
    let name = |c: &Value| c.get("action").and_then(Value::as_str).map(str::to_owned);
    let calls = printed.as_array().into_iter().flatten();
    Ok(calls.filter(of_ec2).filter_map(name).collect())
}

/// No call for five seconds, after so many in all.
fn settled_after(lab: &Lab, count: usize) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while (calls(lab)?.0 as usize) < count {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "{count} calls to EC2 were awaited for 60 s"
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    settled(lab).map(|_| ())
}
