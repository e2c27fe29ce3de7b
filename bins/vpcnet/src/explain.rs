//! `vpcnet explain pod NS/NAME`: the address, its interface, what the kernel must have for it and has, and why this one; or what the
//! pod waits for, and until when; or why it was refused last.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Deserialize;
use vpcnet_ipam::{AddressState, HeldAddress, LeftAddress, PodReport, WaitingView};

use crate::span::{ago, span};
use crate::{Failure, http, print};

/// A pod that nothing can be said of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// Not of the form.
    #[error("{given:?} names no pod: write NAMESPACE/NAME, such as kube-system/coredns-57ff979f67-qqbdh")]
    Name {
        /// As given.
        given: String,
    },
    /// Nobody asked for it.
    #[error(
        "the agent knows nothing of pod {pod}: no ADD for it came to this node since the agent started, and no record of it is \
         left\n  does it run on this node (kubectl get pod -o wide), is it on the host's network (hostNetwork), and is the name \
         right?"
    )]
    Unknown {
        /// `NAMESPACE/NAME`.
        pod: String,
    },
}

/// The page of the agent.
#[derive(Deserialize)]
struct Page {
    namespace: String,
    name: String,
    now_ns: i64,
    starting: String,
    pod: PodReport,
    kernel: Vec<Kernel>,
    refused: Option<Refused>,
}

#[derive(Deserialize)]
struct Kernel {
    musts: Vec<Must>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Must {
    what: String,
    is_so: bool,
    found: String,
}

/// The last refusal of a pod, also as `vpcnet status` lists it.
#[derive(Deserialize)]
pub(crate) struct Refused {
    meta: vpcnet_ipam::PodMeta,
    verb: String,
    at_ns: i64,
    waited_ms: u64,
    message: String,
    retry_in_ms: Option<u64>,
    times: u32,
}

pub(crate) async fn pod(address: &str, pod: &str, json: bool) -> Result<ExitCode, Failure> {
    let (namespace, name) = names(pod)?;
    let path = format!("/v1/vpcnet/explain?namespace={namespace}&name={name}");
    let body = http::get(address, &path).await?;
    let page: Page = serde_json::from_slice(&body)?;
    let known = !page.pod.is_empty() || page.refused.is_some();
    if json {
        let value: serde_json::Value = serde_json::from_slice(&body)?;
        print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    } else if known || !page.starting.is_empty() {
        print(&text(&page))?;
    }
    if known {
        Ok(ExitCode::SUCCESS)
    } else if page.starting.is_empty() {
        Err(ExplainError::Unknown {
            pod: format!("{namespace}/{name}"),
        }
        .into())
    } else {
        Ok(ExitCode::FAILURE)
    }
}

/// Both parts of a pod's name. What Kubernetes allows in them needs no escape in a path.
fn names(given: &str) -> Result<(&str, &str), ExplainError> {
    let legal = |part: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        !part.is_empty() && part.bytes().all(ok)
    };
    match given.split_once('/') {
        Some((namespace, name)) if legal(namespace) && legal(name) => Ok((namespace, name)),
        _ => Err(ExplainError::Name {
            given: given.to_owned(),
        }),
    }
}

fn text(page: &Page) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let pod = format!("{}/{}", page.namespace, page.name);
    if !page.starting.is_empty() {
        let _ = writeln!(
            out,
            "the agent is starting and gives no address yet: {}",
            page.starting
        );
    }
    for (held, kernel) in page.pod.holds.iter().zip(&page.kernel) {
        address(&mut out, &pod, held, kernel, page.now_ns);
    }
    for wait in &page.pod.waits {
        waits(&mut out, &pod, wait);
    }
    for left in &page.pod.had {
        had(&mut out, &pod, left, page.now_ns);
    }
    if let Some(refused) = &page.refused {
        let _ = writeln!(out, "{}", refusal(refused, page.now_ns));
    }
    out
}

