//! Scripts: the rules of the warm pool as text, in `tests/scripts/*.sim`. A line that begins with `>` is a command, what
//! follows is what came of it. `VPCNET_UPDATE_EXPECTED=1 cargo test -p vpcnet-ipam --test pool scripts` writes it anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use vpcnet_ipam::{Action, Answer, Event, FailureClass, Mode, RequestId, SubnetId, Targets};

use super::rig::{Rig, seconds};

/// A script as it runs.
struct Run {
    rig: Option<Rig>,
    /// Before there is a node.
    targets: Targets,
    asked: Vec<(RequestId, u64)>,
}

fn numbers(words: &[&str]) -> Vec<u32> {
    let number = |w: &&str| w.parse().unwrap_or_else(|_| panic!("{w:?} is no number"));
    words.iter().map(number).collect()
}

/// A setting: a number, or `off`.
fn set(t: &mut Targets, name: &str, value: &str) {
    let number = || value.parse::<u32>().unwrap_or_else(|_| panic!("{name} {value}"));
    let some = || (value != "off").then(number);
    let on = value == "on";
    match name {
        "WARM_ENI_TARGET" => t.warm_eni = number(),
        "WARM_IP_TARGET" => t.warm_ip = some(),
        "MINIMUM_IP_TARGET" => t.minimum_ip = some(),
        "WARM_PREFIX_TARGET" => t.warm_prefix = some(),
        "MAX_ENI" => t.max_eni = some(),
        "max-pods" => t.max_pods = number(),
        "IP_COOLDOWN_PERIOD" => t.cooldown = seconds(u64::from(number())),
        "prefixes" => t.mode = if on { Mode::Prefixes } else { Mode::SecondaryIp },
        "provisioning" => t.provisioning = on,
        "cordoned" => t.unschedulable = on,
        "trunk-slot" => t.reserve_trunk_slot = on,
        "auto" => t.auto = on,
        "candidates" => t.subnets.candidates = value.split(',').map(SubnetId::from).collect(),
        "excluded" => {
            t.subnets.excluded = value
                .split(',')
                .filter(|v| *v != "none")
                .map(SubnetId::from)
                .collect()
        }
        other => panic!("there is no setting {other:?}"),
    }
}

impl Run {
    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("a node first")
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().expect("a command");
        match (*verb, rest) {
            ("set", [name, value]) => {
                set(&mut self.targets, name, value);
                let targets = self.targets.clone();
                if let Some(rig) = &mut self.rig {
                    rig.tell(Event::TargetsChanged(targets));
                }
            }
            // Interfaces, and addresses of each with its own.
            ("node", sizes) => {
                let sizes = numbers(sizes);
                self.rig = Some(Rig::fresh((sizes[0], sizes[1]), self.targets.clone()));
            }
            ("add", pods) => {
                for n in numbers(pods) {
                    let request = self.rig().add(n.into());
                    self.asked.push((request, n.into()));
                }
            }
            ("del", pods) => {
                for n in numbers(pods) {
                    self.rig().del(n.into());
                }
            }
            // EC2 does what was ordered, and what comes of that.
            ("done", []) => self.rig().succeed_all(),
            // The first order fails.
            ("fails", [class]) => {
                let class = match *class {
                    "throttled" => FailureClass::Throttled,
                    "unanswered" => FailureClass::Retry,
                    "exhausted" => FailureClass::SubnetExhausted,
                    "limit" => FailureClass::LimitReached,
                    "refused" => FailureClass::Refused,
                    other => panic!("no failure {other:?}"),
                };
                let rig = self.rig();
                let first = rig.take(|a| !matches!(a, Action::Reply { .. }));
                rig.fail(&first, class, "as the script says", None);
            }
            // Seconds.
            ("pass", [secs]) => {
                let ms = u64::from(numbers(&[secs])[0]) * 1_000;
                self.rig().pass(ms);
            }
            ("restart", []) => {
                let rig = self.rig.take().expect("a node first");
                self.rig = Some(rig.restart(|_| {}).0);
            }
            ("why", []) => {}
            _ => panic!("no command {line:?}"),
        }
    }

    /// What came of a command.
    fn outcome(&mut self, line: &str) -> String {
        let mut text = String::new();
        let Some(rig) = &self.rig else { return text };
        for order in rig.ordered() {
            let _ = writeln!(text, "  orders {order}");
        }
        self.asked.retain(|(request, pod)| {
            let said = match rig.answer(*request) {
                None => return true,
                Some(Answer::Assigned(leases)) => {
                    let of = |l: &vpcnet_ipam::Lease| format!("{} of {}", l.address, l.eni);
                    leases.iter().map(of).collect::<Vec<_>>().join(", ")
                }
                Some(Answer::Refused(refusal)) => format!("refused: {}", refusal.message),
                Some(other) => format!("{other:?}"),
            };
            let _ = writeln!(text, "  pod {pod}: {said}");
            false
        });
        let t = rig.pool.view(rig.now()).totals;
        let _ = writeln!(
            text,
            "  {} addresses, {} assigned, {} cooling, {} waiting; {} interfaces, {} prefixes",
            t.total, t.assigned, t.cooling, t.waiting, t.interfaces, t.prefixes
        );
        if line == "why" {
            let report = rig.pool.explain(rig.now());
            for line in report.lines {
                let _ = writeln!(text, "  | {line}");
            }
        }
        text
    }
}

/// The script with what comes of it now.
fn played(script: &str) -> String {
    let mut run = Run {
        rig: None,
        targets: Targets::default(),
        asked: Vec::new(),
    };
    let mut text = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix('>') {
            let command = command.trim();
            let _ = writeln!(text, "> {command}");
            run.command(command);
            text.push_str(&run.outcome(command));
        } else if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[test]
fn every_script_comes_out_as_it_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let all = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = all
        .filter(|p| p.extension().is_some_and(|e| e == "sim"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    let mut different = Vec::new();
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let now = played(&script);
        if now == script {
            continue;
        }
        if std::env::var("VPCNET_UPDATE_EXPECTED").is_ok_and(|v| v == "1") {
            std::fs::write(&file, now).unwrap();
        } else {
            different.push(format!("{}:\n{now}", file.display()));
        }
    }
    assert!(
        different.is_empty(),
        "came out otherwise (VPCNET_UPDATE_EXPECTED=1 writes it):\n{}",
        different.join("\n")
    );
}
