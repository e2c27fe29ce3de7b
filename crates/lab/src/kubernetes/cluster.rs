//! The running cluster, as the daemon holds it: machines, the programs on them, and the little that AWS's own control plane does
//! beside Kubernetes (DNS as an add-on, and the end of the node object when its instance has gone).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::machine::{Machine, Spec};
use super::plan::{self, machine_disk};
use super::programs::{PATH, Programs};
use super::{CONTROL_PLANE, KubernetesStatus, MachineStatus, ProxyMode, cgroups};
use crate::control::AgentAction;
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::state::{Dir, Made};
use crate::tool::{self, Said};

/// How long the API server may take to serve, and a node to be known to it; on a machine with nothing else to do it is seconds.
const API_LIMIT: Duration = Duration::from_secs(180);
/// How long containerd may take to serve.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);
/// How long a program may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The DNS server's pods, Service and rights.
const DNS: &str = include_str!("../../kubernetes/kube-dns/manifest.yaml");

/// Writes down what is about to be made.
pub(crate) type Record = dyn Fn(&mut dyn FnMut(&mut Made)) -> Result<(), LabError> + Send + Sync;

/// Where a machine of the cluster is in the lab.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its name in the lab.
    pub(crate) name: String,
    /// Its network namespace.
    pub(crate) namespace: String,
    /// The process with its mounts.
    pub(crate) holder: i32,
    /// Its instance id.
    pub(crate) instance: String,
    /// Its instance type.
    pub(crate) instance_type: String,
    /// Its zone.
    pub(crate) zone: String,
    /// Its primary address.
    pub(crate) address: Ipv4Addr,
}

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) programs: Programs,
    pub(crate) dir: Dir,
    pub(crate) proxy: ProxyMode,
    pub(crate) region: String,
    pub(crate) control_plane: Host,
    /// The port on this machine that leads to the API server.
    pub(crate) port: u16,
}

/// The cluster.
pub(crate) struct Cluster {
    settings: Settings,
    plan: plan::Cluster,
    version: String,
    record: Box<Record>,
    machines: Mutex<BTreeMap<String, Arc<Machine>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Where the cluster of a lab keeps what is too large for `/run`, or must lie on a file system that takes overlays.
#[must_use]
fn disk_of(dir: &Dir) -> PathBuf {
    Path::new("/var/lib/vpcnet-lab").join(dir.base())
}

impl Cluster {
    /// Plans the cluster; nothing runs yet.
    pub(crate) fn new(settings: Settings, record: Box<Record>) -> Result<Self, LabError> {
        let version = settings.programs.version()?;
        let disk = disk_of(&settings.dir);
        let plan = plan::Cluster {
            kubernetes: settings.programs.kubernetes.clone(),
            credentials: disk.join("credentials"),
            logs: settings.dir.log(),
            disk: machine_disk(&disk, CONTROL_PLANE),
            api: settings.control_plane.address,
            proxy: settings.proxy,
            region: settings.region.clone(),
        };
        Ok(Self {
            settings,
            plan,
            version,
            record,
            machines: Mutex::default(),
        })
    }

    fn disk(&self) -> PathBuf {
        disk_of(&self.settings.dir)
    }