fn address(out: &mut String, pod: &str, held: &HeldAddress, kernel: &Kernel, now_ns: i64) {
    let wrong = kernel.musts.iter().filter(|m| !m.is_so).count();
    let verdict = match (&kernel.error, wrong) {
        (Some(_), _) => "the kernel could not be asked",
        (None, 0) => "all that the host needs for it is there",
        (None, _) => "the host lacks something for it: see ✗",
    };
    let _ = writeln!(out, "{pod} has {}; {verdict}", held.address);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    let since = match held.assigned_ns {
        0 => "since when is not known".to_owned(),
        at => format!("given {}", ago(at, now_ns)),
    };
    line("sandbox", format!("{}, {since}", held.key.container_id));
    if held.eni.0.is_empty() {
        line("interface", "not known".to_owned());
    } else {
        line(
            "interface",
            format!(
                "{} (device {} of card {}, {}, {})",
                held.eni,
                held.device,
                held.card,
                some(&held.mac, "MAC not known"),
                some(&held.subnet.0, "subnet not known")
            ),
        );
    }
    if let Some(prefix) = held.prefix {
        line("prefix", prefix.to_string());
    }
    line(
        "table",
        match held.route_table {
            0 | 1 | 254 => "main: the interface is the primary one".to_owned(),
            table => table.to_string(),
        },
    );
    line(
        "why it",
        held.why
            .clone()
            .unwrap_or_else(|| "not remembered: the agent was started since".to_owned()),
    );
    line("owner", held.standing.clone());
    for contradiction in &held.contradictions {
        line("but", contradiction.clone());
    }
    if let Some(error) = &kernel.error {
        line("kernel", error.clone());
    }
    for must in &kernel.musts {
        let mark = if must.is_so { "✓" } else { "✗" };
        let found = if must.found.is_empty() {
            String::new()
        } else {
            format!(" ({})", must.found)
        };
        let _ = writeln!(out, "  {mark} {}{found}", must.what);
    }
}

fn waits(out: &mut String, pod: &str, wait: &WaitingView) {
    let _ = writeln!(
        out,
        "{pod} waits for an address, for {} now, {} more at most",
        span(wait.for_ms),
        span(wait.left_ms)
    );
    let _ = writeln!(out, "  why        {}", wait.message);
    let next = match wait.retry_in_ms {
        Some(ms) => format!("in {}", span(ms)),
        None => "as soon as what it waits for happens".to_owned(),
    };
    let _ = writeln!(out, "  next try   {next}");
}

fn had(out: &mut String, pod: &str, left: &LeftAddress, now_ns: i64) {
    let state = match left.state {
        AddressState::Cooling { for_ms } => {
            format!("which cools down for {} more", span(for_ms))
        }
        AddressState::Releasing => "which is being given back to EC2".to_owned(),
        AddressState::Free | AddressState::Assigned => "which nobody has had since".to_owned(),
    };
    let _ = writeln!(
        out,
        "{pod} had {} on {} until {}, {state}",
        left.address,
        left.eni,
        ago(left.owner.released_ns, now_ns)
    );
}

/// One refusal in a sentence.
pub(crate) fn refusal(refused: &Refused, now_ns: i64) -> String {
    let again = match refused.retry_in_ms {
        // Mostly the words say it.
        Some(ms) if !refused.message.contains("tried again") => {
            format!("; it was to be tried again {} later", span(ms))
        }
        _ => String::new(),
    };
    let times = match refused.times {
        1 => String::new(),
        n => format!(", {n} times in all"),
    };
    format!(
        "{}'s {} was refused {} after waiting {}{times}: {}{again}",
        refused.meta,
        refused.verb,
        ago(refused.at_ns, now_ns),
        span(refused.waited_ms),
        refused.message
    )
}

fn some<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_by_namespace_and_name() {
        assert_eq!(names("kube-system/dns-1.a").unwrap(), ("kube-system", "dns-1.a"));
        for bad in ["web-0", "/web-0", "default/", "a/b/c", "a/b?x=1", "a b/c", ""] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}
