//! The process behind `lab up`: the VPC, its faces, its fabric and the nodes' agents, and a socket for the command line.
//!
//! It clears nothing up when it ends; `down` does, from the record on disk, so there is one way for clean ends and
//! crashes alike.

mod agents;
mod handle;
mod network;
pub mod options;

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{Engine, serve_ec2, serve_imds};
use crate::control::{Answer, Ask};
use crate::error::LabError;
use crate::fabric::{DropLog, listen_in_vpc, netns};
use crate::kubernetes::{API_PORT, cluster, forward, programs::Programs};
use crate::model::Vpc;
use crate::process::Process;
use crate::state::{Dir, Made, Records};
use agents::Agents;
use handle::Daemon;
use network::Network;
use options::Options;

/// IMDS in the nodes.
const IMDS: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);
/// The EC2 face in the nodes.
const EC2: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 249), 8773);

/// Runs the daemon until SIGTERM or SIGINT. Says `ready` on standard output once everything stands, or `error: …`.
///
/// # Errors
/// What could not be made.
pub fn run(dir: &Dir, options: &Options, agent: &Path) -> Result<(), LabError> {
    // A session of its own: the terminal's signals are not for it.
    let _ = rustix::process::setsid();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::socket("start the runtime"))?;
    let result = runtime.block_on(serve(dir, options, agent));
    if let Err(e) = &result {
        say(&format!("error: {e}"));
    }
    // Not waiting for blocking work that may hang on a broken namespace.
    runtime.shutdown_background();
    result
}

/// To whoever started the daemon; nobody may be there any more.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}", line.replace('\n', " ")).and_then(|()| out.flush());
}

async fn serve(dir: &Dir, options: &Options, agent: &Path) -> Result<(), LabError> {
    let made = Made {
        daemon: Process::current(),
        netns_dir: !netns::prepared(),
        ..Made::default()
    };
    let records = Records::create(dir, made)?;
    let start = Instant::now();
    let config = options.config()?;
    let control_plane = options.control_plane(&config);
    let engine = Engine::new(Vpc::new(config, options.seed.unwrap_or_default()));
    for n in 1..=options.nodes {
        let started = engine.with(|vpc, now| vpc.run_instance(now, &options.node(n)));
        started.map_err(|e| LabError::Usage(format!("node-{n} cannot start: {}", e.message)))?;
    }
    if options.kubernetes {
        let started = engine.with(|vpc, now| vpc.run_instance(now, &control_plane));
        started.map_err(|e| LabError::Usage(format!("the control plane cannot start: {}", e.message)))?;
    }
    let drops = DropLog::new(start);
    let network = Network::start(dir, records, &engine, &drops)?;
    let clock = engine.clone();
    tokio::spawn(async move { clock.run().await });
    let ec2_port = faces(dir, &engine).await?;
    let env: Result<Vec<(String, String)>, LabError> = options.env.iter().map(|e| options::pair(e)).collect();
    let cluster = match options.kubernetes {
        true => Some(Arc::new(kubernetes(dir, options, &engine, &network).await?)),
        false => None,
    };
    let daemon = Arc::new(Daemon {
        cluster,
        agents: Agents::new(agent, &dir.log()),
        engine,
        network,
        drops,
        dir: dir.clone(),
        ec2_port,
        instance_type: options.instance_type.clone(),
        with_agents: options.with_agents(),
        env: options.family_env().into_iter().chain(env?).collect(),
    });
    let control = dir.control();
    let listener = UnixListener::bind(&control).map_err(LabError::socket("listen for the command line"))?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&control, private).map_err(LabError::file("protect", &control))?;
    if options.with_agents() {
        daemon.start_all_agents()?;
    }
    daemon.start_cluster().await?;
    let mut term = signal(SignalKind::terminate()).map_err(LabError::socket("wait for signals"))?;
    let mut int = signal(SignalKind::interrupt()).map_err(LabError::socket("wait for signals"))?;
    say("ready");
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, daemon.clone()))),
                Err(e) => tracing::warn!(error = %e, "cannot accept on the control socket"),
            },
        }
    }
    tracing::info!("ending");
    let agents = daemon.agents.clone();
    let _ = tokio::task::spawn_blocking(move || agents.end_all()).await;
    Ok(())
}

/// Plans the cluster, and opens the port of this machine that leads to its API server.
async fn kubernetes(
    dir: &Dir,
    options: &Options,
    engine: &Engine,
    network: &Network,
) -> Result<cluster::Cluster, LabError> {
    let socket = || LabError::socket("listen on 127.0.0.1 for the API server");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(socket())?;
    let port = listener.local_addr().map_err(socket())?.port();
    let view = engine.with(|vpc, _| vpc.fabric());
    let mut hosts = handle::hosts(&view, network);
    let at = hosts
        .iter()
        .position(|h| h.name == crate::kubernetes::CONTROL_PLANE);
    let control_plane = at
        .map(|at| hosts.swap_remove(at))
        .ok_or_else(|| LabError::Unknown {
            kind: "instance",
            name: crate::kubernetes::CONTROL_PLANE.to_owned(),
            known: Vec::new(),
        })?;
    let to = (control_plane.address, API_PORT);
    tokio::spawn(forward::serve(listener, control_plane.namespace.clone(), to));
    let settings = cluster::Settings {
        programs: Programs::find()?,
        dir: dir.clone(),
        proxy: options.kube_proxy,
        region: engine.with(|vpc, _| vpc.config().region.clone()),
        control_plane,
        port,
    };
    let network = network.clone();
    cluster::Cluster::new(
        settings,
        Box::new(move |change| network.record(|made| change(made))),
    )
}

/// Opens the faces and returns the port of the EC2 face outside the lab's namespaces.
async fn faces(dir: &Dir, engine: &Engine) -> Result<u16, LabError> {
    let names = dir.names();
    let into_tokio = |l| TcpListener::from_std(l).map_err(LabError::socket("serve a face"));
    let imds = into_tokio(listen_in_vpc(&names, IMDS.0, IMDS.1)?)?;
    let inside = into_tokio(listen_in_vpc(&names, EC2.0, EC2.1)?)?;
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(LabError::socket("listen on 127.0.0.1"))?;
    let port = outside
        .local_addr()
        .map_err(LabError::socket("listen on 127.0.0.1"))?
        .port();
    tokio::spawn(serve_ec2(inside, engine.clone()));
    tokio::spawn(serve_ec2(outside, engine.clone()));
    let owner = engine.clone();
    let identify = move |address: IpAddr| {
        let IpAddr::V4(address) = address else { return None };
        let view = owner.with(|vpc, _| vpc.fabric());
        let owns = |i: &&crate::model::FabricInterface| i.addresses.iter().any(|net| net.contains(&address));
        view.interfaces.iter().find(owns).map(|i| i.node.clone())
    };
    tokio::spawn(serve_imds(imds, engine.clone(), identify));
    Ok(port)
}

async fn converse(stream: UnixStream, daemon: Arc<Daemon>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if !matches!(stream.read_line(&mut line).await, Ok(n) if n > 0) {
        return;
    }
    let answer = match serde_json::from_str::<Ask>(&line) {
        Err(e) => Answer::Error(format!(
            "the daemon does not understand this command line's request: {e}"
        )),
        Ok(ask) => match daemon.answer(ask).await {
            Ok(value) => Answer::Ok(value),
            Err(e) => Answer::Error(e.to_string()),
        },
    };
    let mut text = serde_json::to_string(&answer).unwrap_or_default();
    text.push('\n');
    let _ = stream.get_mut().write_all(text.as_bytes()).await;
}
