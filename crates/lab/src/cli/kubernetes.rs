//! `lab kubectl`, `lab image` and `lab component`: what there is with `lab up --kubernetes` alone.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::Value;

use super::need_root;
use crate::control::{self, AgentAction, Ask, NodeStatus, Status};
use crate::daemon::options::program_path;
use crate::error::LabError;
use crate::kubernetes::cluster::{containerd_socket, load_image};
use crate::kubernetes::programs::Programs;
use crate::kubernetes::{CONTROL_PLANE, KubernetesStatus, MachineStatus, cni};
use crate::state::Dir;

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Load archives of images (as `docker save` writes them, or OCI's) into the nodes' containerd
    Load {
        /// The archives
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Into this node's alone; may be repeated [default: all nodes]
        #[arg(long)]
        node: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Component {
    /// Start it again, and wait until it serves
    Start(Which),
    /// Send SIGTERM and wait until it has ended
    Stop(Which),
    /// Send SIGKILL
    Kill(Which),
    /// List all, with their state and logs
    List,
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// A node, or control-plane
    machine: String,
    /// kubelet, containerd, kube-proxy; or kube-apiserver, etcd, kube-controller-manager, kube-scheduler
    name: String,
}

/// The cluster of this lab.
fn cluster(status: &Status) -> Result<&KubernetesStatus, LabError> {
    let none = "this lab has no Kubernetes: 'vpcnet lab up --kubernetes' starts one that has";
    status
        .kubernetes
        .as_ref()
        .ok_or_else(|| LabError::Usage(none.to_owned()))
}

/// Becomes kubectl, with all rights in the lab's cluster.
pub(super) fn kubectl(dir: &Dir, arguments: &[String]) -> Result<(), LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    let kubeconfig = &cluster(&status)?.kubeconfig;
    let program = Programs::find()?.kubernetes;
    let source = Command::new(&program)
        .arg("kubectl")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .exec();
    Err(LabError::Spawn {
        program: program.display().to_string(),
        source,
    })
}

/// The nodes of Kubernetes among the lab's.
fn nodes(status: &Status) -> impl Iterator<Item = (&NodeStatus, &MachineStatus)> {
    let all = status.nodes.iter();
    all.filter_map(|n| Some((n, n.kubernetes.as_ref().filter(|m| m.node.is_some())?)))
}

pub(super) fn image(dir: &Dir, action: Image) -> Result<(), LabError> {
    need_root()?;
    let Image::Load { files, node: wanted } = action;
    let status: Status = control::ask(dir, &Ask::Status)?;
    cluster(&status)?;
    for name in &wanted {
        status.node(name)?;
    }
    for (node, machine) in nodes(&status) {
        if !wanted.is_empty() && !wanted.contains(&node.name) {
            continue;
        }
        let socket = containerd_socket(machine.init);
        let start = Instant::now();
        files.iter().try_for_each(|file| load_image(&socket, file))?;
        println!(
            "{}: {} loaded ({} ms)",
            node.name,
            files.len(),
            start.elapsed().as_millis()
        );
    }
    Ok(())
}

pub(super) fn component(dir: &Dir, action: Component) -> Result<(), LabError> {
    need_root()?;
    let (which, action) = match action {
        Component::Start(which) => (which, AgentAction::Start),
        Component::Stop(which) => (which, AgentAction::Stop),
        Component::Kill(which) => (which, AgentAction::Kill),
        Component::List => return list(dir),
    };
    let Which { machine, name } = which;
    let ask = Ask::Component {
        machine: machine.clone(),
        name: name.clone(),
        action,
    };
    let _: Value = control::ask(dir, &ask)?;
    let what = match action {
        AgentAction::Start => "runs",
        AgentAction::Stop | AgentAction::Kill => "has ended",
    };
    println!("{name} on {machine} {what}.");
    Ok(())
}

fn list(dir: &Dir) -> Result<(), LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    cluster(&status)?;
    for node in &status.nodes {
        for component in node.kubernetes.iter().flat_map(|m| &m.components) {
            let state = match (&component.pid, &component.ended) {
                (Some(_), _) => "running".to_owned(),
                (None, Some(how)) => format!("ended ({how})"),
                (None, None) => "ended".to_owned(),
            };
            println!(
                "{:<14} {:<24} {state:<24} {}",
                node.name,
                component.name,
                component.log.display()
            );
        }
    }
    Ok(())
}

/// Puts vpcnet's plugin on the node, if it is one of Kubernetes, after the lab has started its agent there.
pub(super) fn install_plugin(dir: &Dir, node: &str) -> Result<(), LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    let Some(machine) = status.node(node)?.kubernetes.as_ref() else {
        return Ok(());
    };
    let plugin = program_path("aws-cni", "AWS_CNI")?;
    cni::install(machine.init, &plugin)
}

/// Enters all namespaces of the node as its kubelet has them, and becomes the command.
pub(super) fn enter(dir: &Dir, name: &str, command: &[String]) -> Result<(), LabError> {
    let status: Status = control::ask(dir, &Ask::Status)?;
    cluster(&status)?;
    let machine = status
        .node(name)?
        .kubernetes
        .as_ref()
        .ok_or_else(|| LabError::Unknown {
            kind: "machine of Kubernetes",
            name: name.to_owned(),
            known: nodes(&status).map(|(n, _)| n.name.clone()).collect(),
        })?;
    let source = Command::new("nsenter")
        .args(["--target", &machine.init.to_string(), "--all", "--"])
        .args(command)
        .exec();
    Err(LabError::Spawn {
        program: "nsenter".to_owned(),
        source,
    })
}

/// What to do next, after `up --kubernetes`.
pub(super) fn tell(lab: &str, status: &Status, took: Duration) {
    let Some(cluster) = &status.kubernetes else { return };
    println!(
        "Kubernetes {} is up after {:.1} s, its API server at {} in the VPC ({CONTROL_PLANE}) and at {} here:",
        cluster.version,
        took.as_secs_f64(),
        cluster.address,
        cluster.server
    );
    println!("  export KUBECONFIG={}", cluster.kubeconfig);
    println!("The nodes have no CNI, and are not Ready, until one is installed.");
    let names: Vec<&str> = nodes(status).map(|(n, _)| n.name.as_str()).collect();
    println!("\nNext:");
    println!("  {lab} kubectl get nodes -o wide");
    println!(
        "  for node in {}; do {lab} agent start $node; done   # vpcnet, started by the lab: the nodes become Ready",
        names.join(" ")
    );
    println!(
        "  {lab} kubectl create deployment web --replicas 4 --image {} -- /agnhost netexec",
        AGNHOST
    );
    println!("  {lab} down");
}

/// Kubernetes' image of its own tests, which every node has: a web server, and much more.
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.56";

/// Fails early, and in full, when something is missing.
pub(super) fn check_present() -> Result<(), LabError> {
    Programs::find().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_in_the_example_is_one_that_is_built() {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kubernetes");
        let script = std::fs::read_to_string(script).unwrap();
        assert!(script.contains(AGNHOST));
    }
}
