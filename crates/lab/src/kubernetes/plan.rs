//! What every program of a cluster is told: arguments and configuration files, as values. Pure.
//!
//! Where EKS's choices are known they are taken: the API server in the VPC on port 443, Services in 172.20.0.0/16 beside a VPC in
//! 10.0.0.0/8, nodes named by their private DNS name, kubelets that the API server asks by certificate.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::init::Program;
use super::{API_PORT, ProxyMode};

/// Addresses of Services; EKS takes it where the VPC is in 10.0.0.0/8.
pub const SERVICES: &str = "172.20.0.0/16";
/// Of these the API server's, by convention the first.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
/// And that of DNS, by convention the tenth.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 10);
/// The cluster's domain.
pub const DOMAIN: &str = "cluster.local";
/// The image of pods' sandboxes, as `scripts/kubernetes` names it.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.1";

/// Files and addresses that all programs of a cluster share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// The program with all programs in it.
    pub kubernetes: PathBuf,
    /// Where its credentials lie.
    pub credentials: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
    /// The control plane's own files.
    pub disk: PathBuf,
    /// The API server's address in the VPC.
    pub api: Ipv4Addr,
    /// kube-proxy's backend.
    pub proxy: ProxyMode,
    /// The region.
    pub region: String,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name in the lab.
    pub lab_name: String,
    /// Its name in Kubernetes.
    pub name: String,
    /// Its instance id.
    pub instance: String,
    /// Its instance type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Its primary address.
    pub address: Ipv4Addr,
    /// Most pods on it.
    pub max_pods: u32,
    /// Where its files lie.
    pub disk: PathBuf,
}

impl Cluster {
    fn program(&self, machine: &str, name: &str, arguments: Vec<String>) -> Program {
        let mut all = vec![name.to_owned()];
        all.extend(arguments);
        Program {
            name: name.to_owned(),
            file: self.kubernetes.clone(),
            arguments: all,
            log: self.logs.join(format!("{name}-{machine}.log")),
        }
    }

    fn secret(&self, name: &str) -> String {
        self.credentials.join(name).display().to_string()
    }

