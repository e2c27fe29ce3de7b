//! `vpcnet doctor`: looks at a node before vpcnet runs there. Every finding says what was seen and, where something has to be
//! put right, how. Nothing is changed: EC2 is asked by dry runs.

mod api_server;
mod aws;
mod kernel;
mod managers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use vpcnet_config::{Config, Finding as Setting, MISSING, Reading};

/// How it is run.
#[derive(Args)]
pub(crate) struct Options {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    /// Where the node's own files are, such as /host where that is mounted in a container
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// To be known; nothing needs to be done.
    Note,
    /// It was not looked at, and why.
    Skipped,
    /// It works, and may not always.
    Warning,
    /// It will not work.
    Problem,
}

impl Verdict {
    fn sign(self) -> &'static str {
        match self {
            Self::Ok => "✓",
            Self::Note => "·",
            Self::Skipped => "-",
            Self::Warning => "!",
            Self::Problem => "✗",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Where it belongs: `settings`, `kernel`, `aws`, `kubernetes`, `node`.
    topic: &'static str,
    verdict: Verdict,
    /// What was seen.
    text: String,
    /// What to do about it; empty: nothing.
    #[serde(skip_serializing_if = "str::is_empty")]
    remedy: String,
}

/// Findings of one topic.
pub(crate) struct Findings {
    topic: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn of(topic: &'static str) -> Self {
        Self {
            topic,
            all: Vec::new(),
        }
    }

    fn add(&mut self, verdict: Verdict, text: impl Into<String>, remedy: impl Into<String>) {
        self.all.push(Finding {
            topic: self.topic,
            verdict,
            text: text.into(),
            remedy: remedy.into(),
        });
    }

    fn ok(&mut self, text: impl Into<String>) {
        self.add(Verdict::Ok, text, "");
    }

    fn note(&mut self, text: impl Into<String>) {
        self.add(Verdict::Note, text, "");
    }

    fn skipped(&mut self, text: impl Into<String>) {
        self.add(Verdict::Skipped, text, "");
    }

    fn warn(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Verdict::Warning, text, remedy);
    }

    fn problem(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Verdict::Problem, text, remedy);
    }
}

/// Looks, and tells.
///
/// # Errors
/// What printing gives.
pub(crate) async fn run(options: Options) -> Result<ExitCode, crate::Failure> {
    let (config, mut all) = settings(&|name| std::env::var(name).ok());
    all.extend(kernel::look(&config).await.all);
    all.extend(managers::look(&options.root).all);
    all.extend(aws::look(&config).await.all);
    all.extend(api_server::look(&config).await.all);
    let worst = all.iter().map(|finding| finding.verdict).max();
    let can = worst != Some(Verdict::Problem);
    if options.json {
        let value = serde_json::json!({ "ready": can, "findings": all });
        crate::print(&format!("{value:#}\n"))?;
    } else {
        crate::print(&text(&all, can))?;
    }
    Ok(if can { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(all: &[Finding], can: bool) -> String {
    let mut out = String::new();
    let mut topic = "";
    for finding in all {
        if finding.topic != topic {
            topic = finding.topic;
            out.push_str(&format!("{topic}\n"));
        }
        out.push_str(&format!("  {} {}\n", finding.verdict.sign(), finding.text));
        if !finding.remedy.is_empty() {
            out.push_str(&format!("      → {}\n", finding.remedy));
        }
    }
    let count = |verdict| all.iter().filter(|f| f.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    out.push_str(&match (can, warnings) {
        (true, 0) => "vpcnet can run here\n".to_owned(),
        (true, n) => format!("vpcnet can run here; {n} to look at (!)\n"),
        (false, n) => {
            format!("vpcnet cannot run here yet: {problems} to put right (✗), {n} to look at (!)\n")
        }
    });
    out
}

/// The agent's environment: what it refuses, passes over and cannot do yet.
fn settings(lookup: &vpcnet_config::Lookup<'_>) -> (Config, Vec<Finding>) {
    let reading = Reading::of(lookup).without(MISSING);
    let mut found = Findings::of("settings");
    for finding in &reading.findings {
        let text = finding.to_string();
        match finding {
            Setting::Refused(_) => found.problem(text, "correct it: the agent does not start with it"),
            Setting::Ignored(_) => found.warn(text, "correct or unset it"),
            Setting::Noted(_) => found.warn(text, ""),
        }
    }
    if found.all.is_empty() {
        found.ok("the environment has nothing that is refused or passed over");
    }
    (reading.config, found.all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_refuses_is_a_problem_and_what_it_passes_over_a_warning() {
        let verdicts = |name: &'static str, value: &'static str| {
            let (_, found) = settings(&|n| (n == name).then(|| value.to_owned()));
            found.iter().map(|f| f.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts("X", ""), [Verdict::Ok]);
        assert_eq!(verdicts("IP_COOLDOWN_PERIOD", "soon"), [Verdict::Problem]);
        assert_eq!(verdicts("WARM_IP_TARGET", "many"), [Verdict::Warning]);
    }

    #[test]
    fn the_report_says_each_remedy_and_how_it_ends() {
        let mut found = Findings::of("kernel");
        found.ok("fine");
        found.warn("shaky", "hold it");
        let said = text(&found.all, true);
        assert_eq!(
            said,
            "kernel\n  ✓ fine\n  ! shaky\n      → hold it\nvpcnet can run here; 1 to look at (!)\n"
        );
        found.problem("broken", "mend it");
        let said = text(&found.all, false);
        assert!(
            said.ends_with("cannot run here yet: 1 to put right (✗), 1 to look at (!)\n"),
            "{said}"
        );
    }
}
