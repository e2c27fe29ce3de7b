//! Runs the plugin as a container runtime does: by the CNI specification (1.0, section 2 and 3), in the node's
//! network and mount namespaces, environment and standard input in, standard output back.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::LabError;
use crate::fabric::netns::{self, Place};
use crate::pods::Pod;
use crate::state::Dir;
use crate::tool::Said;

/// Where and how the plugin runs.
#[derive(Debug)]
pub struct Runtime<'a> {
    /// The lab.
    pub dir: &'a Dir,
    /// The plugin.
    pub plugin: &'a Path,
    /// The node's namespaces.
    pub node: &'a Place,
}

/// The plugin's configuration, as a runtime hands it over from the node's conflist.
#[must_use]
pub fn config(version: &str, annotations: &serde_json::Map<String, Value>) -> Value {
    let mut config = json!({
        "cniVersion": version,
        "name": "aws-cni",
        "type": "aws-cni",
        "vethPrefix": "eni",
        "mtu": "9001",
        "podSGEnforcingMode": "strict",
        "pluginLogFile": "/var/log/aws-routed-eni/plugin.log",
        "pluginLogLevel": "DEBUG",
    });
    if !annotations.is_empty()
        && let Some(map) = config.as_object_mut()
    {
        map.insert(
            "runtimeConfig".to_owned(),
            json!({ "io.kubernetes.cri.pod-annotations": annotations }),
        );
    }
    config
}

/// A plugin's failure, as it said it.
#[derive(Debug)]
pub struct Failure {
    /// Its code; `None` when it printed no error object.
    pub code: Option<u64>,
    /// Its words.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} (CNI error {code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Runtime<'_> {
    /// Makes the pod's namespace and adds it to the network. The outer error is the lab's, the inner the plugin's;
    /// after either, nothing of the pod is left.
    ///
    /// # Errors
    /// What the lab itself could not do.
    pub fn add(&self, mut pod: Pod) -> Result<Result<Pod, (Failure, Duration)>, LabError> {
        pod.record_new(self.dir)?;
        if let Err(e) = netns::create(&pod.netns) {
            // Not `forget`: a namespace that was there before is somebody else's.
            pod.unrecord(self.dir)?;
            return Err(e);
        }
        let start = Instant::now();
        let said = self.invoke("ADD", &pod, &pod.config);
        let took = start.elapsed();
        let verdict = said.map(|said| read(&said));
        match verdict {
            Ok(Ok(result)) => {
                pod.address = address(&result);
                pod.result = Some(result);
                pod.add_ms = Some(took.as_secs_f64() * 1e3);
                pod.write(self.dir)?;
                Ok(Ok(pod))
            }
            failed => {
                // As the kubelet does after a failed ADD. What DEL says does not matter then.
                let _ = self.invoke("DEL", &pod, &pod.config);
                pod.forget(self.dir)?;
                match failed {
                    Ok(Err(failure)) => Ok(Err((failure, took))),
                    Ok(Ok(_)) => Err(LabError::Usage("the plugin's answer was lost".to_owned())),
                    Err(e) => Err(e),
                }
            }
        }
    }

    /// Takes the pod off the network and removes its namespace. On a plugin's failure the pod stays, as the runtime
    /// would keep the sandbox and try again.
    ///
    /// # Errors
    /// What the lab itself could not do.
    pub fn del(&self, pod: &Pod) -> Result<Result<Duration, Failure>, LabError> {
        let mut config = pod.config.clone();
        if let (Some(map), Some(result)) = (config.as_object_mut(), &pod.result) {
            map.insert("prevResult".to_owned(), result.clone());
        }
        let start = Instant::now();
        let said = self.invoke("DEL", pod, &config)?;
        let took = start.elapsed();
        if !said.ok {
            return Ok(Err(read(&said).err().unwrap_or_else(|| unspoken(&said))));
        }
        pod.forget(self.dir)?;
        Ok(Ok(took))
    }

    fn invoke(&self, command: &str, pod: &Pod, config: &Value) -> Result<Said, LabError> {
        let input = config.to_string();
        let folder = self.plugin.parent().unwrap_or(Path::new("/"));
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace,
            pod.name,
            pod.container_id,
            uid(&pod.container_id)
        );
        self.node.run(|| {
            let mut plugin = Command::new(self.plugin);
            plugin
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", &pod.container_id)
                .env("CNI_NETNS", netns::path(&pod.netns))
                .env("CNI_IFNAME", &pod.ifname)
                .env("CNI_PATH", folder)
                .env("CNI_ARGS", &args);
            crate::tool::feed(plugin, &input)
        })
    }
}