    /// The API server for all in the VPC.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}:{API_PORT}", self.api)
    }

    /// Arguments of `credentials`. `local` is the server's address for people on this machine, `nodes` who is to have a kubeconfig.
    #[must_use]
    pub fn credentials(&self, local: Option<&str>, nodes: &[&str]) -> Vec<String> {
        let names = [
            self.api.to_string(),
            API_SERVICE.to_string(),
            Ipv4Addr::LOCALHOST.to_string(),
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{DOMAIN}"),
        ];
        let mut arguments = vec![
            "credentials".to_owned(),
            format!("-dir={}", self.credentials.display()),
            format!("-server={}", self.server()),
            format!("-names={}", names.join(",")),
            format!("-nodes={}", nodes.join(",")),
        ];
        arguments.extend(local.map(|server| format!("-local={server}")));
        arguments
    }

    /// The control plane's programs, in the order to start them; all but the first two wait for the API server by themselves.
    #[must_use]
    pub fn control_plane(&self) -> Vec<Program> {
        let run =
            |name: &str, arguments: &[String]| self.program(super::CONTROL_PLANE, name, arguments.to_vec());
        let client = |name: &str| format!("--kubeconfig={}", self.secret(&format!("{name}.kubeconfig")));
        vec![
            run(
                "etcd",
                &[
                    format!("--data-dir={}", self.disk.join("etcd").display()),
                    "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
                    "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
                    "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
                    // A lab does not outlive its machine.
                    "--unsafe-no-fsync".to_owned(),
                    "--log-level=warn".to_owned(),
                ],
            ),
            run("kube-apiserver", &self.api_server()),
            run(
                "kube-controller-manager",
                &[
                    client("kube-controller-manager"),
                    "--leader-elect=false".to_owned(),
                    "--use-service-account-credentials".to_owned(),
                    format!(
                        "--service-account-private-key-file={}",
                        self.secret("service-account.key")
                    ),
                    format!("--root-ca-file={}", self.secret("ca.crt")),
                    format!("--cluster-signing-cert-file={}", self.secret("ca.crt")),
                    format!("--cluster-signing-key-file={}", self.secret("ca.key")),
                ],
            ),
            run(
                "kube-scheduler",
                &[client("kube-scheduler"), "--leader-elect=false".to_owned()],
            ),
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let file = |option: &str, name: &str| format!("--{option}={}", self.secret(name));
        vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--secure-port={API_PORT}"),
            format!("--advertise-address={}", self.api),
            file("tls-cert-file", "kube-apiserver.crt"),
            file("tls-private-key-file", "kube-apiserver.key"),
            file("client-ca-file", "ca.crt"),
            file("kubelet-client-certificate", "kube-apiserver-kubelet-client.crt"),
            file("kubelet-client-key", "kube-apiserver-kubelet-client.key"),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
            file("service-account-key-file", "service-account.pub"),
            file("service-account-signing-key-file", "service-account.key"),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--allow-privileged".to_owned(),
            "--profiling=false".to_owned(),
        ]
    }

    /// A node's programs, in the order to start them, but for containerd.
    #[must_use]
    pub fn node(&self, node: &Node) -> Vec<Program> {
        let mut programs = vec![self.program(
            &node.lab_name,
            "kubelet",
            vec![
                format!("--config={}", node.kubelet_file().display()),
                format!(
                    "--kubeconfig={}",
                    self.secret(&format!("kubelet-{}.kubeconfig", node.name))
                ),
                format!("--hostname-override={}", node.name),
                format!("--node-ip={}", node.address),
                format!("--node-labels={}", self.labels(node)),
            ],
        )];
        if self.proxy != ProxyMode::None {
            programs.push(self.program(
                &node.lab_name,
                "kube-proxy",
                vec![format!("--config={}", node.proxy_file().display())],
            ));
        }
        programs
    }

    /// What the cloud's controller would say of a node; a kubelet may give itself these, and few others.
    fn labels(&self, node: &Node) -> String {
        [
            ("topology.kubernetes.io/region", self.region.as_str()),
            ("topology.kubernetes.io/zone", &node.zone),
            ("node.kubernetes.io/instance-type", &node.instance_type),
        ]
        .map(|(key, value)| format!("{key}={value}"))
        .join(",")
    }

    /// containerd on a node.
    #[must_use]
    pub fn containerd(&self, node: &Node) -> Program {
        Program {
            name: "containerd".to_owned(),
            file: PathBuf::from("containerd"),
            arguments: vec![format!("--config={}", node.containerd_file().display())],
            log: self.logs.join(format!("containerd-{}.log", node.lab_name)),
        }
    }

    /// The files that a node's programs read, with their content.
    #[must_use]
    pub fn files(&self, node: &Node) -> Vec<(PathBuf, String)> {
        vec![
            (node.containerd_file(), containerd_config()),
            (node.kubelet_file(), self.kubelet_config(node).to_string()),
            (node.proxy_file(), self.proxy_config(node).to_string()),
            // The lab's VPC has no resolver.
            (node.resolver_file(), String::new()),
        ]
    }

    fn kubelet_config(&self, node: &Node) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.secret("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "providerID": format!("aws:///{}/{}", node.zone, node.instance),
            "maxPods": node.max_pods,
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "resolvConf": node.resolver_file(),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            // Kubernetes 1.35 and later refuse version 1 otherwise.
            "failCgroupV1": false,
            "failSwapOn": false,
            // Requests that nobody throttles: a hundred pods at once, on a machine that may be slow.
            "serializeImagePulls": false,
            // The disk is the computer's, and how full it is says nothing of the lab.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
            },
        })
    }

    fn proxy_config(&self, node: &Node) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.proxy.name(),
            "hostnameOverride": node.name,
            "clientConnection": {"kubeconfig": self.secret("kube-proxy.kubeconfig")},
            // nf_conntrack_max can be written in the first network namespace only.
            "conntrack": {"maxPerCore": 0, "min": 0},
        })
    }
}

impl Node {
    fn file(&self, name: &str) -> PathBuf {
        self.disk.join("config").join(name)
    }

    fn containerd_file(&self) -> PathBuf {
        self.file("containerd.toml")
    }

    fn kubelet_file(&self) -> PathBuf {
        self.file("kubelet.json")
    }

    fn proxy_file(&self) -> PathBuf {
        self.file("kube-proxy.json")
    }

    fn resolver_file(&self) -> PathBuf {
        self.file("resolv.conf")
    }
}

