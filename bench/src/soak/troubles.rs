//! Makes and ends the troubles of a round, each by a command of the lab.

use std::io;
use std::time::{Duration, Instant};

use super::run::{Run, lock};
use super::script::{End, LAG, Lost, SHAKEN, Spell, Trouble};
use super::world::{NODES, Pod, of_node, text};

/// Secondary addresses that one interface of the operator's takes.
const AT_ONCE: u32 = 600;
/// Pods of the churn whose DEL never comes, at one death of an agent.
const NEVER_DELETED: usize = 2;

/// A spell under way.
enum Held {
    Rule,
    Interfaces(Vec<String>),
    Agent,
    Nothing,
}

/// Rules in force, so that the standing one can be laid down after them.
#[derive(Default)]
struct Rules {
    /// Number of the spell, and the arguments of its rule.
    spells: Vec<(usize, Vec<String>)>,
}

/// Carries a round out. It ends when the last spell has.
pub(super) fn carry_out(run: &Run, spells: &[Spell]) {
    let start = Instant::now();
    let mut steps: Vec<(Duration, usize, bool)> = Vec::new();
    for (number, spell) in spells.iter().enumerate() {
        steps.push((spell.from, number, true));
        steps.push((spell.from + spell.lasts, number, false));
    }
    steps.sort_by_key(|(at, number, begins)| (*at, *number, !*begins));
    let mut held: Vec<Held> = spells.iter().map(|_| Held::Nothing).collect();
    let mut rules = Rules::default();
    for (at, number, begins) in steps {
        std::thread::sleep(at.saturating_sub(start.elapsed()));
        let (Some(spell), Some(held)) = (spells.get(number), held.get_mut(number)) else {
            continue;
        };
        let done = if begins {
            begin(run, &mut rules, number, spell).map(|now| *held = now)
        } else {
            end(
                run,
                &mut rules,
                number,
                spell,
                std::mem::replace(held, Held::Nothing),
            )
        };
        if let Err(e) = done {
            let verb = if begins { "beginning" } else { "ending" };
            run.fail(format!(
                "{verb} \"{}\" on {}: {e}",
                spell.trouble.title(),
                spell.node
            ));
        }
    }
}

fn begin(run: &Run, rules: &mut Rules, number: usize, spell: &Spell) -> io::Result<Held> {
    let title = spell.trouble.title();
    let node = spell.node;
    run.say(&format!(
        "{node}: {title}, for {:.1} s",
        spell.lasts.as_secs_f64()
    ));
    let held = match &spell.trouble {
        Trouble::Calls { arguments, .. } => {
            run.hindered_from(node);
            if spell.trouble.doubles_assignments() {
                lock(&run.doubled).insert(node);
            }
            let for_node = ["--node".to_owned(), node.to_owned()];
            rules
                .spells
                .push((number, [arguments.as_slice(), &for_node].concat()));
            rules.write(run)?;
            Held::Rule
        }
        Trouble::Subnet { left } => {
            run.hindered_from(node);
            Held::Interfaces(fill(run, node, *left)?)
        }
        Trouble::Agent { end, lost } => {
            if agent_pid(run, node)?.is_none() {
                return Ok(Held::Nothing);
            }
            run.away_from(node);
            let verb = match end {
                End::Kill => "kill",
                End::Stop => "stop",
            };
            run.world.lab.run(&["agent", verb, node])?;
            lose(run, node, *lost)?;
            Held::Agent
        }
    };
    run.count(|counts| *counts.troubles.entry(title).or_default() += 1);
    Ok(held)
}

fn end(run: &Run, rules: &mut Rules, number: usize, spell: &Spell, held: Held) -> io::Result<()> {
    match held {
        Held::Nothing => {}
        Held::Rule => {
            rules.spells.retain(|(other, _)| *other != number);
            let done = rules.write(run);
            run.free_again(spell.node);
            done?;
        }
        Held::Interfaces(all) => {
            let mut done = Ok(());
            for eni in all {
                let gone = run.world.lab.run(&[
                    "ec2",
                    "DeleteNetworkInterface",
                    &format!("NetworkInterfaceId={eni}"),
                ]);
                done = done.and(gone.map(drop));
            }
            run.free_again(spell.node);
            done?;
        }
        Held::Agent => {
            run.world.start_agent(spell.node)?;
            run.back(spell.node);
        }
    }
    Ok(())
}

