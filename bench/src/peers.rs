//! The three that are compared, behind one face.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::host;
use crate::pods::Pod;
use crate::run::{Cost, Finished, measure, peak, weighed};

/// A way to give a pod its network.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    host: File,
    kind: Kind,
}

enum Kind {
    Plugin {
        executable: PathBuf,
        path: PathBuf,
        config: Value,
    },
    Floor {
        executable: PathBuf,
        primary_slots: usize,
    },
}

/// A pod with its network, and what DEL needs to know of it.
pub(crate) struct Wired {
    pub(crate) pod: Pod,
    result: Value,
}

impl Wired {
    /// The IPv6 address of the result.
    pub(crate) fn address(&self) -> io::Result<std::net::Ipv6Addr> {
        let text = self.result.pointer("/ips/0/address").and_then(Value::as_str);
        let net = text.unwrap_or_default().trim_end_matches("/128");
        net.parse()
            .map_err(|e| io::Error::other(format!("{net:?} in {}: {e}", self.result)))
    }
}

impl Peer {
    /// `aws-cni`, in the namespace we are in: the lab node's, with its agent.
    pub(crate) fn ours(bin: &std::path::Path) -> io::Result<Self> {
        let config = json!({
            "cniVersion": "1.0.0", "name": "aws-cni", "type": "aws-cni",
            "vethPrefix": "eni", "mtu": "9001", "pluginLogLevel": "error",
        });
        let kind = Kind::Plugin {
            executable: bin.join("aws-cni"),
            path: bin.to_owned(),
            config,
        };
        Ok(Self {
            name: "ours",
            host: host::current()?,
            kind,
        })
    }

    /// `ptp` with `host-local`, in a host namespace of its own.
    pub(crate) fn ptp(cni: &std::path::Path, state: &std::path::Path) -> io::Result<Self> {
        let config = json!({
            "cniVersion": "1.0.0", "name": "ptp", "type": "ptp", "mtu": 9001,
            "ipam": {
                "type": "host-local", "dataDir": state, "subnet": "10.99.0.0/16",
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        });
        let kind = Kind::Plugin {
            executable: cni.join("ptp"),
            path: cni.to_owned(),
            config,
        };
        Ok(Self {
            name: "ptp",
            host: host::new_namespace()?,
            kind,
        })
    }

    /// The floor, in a host namespace of its own. Pods beyond `primary_slots` get the second rule that a pod on a
    /// secondary interface gets.
    pub(crate) fn floor(bin: &std::path::Path, primary_slots: usize) -> io::Result<Self> {
        let kind = Kind::Floor {
            executable: bin.join("vpcnet-floor"),
            primary_slots,
        };
        Ok(Self {
            name: "floor",
            host: host::new_namespace()?,
            kind,
        })
    }

    /// Wires the pod up.
    pub(crate) fn add(&self, pod: Pod) -> io::Result<(Wired, Cost)> {
        let (mut command, stdin) = self.command("ADD", &pod, None)?;
        let Finished { cost, stdout } = host::within(&self.host, || measure(&mut command, &stdin))?;
        let result = match self.kind {
            Kind::Plugin { .. } => serde_json::from_slice(&stdout)?,
            Kind::Floor { .. } => Value::Null,
        };
        Ok((Wired { pod, result }, cost))
    }

    /// Takes its network away again; the namespace goes when the returned pod does.
    pub(crate) fn del(&self, wired: Wired) -> io::Result<(Pod, Cost)> {
        let (mut command, stdin) = self.command("DEL", &wired.pod, Some(&wired.result))?;
        let Finished { cost, .. } = host::within(&self.host, || measure(&mut command, &stdin))?;
        Ok((wired.pod, cost))
    }

    /// Wires a pod up and takes it away again, and returns the largest resident set of either, KiB.
    pub(crate) fn weigh(&self, pod: Pod) -> io::Result<(u64, u64)> {
        let (command, stdin) = self.command("ADD", &pod, None)?;
        let Finished { stdout, .. } = host::within(&self.host, || measure(&mut weighed(&command)?, &stdin))?;
        let (output, add) = peak(&stdout)?;
        let result = match self.kind {
            Kind::Plugin { .. } => serde_json::from_slice(&output)?,
            Kind::Floor { .. } => Value::Null,
        };
        let (command, stdin) = self.command("DEL", &pod, Some(&result))?;
        let Finished { stdout, .. } = host::within(&self.host, || measure(&mut weighed(&command)?, &stdin))?;
        let (_, del) = peak(&stdout)?;
        Ok((add, del))
    }

    fn command(&self, verb: &str, pod: &Pod, previous: Option<&Value>) -> io::Result<(Command, Vec<u8>)> {
        match &self.kind {
            Kind::Plugin {
                executable,
                path,
                config,
            } => {
                let mut command = Command::new(executable);
                command.env_clear();
                command
                    .env("CNI_COMMAND", verb)
                    .env("CNI_CONTAINERID", &pod.id)
                    .env("CNI_NETNS", pod.path());
                command.env("CNI_IFNAME", "eth0").env("CNI_PATH", path);
                let (name, id) = (&pod.name, &pod.id);
                command.env(
                    "CNI_ARGS",
                    format!(
                        "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={name};\
                         K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={id}"
                    ),
                );
                let mut config = config.clone();
                if let (Some(previous), Value::Object(map)) = (previous, &mut config) {
                    map.insert("prevResult".to_owned(), previous.clone());
                }
                Ok((command, serde_json::to_vec(&config)?))
            }
            Kind::Floor {
                executable,
                primary_slots,
            } => {
                let [high, low] = u16::try_from(pod.number + 1)
                    .map_err(io::Error::other)?
                    .to_be_bytes();
                let mut command = Command::new(executable);
                command.env_clear();
                command.arg(verb.to_lowercase()).arg(pod.path());
                command
                    .arg(format!("eni{:08x}", pod.number))
                    .arg(format!("10.98.{high}.{low}"));
                if pod.number >= *primary_slots {
                    command.args(["--table", "2"]);
                }
                Ok((command, Vec::new()))
            }
        }
    }
}
