//! A node of a lab, seen from outside: its agent's files, socket and introspection, and the pods on it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bin::binary;
use crate::lab::{Failure, Lab};
use crate::wait::wait_for;

/// A node of a lab.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    lab: &'a Lab,
    /// Its name.
    pub name: &'a str,
}

/// A pod as the lab's runtime remembers it, once its ADD has succeeded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// `CNI_CONTAINERID` of its sandbox.
    pub container: String,
    /// Its network namespace.
    pub netns: String,
}

impl<'a> Node<'a> {
    /// The node of that name.
    #[must_use]
    pub fn new(lab: &'a Lab, name: &'a str) -> Self {
        Self { lab, name }
    }

    /// What `lab status --json` says of it.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn status(&self) -> Value {
        let status = self.lab.json(&["status", "--json"]);
        status["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|n| n["name"] == self.name))
            .unwrap_or_else(|| panic!("no {} in {status}", self.name))
            .clone()
    }

    /// A path as the node's processes see it, by way of the process that holds its mount namespace. No symbolic links on the way.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        let holder = self.status()["holder"].as_i64().unwrap_or_default();
        PathBuf::from(format!("/proc/{holder}/root/{}", path.trim_start_matches('/')))
    }

    /// The checkpoint as it lies on disk.
    #[must_use]
    pub fn checkpoint_file(&self) -> PathBuf {
        self.file("/run/aws-node/ipam.json")
    }

    /// Address and container id of everything the checkpoint says is owned.
    ///
    /// # Panics
    /// When it cannot be read or an address is in it twice: the file is replaced by rename, so it is whole at any moment.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<String, String> {
        let file = self.checkpoint_file();
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("broken checkpoint: {e}: {text}"));
        assert_eq!(json["version"], "vpc-cni-ipam/1", "{json}");
        let mut owners = BTreeMap::new();
        for allocation in json["allocations"].as_array().into_iter().flatten() {
            let family = if allocation["ipv4"].is_string() {
                "ipv4"
            } else {
                "ipv6"
            };
            let address = text_of(&allocation[family]);
            let before = owners.insert(address.clone(), text_of(&allocation["containerID"]));
            assert!(before.is_none(), "{address} twice in the checkpoint: {json}");
        }
        owners
    }

    /// Ends the agent with SIGKILL.
    pub fn kill_agent(&self) {
        self.lab.run(&["agent", "kill", self.name]);
    }

    /// Starts the agent, with `KEY=VALUE` beside what the lab gives it.
    pub fn start_agent(&self, env: &[&str]) {
        let mut arguments = vec!["agent", "start", self.name];
        for pair in env {
            arguments.extend(["--env", pair]);
        }
        self.lab.run(&arguments);
    }

    /// Kills the agent, starts it again, and returns how long it took from the start until it took connections on the
    /// plugin's socket.
    ///
    /// # Panics
    /// When that takes longer than `deadline`.
    pub fn restart_after_kill(&self, env: &[&str], deadline: Duration) -> Duration {
        let socket = self.file("/run/aws-node/ipamd.sock");
        self.kill_agent();
        let start = Instant::now();
        let mut arguments = vec!["agent", "start", self.name, "--no-wait"];
        for pair in env {
            arguments.extend(["--env", pair]);
        }
        self.lab.run(&arguments);
        wait_for("the agent serves its socket again", deadline, || {
            UnixStream::connect(&socket).ok()
        });
        start.elapsed()
    }

    /// Waits until the plugin's STATUS says that ADD would work.
    pub fn wait_until_ready(&self, deadline: Duration) {
        wait_for("the agent is ready", deadline, || self.cni_status().ok());
    }

    /// Runs the plugin's STATUS in the node.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn cni_status(&self) -> Result<String, Failure> {
        let plugin = binary("aws-cni");
        let config = r#"{"cniVersion":"1.1.0","name":"aws-cni","type":"aws-cni"}"#;
        let script = format!(
            "printf '%s' '{config}' | CNI_COMMAND=STATUS CNI_PATH=/ {}",
            plugin.display()
        );
        self.lab
            .try_run(&["exec", self.name, "--", "bash", "-c", &script])
    }

    /// A page of the agent's introspection server.
    ///
    /// # Errors
    /// When there is no answer, or it is no JSON.
    pub fn introspect(&self, path: &str) -> Result<Value, String> {
        // bash and its /dev/tcp are on every machine; an HTTP client is not.
        let script = format!(
            r#"exec 3<>/dev/tcp/127.0.0.1/61679 && printf 'GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3 && cat <&3"#
        );
        let answer = self
            .lab
            .try_run(&["exec", self.name, "--", "bash", "-c", &script])
            .map_err(|e| e.to_string())?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).map_err(|e| format!("{path}: {e}: {answer}"))
    }

    /// Addresses in the agent's pool: all of them, and those with an owner.
    ///
    /// # Errors
    /// As [`Self::introspect`].
    pub fn pool(&self) -> Result<(u64, u64), String> {
        let enis = self.introspect("/v1/enis")?;
        let number = |name: &str| {
            enis["0"][name]
                .as_u64()
                .ok_or_else(|| format!("no {name} in {enis}"))
        };
        Ok((number("TotalIPs")?, number("AssignedIPs")?))
    }

    /// Waits until the pool holds exactly `total` addresses.
    pub fn wait_for_pool(&self, total: u64, deadline: Duration) {
        wait_for(
            &format!("{} holds {total} addresses", self.name),
            deadline,
            || self.pool().is_ok_and(|(t, _)| t == total).then_some(()),
        );
    }

    /// The secondary addresses that EC2 has on the node's interfaces.
    #[must_use]
    pub fn ec2_addresses(&self) -> BTreeSet<String> {
        let status = self.status();
        let mut all = BTreeSet::new();
        for eni in status["interfaces"].as_array().into_iter().flatten() {
            let primary = text_of(&eni["primary"]);
            for address in eni["addresses"].as_array().into_iter().flatten() {
                let address = text_of(address).trim_end_matches("/32").to_owned();
                if address != primary {
                    all.insert(address);
                }
            }
        }
        all
    }

    /// Adds a pod and returns its address.
    ///
    /// # Errors
    /// What the lab said: the plugin's error is in it.
    pub fn add(&self, pod: &str) -> Result<String, Failure> {
        self.lab.try_run(&["pod", "add", self.name, pod])?;
        let pods = self.pods();
        let found = pods.iter().find(|p| p.name == pod);
        Ok(found
            .unwrap_or_else(|| panic!("{pod} is not among {pods:?}"))
            .address
            .clone())
    }

    /// Adds a pod that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn must_add(&self, pod: &str) -> String {
        self.add(pod).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// What the lab said.
    pub fn remove(&self, pod: &str) -> Result<(), Failure> {
        self.lab.try_run(&["pod", "rm", pod]).map(drop)
    }

    /// The pods whose ADD has succeeded.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        let list = self.lab.json(&["pod", "list", "--json"]);
        let pods = list.as_array().unwrap_or_else(|| panic!("no pods: {list}"));
        pods.iter()
            .filter(|p| p["node"] == self.name && p["address"].is_string())
            .map(|p| Pod {
                name: text_of(&p["name"]),
                address: text_of(&p["address"]),
                container: text_of(&p["container_id"]),
                netns: text_of(&p["netns"]),
            })
            .collect()
    }

    /// What the kernel says a pod's address is, from inside its namespace; its IPv6 address, where it has no other.
    #[must_use]
    pub fn kernel_address(&self, pod: &str) -> String {
        let printed = self.lab.run(&[
            "exec",
            &format!("pod/{pod}"),
            "--",
            "ip",
            "-json",
            "addr",
            "show",
            "dev",
            "eth0",
            "scope",
            "global",
        ]);
        let json: Value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
        let all = json[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let of_ipv4 = all.iter().find(|a| a["family"] == "inet");
        of_ipv4
            .or(all.first())
            .map(|a| text_of(&a["local"]))
            .unwrap_or_default()
    }

    /// Names of the host ends of pods' links, as the kernel lists them in the node.
    #[must_use]
    pub fn host_veths(&self) -> Vec<String> {
        let printed = self
            .lab
            .run(&["exec", self.name, "--", "ip", "-json", "link", "show"]);
        let json: Value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
        let names = json
            .as_array()
            .into_iter()
            .flatten()
            .map(|l| text_of(&l["ifname"]));
        // "eni" and 11 hex digits; the VPC's interfaces have shorter names.
        names.filter(|n| n.starts_with("eni") && n.len() == 14).collect()
    }

    /// The agent's TCP connections to IMDS: their local ports.
    #[must_use]
    pub fn imds_connections(&self) -> BTreeSet<String> {
        let holder = self.status()["holder"].as_i64().unwrap_or_default();
        let table = std::fs::read_to_string(format!("/proc/{holder}/net/tcp")).unwrap_or_default();
        // proc_pid_net(5): local, remote and state, addresses in host byte order. 01 is ESTABLISHED.
        let remote = format!("{:08X}:0050", u32::from_ne_bytes([169, 254, 169, 254]));
        table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.get(2) == Some(&remote.as_str()) && fields.get(3) == Some(&"01"))
            .filter_map(|fields| fields.get(1).map(|local| (*local).to_owned()))
            .collect()
    }

    /// The actions this node's agent has called EC2 with so far.
    #[must_use]
    pub fn ec2_calls(&self) -> Vec<String> {
        self.calls("ec2").iter().map(|c| text_of(&c["action"])).collect()
    }

    /// The calls of this node's agent to one face (`ec2`, `imds`), oldest first.
    #[must_use]
    pub fn calls(&self, face: &str) -> Vec<Value> {
        let printed = self.lab.json(&["calls", "--json"]);
        printed
            .as_array()
            .unwrap_or_else(|| panic!("no list of calls: {printed}"))
            .iter()
            .filter(|c| c["face"] == face && c["caller"] == self.name)
            .cloned()
            .collect()
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