    /// Brings everything up: the control plane, and beside it the nodes.
    pub(crate) fn start(&self, hosts: &[Host]) -> Result<(), LabError> {
        let disk = self.disk();
        (self.record)(&mut |made| made.disks.push(disk.clone()))?;
        if disk.exists() {
            // Of a lab of this name that was not taken down on this boot, or before it.
            fs::remove_dir_all(&disk).map_err(LabError::file("remove", &disk))?;
        }
        let nodes: Vec<plan::Node> = hosts.iter().map(|h| self.node(h)).collect();
        self.credentials(&nodes)?;
        self.boot(&self.settings.control_plane, false)?;
        let control_plane = self.machine(CONTROL_PLANE)?;
        for program in self.plan.control_plane() {
            control_plane.start_program(program)?;
        }
        std::thread::scope(|scope| {
            let booting: Vec<_> = hosts
                .iter()
                .zip(&nodes)
                .map(|(host, node)| scope.spawn(move || self.boot_node(host, node)))
                .collect();
            let serving = self
                .wait_for_api()
                .and_then(|()| self.kubectl(&["apply", "-f", "-"], DNS).map(drop));
            let panicked = || {
                Err(LabError::Refused(
                    "a thread that starts a node panicked".to_owned(),
                ))
            };
            let booted = booting
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| panicked()));
            booted.chain([serving]).collect::<Result<(), LabError>>()
        })?;
        for node in &nodes {
            self.join(node)?;
        }
        nodes.iter().try_for_each(|node| self.wait_for_node(node))
    }

    /// A node that was started later.
    pub(crate) fn add(&self, host: &Host) -> Result<(), LabError> {
        let node = self.node(host);
        self.credentials(std::slice::from_ref(&node))?;
        self.boot_node(host, &node)?;
        self.join(&node)?;
        self.wait_for_node(&node)
    }

    /// A node whose instance has gone: what the cloud's controller does, and what is left on this computer.
    pub(crate) fn remove(&self, name: &str) -> Result<(), LabError> {
        let machine = self
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        let Some(machine) = machine else { return Ok(()) };
        machine.stop();
        cgroups::remove(&machine.spec.groups)?;
        let disk = machine.spec.disk.clone();
        fs::remove_dir_all(&disk).map_err(LabError::file("remove", &disk))?;
        let kubeconfig = self
            .plan
            .credentials
            .join(format!("kubelet-{}.kubeconfig", machine.spec.hostname));
        match fs::remove_file(&kubeconfig) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(LabError::file("remove", kubeconfig)(e));
            }
            _ => {}
        }
        (self.record)(&mut |made| {
            made.groups.retain(|g| !machine.spec.groups.contains(g));
            made.processes.retain(|(_, p)| *p != machine.process);
        })?;
        let node = machine.spec.hostname.as_str();
        self.kubectl(&["delete", "node", node, "--ignore-not-found"], "")
            .map(drop)
    }

    fn node(&self, host: &Host) -> plan::Node {
        plan::Node {
            lab_name: host.name.clone(),
            name: self.node_name(host.address),
            instance: host.instance.clone(),
            instance_type: host.instance_type.clone(),
            zone: host.zone.clone(),
            address: host.address,
            max_pods: vpcnet_limits::lookup(&host.instance_type).map_or(110, vpcnet_limits::max_pods),
            disk: machine_disk(&self.disk(), &host.name),
        }
    }

    /// What Kubernetes calls the node with that primary address.
    pub(crate) fn node_name(&self, address: Ipv4Addr) -> String {
        plan::node_name(address, &self.settings.region)
    }

    fn credentials(&self, nodes: &[plan::Node]) -> Result<(), LabError> {
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        let mut command = Command::new(&self.plan.kubernetes);
        command.args(self.plan.credentials(Some(&self.server()), &names));
        let said = tool::feed(command, "")?;
        if said.ok {
            return Ok(());
        }
        Err(LabError::Tool {
            program: "the cluster's credentials".to_owned(),
            namespace: self.plan.credentials.display().to_string(),
            message: said.err,
        })
    }

    /// Starts a machine, without programs.
    fn boot(&self, host: &Host, runs_containers: bool) -> Result<(), LabError> {
        let hostname = if runs_containers {
            self.node_name(host.address)
        } else {
            host.name.clone()
        };
        let groups = if runs_containers {
            cgroups::of_node(&host.namespace)?
        } else {
            Vec::new()
        };
        let spec = Spec {
            namespace: host.namespace.clone(),
            holder: host.holder,
            hostname,
            groups,
            logs: self.settings.dir.log(),
            disk: machine_disk(&self.disk(), &host.name),
            plugins: self.settings.programs.plugins.clone(),
        };
        fs::create_dir_all(&spec.disk).map_err(LabError::file("create", &spec.disk))?;
        let groups = spec.groups.clone();
        (self.record)(&mut |made| made.groups.extend(groups.iter().cloned()))?;
        let machine = Machine::start(spec, |process| {
            (self.record)(&mut |made| {
                made.processes
                    .push((format!("machine of {}", host.name), process.clone()));
            })
        })?;
        self.machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host.name.clone(), Arc::new(machine));
        Ok(())
    }

    /// A node up to the point where its kubelet could start: containerd serves and has the images.
    fn boot_node(&self, host: &Host, node: &plan::Node) -> Result<(), LabError> {
        self.boot(host, true)?;
        for (file, text) in self.plan.files(node) {
            if let Some(above) = file.parent() {
                fs::create_dir_all(above).map_err(LabError::file("create", above))?;
            }
            fs::write(&file, text).map_err(LabError::file("write", file))?;
        }
        let machine = self.machine(&host.name)?;
        machine.start_program(self.plan.containerd(node))?;
        self.wait_for_containerd(&machine, &host.name)?;
        let socket = containerd_socket(machine.init);
        self.settings
            .programs
            .images
            .iter()
            .try_for_each(|image| load_image(&socket, image))
    }

    fn join(&self, node: &plan::Node) -> Result<(), LabError> {
        let machine = self.machine(&node.lab_name)?;
        self.plan
            .node(node)
            .into_iter()
            .try_for_each(|program| machine.start_program(program))
    }

    fn machine(&self, name: &str) -> Result<Arc<Machine>, LabError> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.get(name).cloned().ok_or_else(|| LabError::Unknown {
            kind: "machine",
            name: name.to_owned(),
            known: machines.keys().cloned().collect(),
        })
    }

    /// Starts again, stops or kills a program of a machine.
    pub(crate) fn component(&self, machine: &str, name: &str, action: AgentAction) -> Result<(), LabError> {
        let of = self.machine(machine)?;
        match action {
            AgentAction::Stop => of.end_program(name, libc::SIGTERM, END_LIMIT),
            AgentAction::Kill => of.end_program(name, libc::SIGKILL, END_LIMIT),
            AgentAction::Start => {
                of.start_again(name)?;
                match name {
                    "containerd" => self.wait_for_containerd(&of, machine),
                    "kube-apiserver" => self.wait_for_api(),
                    _ => Ok(()),
                }
            }
        }
    }

    fn wait_for_containerd(&self, machine: &Machine, name: &str) -> Result<(), LabError> {
        let socket = containerd_socket(machine.init);
        let log = self.settings.dir.log().join(format!("containerd-{name}.log"));
        wait(
            || UnixStream::connect(&socket).is_ok(),
            CONTAINERD_LIMIT,
            || format!("containerd of {name} serving"),
            &log,
        )
    }

    fn wait_for_api(&self) -> Result<(), LabError> {
        let log = self
            .settings
            .dir
            .log()
            .join(format!("kube-apiserver-{CONTROL_PLANE}.log"));
        // Ready to answer is not ready to take pods: those need the default service account, which a controller makes.
        wait(
            || {
                self.kubectl(&["get", "--raw=/readyz"], "").is_ok()
                    && self
                        .kubectl(&["get", "serviceaccount", "default", "--namespace=default"], "")
                        .is_ok()
            },
            API_LIMIT,
            || "the API server being ready".to_owned(),
            &log,
        )
    }

    fn wait_for_node(&self, node: &plan::Node) -> Result<(), LabError> {
        let log = self
            .settings
            .dir
            .log()
            .join(format!("kubelet-{}.log", node.lab_name));
        wait(
            || self.kubectl(&["get", "node", &node.name], "").is_ok(),
            API_LIMIT,
            || format!("the registration of {}", node.lab_name),
            &log,
        )
    }

    /// Runs kubectl with all rights, beside the API server.
    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Said, LabError> {
        let host = &self.settings.control_plane;
        let kubeconfig = self.plan.credentials.join("admin.kubeconfig");
        let said = Place::of_node(&host.namespace, host.holder)?.run(|| {
            let mut command = Command::new(&self.plan.kubernetes);
            command
                .arg("kubectl")
                .arg("--kubeconfig")
                .arg(&kubeconfig)
                .arg("--request-timeout=10s")
                .args(arguments);
            tool::feed(command, input)
        })?;
        if said.ok {
            return Ok(said);
        }
        Err(LabError::Tool {
            program: format!("kubectl {}", arguments.join(" ")),
            namespace: host.namespace.clone(),
            message: said.err,
        })
    }

    fn server(&self) -> String {
        format!("https://{}:{}", Ipv4Addr::LOCALHOST, self.settings.port)
    }

    pub(crate) fn status(&self) -> KubernetesStatus {
        KubernetesStatus {
            version: self.version.clone(),
            address: self.plan.api,
            kubeconfig: self.plan.credentials.join("kubeconfig").display().to_string(),
            server: self.server(),
            proxy: self.settings.proxy,
        }
    }

    /// What is known of a machine; `None` where there is none of that name, or it is gone.
    pub(crate) fn machine_status(&self, name: &str) -> Option<MachineStatus> {
        let machine = self.machine(name).ok()?;
        Some(MachineStatus {
            node: machine
                .spec
                .runs_containers()
                .then(|| machine.spec.hostname.clone()),
            init: machine.init,
            components: machine.components().ok()?,
        })
    }
}

/// A machine's containerd, reached from outside the machine.
#[must_use]
pub(crate) fn containerd_socket(init: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{init}/root/run/containerd/containerd.sock"))
}

/// Loads an archive of images into a containerd, for the kubelet's pods.
pub(crate) fn load_image(socket: &Path, archive: &Path) -> Result<(), LabError> {
    let mut command = Command::new("ctr");
    command
        .env("PATH", PATH)
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive);
    let said = tool::feed(command, "")?;
    if said.ok {
        return Ok(());
    }
    Err(LabError::Tool {
        program: "ctr images import".to_owned(),
        namespace: archive.display().to_string(),
        message: said.err,
    })
}

/// Looks again and again until `done`, for `limit`.
fn wait(
    done: impl Fn() -> bool,
    limit: Duration,
    what: impl FnOnce() -> String,
    log: &Path,
) -> Result<(), LabError> {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() > end {
            return Err(LabError::TooLate {
                what: what(),
                seconds: limit.as_secs(),
                log: log.to_owned(),
            });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