/// In the form of containerd 1, which containerd 2 reads as well.
fn containerd_config() -> String {
    let unused =
        ["aufs", "btrfs", "devmapper", "zfs"].map(|s| format!("\"io.containerd.snapshotter.v1.{s}\""));
    format!(
        r#"version = 2
disabled_plugins = [{}, "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE, as in many containers, nobody may lower a process's score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
        unused.join(", ")
    )
}

/// A node's name in Kubernetes, as on EKS: its private DNS name.
#[must_use]
pub fn node_name(address: Ipv4Addr, region: &str) -> String {
    let dashed = address.to_string().replace('.', "-");
    format!("ip-{dashed}.{region}.compute.internal")
}

/// Where things of one machine lie on disk.
#[must_use]
pub fn machine_disk(disk: &Path, machine: &str) -> PathBuf {
    disk.join("machines").join(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(proxy: ProxyMode) -> Cluster {
        Cluster {
            kubernetes: "/opt/kubernetes".into(),
            credentials: "/disk/credentials".into(),
            logs: "/logs".into(),
            disk: "/disk".into(),
            api: Ipv4Addr::new(10, 0, 16, 9),
            proxy,
            region: "us-west-2".to_owned(),
        }
    }

    fn node() -> Node {
        let address = Ipv4Addr::new(10, 0, 3, 4);
        Node {
            lab_name: "node-1".to_owned(),
            name: node_name(address, "us-west-2"),
            instance: "i-0123".to_owned(),
            instance_type: "m5.xlarge".to_owned(),
            zone: "us-west-2a".to_owned(),
            address,
            max_pods: 58,
            disk: "/disk/machines/node-1".into(),
        }
    }

    #[test]
    fn a_node_is_to_kubernetes_what_it_is_to_ec2() {
        let (cluster, node) = (cluster(ProxyMode::Iptables), node());
        let kubelet = &cluster.node(&node)[0];
        assert_eq!(kubelet.arguments[0], "kubelet");
        let expected = "--hostname-override=ip-10-0-3-4.us-west-2.compute.internal";
        assert!(kubelet.arguments.iter().any(|a| a == expected), "{kubelet:?}");
        let labels = "--node-labels=topology.kubernetes.io/region=us-west-2,topology.kubernetes.io/zone=us-west-2a,\
                      node.kubernetes.io/instance-type=m5.xlarge";
        assert!(kubelet.arguments.iter().any(|a| a == labels), "{kubelet:?}");
        let config = cluster.kubelet_config(&node);
        assert_eq!(config["providerID"], "aws:///us-west-2a/i-0123");
        assert_eq!(config["maxPods"], 58);
        assert_eq!(config["clusterDNS"], json!(["172.20.0.10"]));
        // Nobody gets at a kubelet without a certificate.
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
    }

    #[test]
    fn every_file_a_program_is_pointed_to_is_written() {
        let (cluster, node) = (cluster(ProxyMode::Nftables), node());
        let files: Vec<PathBuf> = cluster.files(&node).into_iter().map(|(f, _)| f).collect();
        let mut programs = cluster.node(&node);
        programs.push(cluster.containerd(&node));
        for program in &programs {
            let config = program
                .arguments
                .iter()
                .find_map(|a| a.strip_prefix("--config="))
                .unwrap();
            assert!(files.contains(&config.into()), "{config}");
        }
    }

    #[test]
    fn the_dns_servers_service_has_the_address_that_kubelets_tell_pods() {
        let manifest = include_str!("../../kubernetes/kube-dns/manifest.yaml");
        assert!(manifest.contains(&format!("clusterIP: {DNS_SERVICE}\n")));
        assert!(SERVICES.parse::<ipnet::Ipv4Net>().unwrap().contains(&DNS_SERVICE));
    }

    #[test]
    fn no_kube_proxy_means_none() {
        let names = |proxy| -> Vec<String> {
            let programs = cluster(proxy).node(&node());
            programs.into_iter().map(|p| p.name).collect()
        };
        assert_eq!(names(ProxyMode::Nftables), ["kubelet", "kube-proxy"]);
        assert_eq!(names(ProxyMode::None), ["kubelet"]);
    }

    #[test]
    fn the_api_server_is_known_by_every_name_it_is_called_by() {
        let arguments = cluster(ProxyMode::None).credentials(Some("https://127.0.0.1:40000"), &["a", "b"]);
        let names = arguments.iter().find(|a| a.starts_with("-names=")).unwrap();
        for name in ["10.0.16.9", "172.20.0.1", "127.0.0.1", "kubernetes.default.svc"] {
            assert!(names.contains(name), "{names}");
        }
        assert!(arguments.contains(&"-nodes=a,b".to_owned()));
        assert!(arguments.contains(&"-server=https://10.0.16.9:443".to_owned()));
        assert!(arguments.contains(&"-local=https://127.0.0.1:40000".to_owned()));
    }
}