/// A pod UID in Kubernetes' form, from the container id so that it is the same for ADD and DEL.
fn uid(container: &str) -> String {
    let part = |from: usize, to: usize| container.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

fn read(said: &Said) -> Result<Value, Failure> {
    let value: Option<Value> = serde_json::from_str(&said.out).ok();
    match value {
        Some(result) if said.ok => Ok(result),
        Some(error) => Err(Failure {
            code: error.get("code").and_then(Value::as_u64),
            message: ["msg", "details"]
                .iter()
                .filter_map(|key| error.get(*key)?.as_str())
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(": "),
        }),
        None => Err(unspoken(said)),
    }
}

fn unspoken(said: &Said) -> Failure {
    let words = if said.err.is_empty() {
        "the plugin said nothing"
    } else {
        &said.err
    };
    Failure {
        code: None,
        message: format!("the plugin gave no result: {words}"),
    }
}

fn address(result: &Value) -> Option<IpAddr> {
    addresses(result).first().copied()
}

/// The pod's addresses of the VPC in a result, in its order: of IPv4 if there are any, else of IPv6. An address by which a pod
/// reaches the other family is node-local and none of these.
#[must_use]
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array);
    let read =
        |ip: &Value| -> Option<IpAddr> { ip.get("address")?.as_str()?.split('/').next()?.parse().ok() };
    let local = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.is_link_local());
    let all = ips.into_iter().flatten().filter_map(read);
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = all.filter(|a| !local(a)).partition(IpAddr::is_ipv4);
    if v4.is_empty() { v6 } else { v4 }
}

/// A new container id: 64 hex digits, from the time, the process and a count.
#[must_use]
pub fn container_id(count: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let mut x = now.as_nanos() ^ (u128::from(std::process::id()) << 64) ^ u128::from(count);
    let mut id = String::with_capacity(64);
    for _ in 0..2 {
        // A multiplication and an xor-shift spread neighbouring inputs; uniqueness is all that is asked of it.
        x = (x ^ (x >> 59))
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(u128::from(count) + 1);
        id.push_str(&format!("{x:032x}"));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ok: bool, out: &str) -> Said {
        Said {
            ok,
            out: out.to_owned(),
            err: String::new(),
        }
    }

    #[test]
    fn the_first_ipv4_address_of_a_result_is_the_pods_and_else_its_first() {
        let result = json!({"ips": [{"address": "fd00::1/128"}, {"address": "10.0.0.7/32"}]});
        assert_eq!(address(&result), Some([10, 0, 0, 7].into()));
        let alone = json!({"ips": [{"address": "2001:db8::7/128"}]});
        assert_eq!(address(&alone), Some("2001:db8::7".parse().unwrap()));
        let with_egress = json!({"ips": [{"address": "2001:db8::7/128"}, {"address": "169.254.172.9/22"}]});
        assert_eq!(address(&with_egress), Some("2001:db8::7".parse().unwrap()));
        assert_eq!(address(&json!({})), None);
        let result = json!({"ips": [{"address": "10.0.0.7/32"}, {"address": "10.0.1.7/32"}]});
        assert_eq!(
            addresses(&result),
            [[10, 0, 0, 7], [10, 0, 1, 7]].map(IpAddr::from)
        );
    }

    #[test]
    fn an_error_object_is_told_with_its_code() {
        let failure = read(&said(
            false,
            r#"{"code": 11, "msg": "no address", "details": "try later"}"#,
        ))
        .unwrap_err();
        assert_eq!(failure.to_string(), "no address: try later (CNI error 11)");
        assert!(read(&said(false, "segfault")).unwrap_err().code.is_none());
        assert!(read(&said(true, "{}")).is_ok());
    }

    #[test]
    fn container_ids_are_64_hex_digits_and_differ() {
        let ids: std::collections::BTreeSet<String> = (0..100).map(container_id).collect();
        assert_eq!(ids.len(), 100);
        assert!(
            ids.iter()
                .all(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }
}
