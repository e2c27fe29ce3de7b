//! A Kubernetes in a lab, with vpcnet on its nodes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Failure, Lab, Options};
use crate::wait::{wait_for, wait_for_or};

/// The image with a web server that tells what it sees, and a client that can be told to ask (Kubernetes' own tests use it).
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.56";

/// How long a node may take until it is Ready, on a machine that others use, too.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// A cluster that lives as long as its lab.
#[derive(Debug)]
pub struct Cluster {
    /// The lab.
    pub lab: Lab,
}

/// A pod as the API server has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KubePod {
    /// Its name.
    pub name: String,
    /// Its node's name in Kubernetes.
    pub node: String,
    /// Its address; none yet: empty.
    pub address: String,
    /// Whether it is Ready, and not being deleted.
    pub ready: bool,
    /// How often its first container was started again.
    pub restarts: u64,
}

/// An HTTP request to be made from somewhere in the lab.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Get {
    /// Address or name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl Get {
    /// A request.
    #[must_use]
    pub fn new(host: &str, port: u16, path: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }
    }

    /// Asks a pod's web server to ask another one itself, so that packets go from that pod. The answer is JSON, with `responses`.
    #[must_use]
    pub fn through(pod: &str, host: &str, port: u16, request: &str) -> Self {
        let path = format!("/dial?protocol=http&tries=1&request={request}&host={host}&port={port}");
        Self::new(pod, 8080, &path)
    }
}

impl Cluster {
    /// Brings a lab with Kubernetes up, and vpcnet on all its nodes; returns once they are Ready.
    #[must_use]
    pub fn up(arguments: &[&str]) -> Self {
        let mut all = vec!["--kubernetes"];
        all.extend(arguments);
        let cluster = Self {
            lab: Lab::up(&Options {
                arguments: &all,
                env: &[],
            }),
        };
        if !images().is_empty() {
            cluster.apply_manifests();
        }
        for node in cluster.lab_nodes() {
            cluster.install(&node);
        }
        cluster
    }

    /// What users apply, with the changes a lab needs.
    fn apply_manifests(&self) {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
        let manifests = self.kubectl(&["kustomize", "--load-restrictor=LoadRestrictionsNone", directory]);
        self.apply(&manifests);
    }

    /// Puts vpcnet on a node and waits until it is Ready: by its image and the DaemonSet's pod where `VPCNET_E2E_IMAGE` names
    /// archives (with colons between), else started by the lab.
    pub fn install(&self, node: &str) {
        let images = images();
        if images.is_empty() {
            self.lab.run(&["agent", "start", node]);
        } else {
            let mut load = vec!["image", "load", "--node", node];
            load.extend(images.iter().map(String::as_str));
            self.lab.run(&load);
        }
        let name = self.node_name(node);
        wait_for_or(
            || format!("{node} is Ready: {}", self.describe_node(&name)),
            READY_LIMIT,
            || self.node_ready(&name).then_some(()),
        );
    }

    fn describe_node(&self, name: &str) -> String {
        self.try_kubectl(&["describe", "node", name])
            .unwrap_or_else(|e| e.to_string())
    }

    /// What the lab says of its nodes that are Kubernetes', by their names in the lab.
    ///
    /// # Panics
    /// When the status holds none.
    #[must_use]
    pub fn status(&self) -> BTreeMap<String, Value> {
        let status = self.lab.json(&["status", "--json"]);
        let nodes = status["nodes"].as_array().expect("nodes").iter();
        nodes
            .filter(|n| n["kubernetes"]["node"].is_string())
            .map(|n| (text(&n["name"]), n.clone()))
            .collect()
    }

    /// Names in the lab of Kubernetes' nodes.
    #[must_use]
    pub fn lab_nodes(&self) -> Vec<String> {
        self.status().into_keys().collect()
    }