impl Rules {
    /// Lays the whole plan down anew, the standing rule last.
    fn write(&self, run: &Run) -> io::Result<()> {
        run.world.lab.run(&["fault", "clear"])?;
        let lab = |words: &[&str]| run.world.lab.run(&[&["fault", "add"], words].concat()).map(drop);
        for (_, arguments) in &self.spells {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            lab(&words)?;
        }
        NODES
            .iter()
            .try_for_each(|node| lab(&[LAG, &["--node", node]].concat()))
    }
}

/// No trouble but the standing one.
pub(super) fn calm(run: &Run) -> io::Result<()> {
    Rules::default().write(run)
}

/// Takes addresses of a node's subnet until so many are left. The interfaces that took them.
fn fill(run: &Run, node: &str, left: u32) -> io::Result<Vec<String>> {
    let status = run.world.status()?;
    let subnet = of_node(&status, node)
        .map(|n| text(n, "subnet"))
        .unwrap_or_default();
    let mut all = Vec::new();
    loop {
        let xml = run
            .world
            .lab
            .run(&["ec2", "DescribeSubnets", &format!("SubnetId.1={subnet}")])?;
        let free: u32 = element(&xml, "availableIpAddressCount")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no availableIpAddressCount in {xml}")))?;
        // The interface itself takes one.
        let take = free.saturating_sub(left);
        if take == 0 {
            return Ok(all);
        }
        let mut parameters = vec![
            "ec2".to_owned(),
            "CreateNetworkInterface".to_owned(),
            format!("SubnetId={subnet}"),
        ];
        if take > 1 {
            parameters.push(format!(
                "SecondaryPrivateIpAddressCount={}",
                (take - 1).min(AT_ONCE)
            ));
        }
        let words: Vec<&str> = parameters.iter().map(String::as_str).collect();
        match run.world.lab.run(&words) {
            Ok(xml) => all.extend(element(&xml, "networkInterfaceId").map(str::to_owned)),
            // The nodes took some meanwhile: the next look says how many are left.
            Err(e) if e.to_string().contains("InsufficientFreeAddressesInSubnet") => {}
            Err(e) => {
                for eni in all {
                    run.world.lab.run(&[
                        "ec2",
                        "DeleteNetworkInterface",
                        &format!("NetworkInterfaceId={eni}"),
                    ])?;
                }
                return Err(e);
            }
        }
    }
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text)
}

fn agent_pid(run: &Run, node: &str) -> io::Result<Option<i64>> {
    let status = run.world.status()?;
    Ok(of_node(&status, node).and_then(|n| n.pointer("/agent/pid")?.as_i64()))
}

/// What goes while there is no agent.
fn lose(run: &Run, node: &'static str, lost: Lost) -> io::Result<()> {
    let remove = |path: &str| match std::fs::remove_file(run.world.file(node, path)?) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    match lost {
        Lost::Nothing => Ok(()),
        Lost::Checkpoint => remove("/run/aws-node/ipam.json"),
        Lost::State => remove("/run/aws-node/vpcnet-state.json"),
        Lost::Pods => {
            let pods: Vec<Pod> = (0..NEVER_DELETED)
                .filter_map(|n| run.take(SHAKEN, n as u64))
                .collect();
            for pod in &pods {
                run.dies(pod);
                // Its DEL fails for want of an agent, and the runtime forgets the pod all the same.
                let _ = run.world.lab.run(&["pod", "rm", "--force", &pod.name]);
                run.count(|counts| counts.never_deleted += 1);
            }
            let left = run.world.pods()?;
            match pods.iter().find(|p| left.contains(p)) {
                Some(pod) => Err(io::Error::other(format!("{} was not forgotten", pod.name))),
                None => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_read_from_ec2s_xml() {
        let xml = "<a><networkInterfaceId>eni-1</networkInterfaceId><b>2</b></a>";
        assert_eq!(element(xml, "networkInterfaceId"), Some("eni-1"));
        assert_eq!(element(xml, "b"), Some("2"));
        assert_eq!(element(xml, "c"), None);
    }
}
