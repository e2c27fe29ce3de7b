//! A lab of the test's own, gone when the test ends however it ends, and packets to try it with.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vpcnet_lab::fabric::netns::Place;

/// How long anything may take to show: far beyond what it takes, so a busy machine fails no test.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running lab.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    _temp: tempfile::TempDir,
}

impl Lab {
    /// Two nodes without agents, where EC2 answers at once, and `more` arguments.
    pub(crate) fn up(more: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let temp = tempfile::tempdir().unwrap();
        let name = format!(
            "lf{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            dir: temp.path().join(name),
            _temp: temp,
        };
        let quick = [
            "up",
            "--no-agent",
            "--ec2-latency",
            "0",
            "--imds-lag",
            "0",
            "--attach-delay",
            "0",
        ];
        let args: Vec<&str> = quick.iter().chain(more).copied().collect();
        lab.ok(&args);
        lab
    }

    pub(crate) fn base(&self) -> String {
        self.dir.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vpcnet-lab"))
            .arg("--dir")
            .arg(&self.dir)
            .args(args)
            .output()
            .unwrap()
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    pub(crate) fn exec(&self, place: &str, command: &[&str]) -> String {
        let args: Vec<&str> = ["exec", place, "--"].iter().chain(command).copied().collect();
        self.ok(&args)
    }

    /// A shell script in a place of the lab.
    pub(crate) fn sh(&self, place: &str, script: &str) -> String {
        self.exec(place, &["sh", "-ec", script])
    }

    /// An EC2 call; its XML.
    pub(crate) fn ec2(&self, action: &str, parameters: &[&str]) -> String {
        let args: Vec<&str> = ["ec2", action].iter().chain(parameters).copied().collect();
        self.ok(&args)
    }

    pub(crate) fn node(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["name"] == name)
            .cloned();
        found.unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    pub(crate) fn primary(&self, node: &str) -> Ipv4Addr {
        self.node(node)["primary"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        Place::named(&format!("{}-{name}", self.base())).unwrap()
    }

    /// Creates an interface in the node's subnet, attaches it as device 1, and waits until its link is there.
    pub(crate) fn attach(&self, node: &str) -> Eni {
        let facts = self.node(node);
        let subnet = format!("SubnetId={}", facts["subnet"].as_str().unwrap());
        // The group of the node's primary interface.
        let groups = self.ec2(
            "DescribeSecurityGroups",
            &["Filter.1.Name=group-name", "Filter.1.Value.1=node"],
        );
        let group = format!("SecurityGroupId.1={}", element(&groups, "groupId"));
        let made = self.ec2("CreateNetworkInterface", &[&subnet, &group]);
        let id = element(&made, "networkInterfaceId");
        let instance = facts["instance"].as_str().unwrap().to_owned();
        self.ec2(
            "AttachNetworkInterface",
            &[
                &format!("NetworkInterfaceId={id}"),
                &format!("InstanceId={instance}"),
                "DeviceIndex=1",
            ],
        );
        eventually("the link appears", || {
            self.exec(node, &["ip", "-o", "link"]).contains(" eth1@")
        });
        Eni {
            id,
            mac: element(&made, "macAddress"),
            primary: element(&made, "privateIpAddress").parse().unwrap(),
        }
    }

    /// Gives the interface `count` more addresses and returns them.
    pub(crate) fn assign(&self, eni: &str, count: u32) -> Vec<Ipv4Addr> {
        let answer = self.ec2(
            "AssignPrivateIpAddresses",
            &[
                &format!("NetworkInterfaceId={eni}"),
                &format!("SecondaryPrivateIpAddressCount={count}"),
            ],
        );
        elements(&answer, "privateIpAddress")
            .iter()
            .map(|a| a.parse().unwrap())
            .collect()
    }

    /// Waits until a drop with that reason, source and destination is logged.
    pub(crate) fn dropped(&self, reason: &str, source: Ipv4Addr, destination: Ipv4Addr) {
        let (source, destination) = (source.to_string(), destination.to_string());
        eventually(
            &format!("a drop for {reason} of {source} -> {destination}"),
            || {
                self.json(&["drops", "--json"])
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|d| {
                        d["reason"] == reason
                            && d["source"] == source.as_str()
                            && d["destination"] == destination.as_str()
                    })
            },
        );
        let counted = self.status()["drops"][reason].as_u64().unwrap();
        assert!(counted >= 1, "the counter of {reason} stands at {counted}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.run(&["down"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("down failed: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// An attached interface.
pub(crate) struct Eni {
    pub(crate) id: String,
    pub(crate) mac: String,
    pub(crate) primary: Ipv4Addr,
}

/// The text of the first element of that name.
pub(crate) fn element(xml: &str, name: &str) -> String {
    elements(xml, name)
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("no <{name}> in {xml}"))
}

/// The texts of all elements of that name.
pub(crate) fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open)
        .skip(1)
        .map(|rest| rest.split(&close).next().unwrap().to_owned())
        .collect()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A UDP socket in a namespace.
pub(crate) fn udp(place: &Place, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = place
        .run(|| Ok(UdpSocket::bind((address, port)).unwrap()))
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Sends from `client` to `server` at `to` until it arrives, then back; the source the server saw.
pub(crate) fn exchange(client: &UdpSocket, server: &UdpSocket, to: SocketAddrV4) -> SocketAddr {
    let start = Instant::now();
    let mut buffer = [0; 64];
    loop {
        assert!(start.elapsed() < DEADLINE, "{to} does not answer");
        client.send_to(b"there", to).unwrap();
        let Ok((_, seen)) = server.recv_from(&mut buffer) else {
            continue;
        };
        server.send_to(b"back", seen).unwrap();
        if let Ok((_, from)) = client.recv_from(&mut buffer) {
            assert_eq!(from, SocketAddr::V4(to), "the answer came from somewhere else");
            return seen;
        }
    }
}

/// True when a process of that number exists.
pub(crate) fn exists(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