    /// What Kubernetes calls a node.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn node_name(&self, lab_name: &str) -> String {
        let status = self.status();
        let node = status
            .get(lab_name)
            .unwrap_or_else(|| panic!("{lab_name} is none of {:?}", status.keys()));
        text(&node["kubernetes"]["node"])
    }

    /// Runs kubectl.
    ///
    /// # Errors
    /// What it said.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut all = vec!["kubectl"];
        all.extend(arguments);
        self.lab.try_run(&all)
    }

    /// Runs kubectl, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Applies manifests.
    ///
    /// # Panics
    /// When the API server refuses them.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        let mut child = self
            .lab
            .command(&["kubectl", "apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let mut input = child.stdin.take().expect("its standard input");
        input.write_all(manifests.as_bytes()).expect("kubectl reads");
        drop(input);
        let said = child.wait_with_output().expect("kubectl ends");
        assert!(
            said.status.success(),
            "{}\n{manifests}",
            String::from_utf8_lossy(&said.stderr)
        );
    }

    /// An object, or a list of them.
    ///
    /// # Errors
    /// When there is none, or no API server.
    pub fn try_get(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        let printed = self.try_kubectl(&all).map_err(|e| e.to_string())?;
        serde_json::from_str(&printed).map_err(|e| format!("{e}: {printed}"))
    }

    /// The same, of what must be there.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn get(&self, arguments: &[&str]) -> Value {
        self.try_get(arguments).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Whether a node is there and Ready.
    #[must_use]
    pub fn node_ready(&self, name: &str) -> bool {
        self.try_get(&["node", name]).is_ok_and(|node| {
            let conditions = node["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
    }

    /// The pods with a label, `app=web`, in the default namespace.
    #[must_use]
    pub fn pods(&self, label: &str) -> Vec<KubePod> {
        self.try_get(&["pods", "-l", label])
            .map(|list| pods_of(&list))
            .unwrap_or_default()
    }

    /// Waits until exactly `count` pods have that label, and all of them are Ready.
    ///
    /// # Panics
    /// When that takes too long; the message tells what is not.
    #[track_caller]
    pub fn wait_for_pods(&self, label: &str, count: usize, deadline: Duration) -> Vec<KubePod> {
        wait_for_or(
            || format!("{count} pods {label} Ready: {}", self.trouble(label)),
            deadline,
            || {
                let pods = self.pods(label);
                (pods.len() == count && pods.iter().all(|p| p.ready)).then_some(pods)
            },
        )
    }

    /// Waits until no pod has that label any more.
    #[track_caller]
    pub fn wait_for_none(&self, label: &str, deadline: Duration) {
        wait_for_or(
            || format!("no pods {label}: {:?}", self.pods(label)),
            deadline,
            || {
                let list = self.try_get(&["pods", "-l", label]).ok()?;
                list["items"].as_array()?.is_empty().then_some(())
            },
        );
    }

    fn trouble(&self, label: &str) -> String {
        let pods = self.pods(label);
        let (ready, not): (Vec<_>, Vec<_>) = pods.into_iter().partition(|p| p.ready);
        let events = self.try_kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
        let events = events.unwrap_or_default();
        let last: Vec<&str> = events.lines().rev().take(15).collect();
        format!(
            "{} are, {not:?} are not; last events:\n{}",
            ready.len(),
            last.join("\n")
        )
    }

    /// Makes requests from a place of the lab (a node, `internet`, `peer`), several at a time. Each answer's body, `None` where there
    /// was none within five seconds.
    ///
    /// # Panics
    /// When requests cannot be made at all.
    #[must_use]
    pub fn fetch(&self, place: &str, requests: &[Get]) -> BTreeMap<Get, Option<String>> {
        // bash and its /dev/tcp are on every machine; an HTTP client is not.
        let one = r#"
            answer=$(timeout 5 bash -c 'exec 3<>/dev/tcp/$1/$2 && printf "GET %s HTTP/1.0\r\nHost: $1\r\n\r\n" "$3" >&3 && cat <&3' \
                _ "$1" "$2" "$3" 2>/dev/null | tr -d '\r' | sed '1,/^$/d' | tr '\n' ' ')
            printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$answer"
        "#;
        let words: Vec<String> = requests
            .iter()
            .flat_map(|r| [r.host.clone(), r.port.to_string(), r.path.clone()])
            .collect();
        let script = format!(
            "printf '%s\\n' \"$@\" | xargs -n 3 -P 8 bash -c '{}' _",
            one.replace('\'', r"'\''")
        );
        let mut arguments = vec!["exec", place, "--", "bash", "-c", &script, "_"];
        arguments.extend(words.iter().map(String::as_str));
        let printed = self.lab.run(&arguments);
        let mut answers: BTreeMap<Get, Option<String>> = requests.iter().map(|r| (r.clone(), None)).collect();
        for line in printed.lines() {
            let mut parts = line.splitn(4, '\t');
            let (Some(host), Some(port), Some(path), Some(body)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                panic!("no answer as expected: {line}");
            };
            let key = Get::new(host, port.parse().expect("a port"), path);
            let body = body.trim();
            if !body.is_empty() {
                answers.insert(key, Some(body.to_owned()));
            }
        }
        answers
    }

    /// One request, and its answer.
    #[must_use]
    pub fn fetch_one(&self, place: &str, request: &Get) -> Option<String> {
        self.fetch(place, std::slice::from_ref(request))
            .remove(request)
            .flatten()
    }

    /// Asks again until there is an answer that pleases.
    #[track_caller]
    pub fn wait_for_answer(
        &self,
        what: &str,
        place: &str,
        request: &Get,
        pleases: impl Fn(&str) -> bool,
    ) -> String {
        wait_for(
            &format!("{what}: {request:?} from {place}"),
            Duration::from_secs(60),
            || self.fetch_one(place, request).filter(|a| pleases(a)),
        )
    }

    /// Whether EC2 says that an address belongs to one of the node's interfaces.
    #[must_use]
    pub fn owns(node: &Value, address: &str) -> bool {
        let Ok(IpAddr::V4(wanted)) = address.parse::<IpAddr>() else {
            return false;
        };
        let interfaces = node["interfaces"].as_array().into_iter().flatten();
        interfaces
            .flat_map(|i| i["addresses"].as_array().into_iter().flatten())
            .any(|net| in_net(net.as_str().unwrap_or_default(), wanted))
    }
}

fn images() -> Vec<String> {
    let named = std::env::var("VPCNET_E2E_IMAGE").unwrap_or_default();
    named
        .split(':')
        .filter(|f| !f.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The single element of `responses` in what a pod was told to ask.
#[must_use]
pub fn response(answer: &str) -> Option<String> {
    let json: Value = serde_json::from_str(answer).ok()?;
    match json["responses"].as_array()?.as_slice() {
        [one] => one.as_str().map(str::to_owned),
        _ => None,
    }
}

fn in_net(net: &str, address: std::net::Ipv4Addr) -> bool {
    let (base, length) = net.split_once('/').unwrap_or((net, "32"));
    let (Ok(base), Ok(length)) = (base.parse::<std::net::Ipv4Addr>(), length.parse::<u32>()) else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    u32::from(base) & mask == u32::from(address) & mask
}

fn pods_of(list: &Value) -> Vec<KubePod> {
    let items = list["items"].as_array().into_iter().flatten();
    let pod = |item: &Value| {
        let conditions = item["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions
            .filter(|c| c["type"] == "Ready")
            .any(|c| c["status"] == "True");
        KubePod {
            name: text(&item["metadata"]["name"]),
            node: text(&item["spec"]["nodeName"]),
            address: text(&item["status"]["podIP"]),
            ready: ready && item["metadata"]["deletionTimestamp"].is_null(),
            restarts: item["status"]["containerStatuses"][0]["restartCount"]
                .as_u64()
                .unwrap_or_default(),
        }
    };
    let mut pods: Vec<KubePod> = items.map(pod).collect();
    pods.sort();
    pods
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_owned_alone_or_by_a_prefix() {
        let node = serde_json::json!({"interfaces": [{"addresses": ["10.0.0.5/32", "10.0.1.16/28"]}]});
        assert!(Cluster::owns(&node, "10.0.0.5"));
        assert!(Cluster::owns(&node, "10.0.1.31"));
        assert!(!Cluster::owns(&node, "10.0.1.32"));
        assert!(!Cluster::owns(&node, ""));
    }
}
