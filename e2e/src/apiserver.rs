//! A Kubernetes API server with its etcd, beside the agent in a node's network namespace: it can be away, come, go and come again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::node::Node;
use crate::wait::wait_for_or;

/// How long the API server may take to be there, on a machine that others use, too.
const READY: Duration = Duration::from_secs(180);

/// What the agent's service account may do in a cluster, and no more.
const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: aws-node}
rules:
- {apiGroups: [crd.k8s.amazonaws.com], resources: [eniconfigs], verbs: [list, watch, get]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch, get, patch]}
- {apiGroups: [""], resources: [nodes], verbs: [list, watch, get]}
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: aws-node}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: aws-node}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: agent}]
"#;

/// Every request is written down, and nothing of its content.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// It.
#[derive(Debug)]
pub struct ApiServer {
    directory: tempfile::TempDir,
    /// The node's network namespace.
    namespace: PathBuf,
    etcd: Option<Child>,
    server: Option<Child>,
}

/// A directory with certificates and a kubeconfig, for a server that is not there yet. The agent can be started with it.
#[derive(Debug)]
pub struct Credentials(tempfile::TempDir);

impl Credentials {
    /// Makes them.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("vpcnet-api")
            .tempdir()
            .expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let ec = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ];
        openssl(
            &[
                &["req", "-x509"],
                &ec[..],
                &[
                    "-subj",
                    "/CN=test-ca",
                    "-keyout",
                    &at("ca.key"),
                    "-out",
                    &at("ca.crt"),
                ],
            ]
            .concat(),
        );
        // A leaf under an authority: rustls refuses an authority's certificate as a server's.
        openssl(
            &[
                &["req", "-x509"],
                &ec[..],
                &[
                    "-subj",
                    "/CN=kube-apiserver",
                    "-CA",
                    &at("ca.crt"),
                    "-CAkey",
                    &at("ca.key"),
                ],
                &[
                    "-addext",
                    "basicConstraints=critical,CA:FALSE",
                    "-addext",
                    "extendedKeyUsage=serverAuth",
                ],
                &[
                    "-addext",
                    "subjectAltName=IP:127.0.0.1",
                    "-keyout",
                    &at("server.key"),
                    "-out",
                    &at("server.crt"),
                ],
            ]
            .concat(),
        );
        openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &at("sa.key"),
        ]);
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect(name);
        write(
            "tokens.csv",
            "admin-token,admin,1,system:masters\nagent-token,agent,2\n",
        );
        write("audit-policy.yaml", AUDIT);
        write("agent-token", "agent-token\n");
        for (name, user) in [
            ("admin.conf", "token: admin-token"),
            ("agent.conf", "tokenFile: agent-token"),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:6443\", certificate-authority: ca.crt}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\n"
            );
            write(name, &text);
        }
        Self(directory)
    }

    /// The agent's setting.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!("KUBECONFIG={}", self.0.path().join("agent.conf").display())
    }

    /// Starts the API server in a node's network namespace, with the CRDs of `deploy/crds` and the agent's rights.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(self, node: &Node<'_>) -> ApiServer {
        let holder = node.status()["holder"]
            .as_i64()
            .expect("a node has a process that holds it");
        let mut server = ApiServer {
            directory: self.0,
            namespace: PathBuf::from(format!("/proc/{holder}/ns/net")),
            etcd: None,
            server: None,
        };
        let data = server.path("etcd");
        let arguments = ["--data-dir", &data, "--unsafe-no-fsync", "--log-level", "warn"];
        server.etcd = Some(server.spawn("etcd", &arguments));
        server.up();
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
        server.kubectl(&["apply", "-f", &crds.display().to_string()]);
        server.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ]);
        server.apply(RIGHTS);
        server
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiServer {
    /// Starts the API server proper, and returns once it is ready.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn up(&mut self) {
        let file = |name: &str| self.path(name);
        let arguments = [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", file("sa.key")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            // Pods are made here without a controller that makes accounts for them.
            "--disable-admission-plugins=ServiceAccount".into(),
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
            "--shutdown-delay-duration=0s".into(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.server = Some(self.spawn("kube-apiserver", &arguments));
        wait_for_or(
            || format!("the API server is ready:\n{}", self.log("kube-apiserver")),
            READY,
            || self.try_kubectl(&["get", "--raw", "/readyz"]).ok(),
        );
    }

    /// Ends the API server as a crash does. etcd keeps what there is.
    pub fn kill(&mut self) {
        end(&mut self.server);
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn log(&self, program: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A program of Kubernetes in the node's network namespace.
    fn program(&self, name: &str) -> Command {
        // nsenter becomes what it starts: the process is the program's.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display()));
        command.arg(kubernetes()).arg(name);
        command
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")));
        let log = log.expect("a log");
        let mut command = self.program(name);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs kubectl as the cluster's administrator.
    ///
    /// # Errors
    /// What it said.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.program("kubectl");
        command
            .env("HOME", self.directory.path())
            .args(["--kubeconfig", &self.path("admin.conf")]);
        said(command.args(arguments).output())
    }

    /// The same, for what must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments)
            .unwrap_or_else(|e| panic!("kubectl {arguments:?}: {e}"))
    }

    /// Makes objects of YAML or JSON.
    #[track_caller]
    pub fn apply(&self, text: &str) {
        let file = self.path("apply.yaml");
        fs::write(&file, text).expect("a file");
        self.kubectl(&["apply", "-f", &file]);
    }

    /// Objects as JSON.
    #[track_caller]
    pub fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Makes a node object as a kubelet would, with so many pods.
    #[track_caller]
    pub fn make_node(&self, name: &str, pods: u32) {
        self.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: zone-a}}}}}}"));
        let status = format!(r#"{{"status": {{"capacity": {{"pods": "{pods}"}}}}}}"#);
        self.kubectl(&[
            "patch",
            "node",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ]);
    }

    /// Makes a pod object that is on a node already.
    #[track_caller]
    pub fn make_pod(&self, node: &str, name: &str) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: default}}, spec: {{nodeName: {node}, \
             automountServiceAccountToken: false, containers: [{{name: c, image: none}}]}}}}"
        ));
    }

    /// What the agent has asked for: verb and path with query.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path("audit.log")).unwrap_or_default();
        let of_agent = |line: &str| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let word = |v: &Value| v.as_str().map(str::to_owned);
            (entry["user"]["username"] == "agent").then_some(())?;
            Some((word(&entry["verb"])?, word(&entry["requestURI"])?))
        };
        text.lines().filter_map(of_agent).collect()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- kube-apiserver\n{}", self.log("kube-apiserver"));
        }
        end(&mut self.server);
        end(&mut self.etcd);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn openssl(arguments: &[&str]) {
    if let Err(error) = said(Command::new("openssl").args(arguments).output()) {
        panic!("openssl {arguments:?}: {error}");
    }
}

fn said(output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The program with all of Kubernetes' in it: `VPCNET_KUBERNETES`, else where `make kubernetes` puts it.
fn kubernetes() -> PathBuf {
    let path = std::env::var_os("VPCNET_KUBERNETES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vpcnet/kubernetes/kubernetes"),
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is not there: run `make kubernetes` first",
        path.display()
    );
    path
}
