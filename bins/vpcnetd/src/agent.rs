//! The agent's life: start the servers and the loop, get to the pool, end on a signal.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use vpcnet_cloud::{Ec2, Imds, ImdsConfig, process_environment};
use vpcnet_ipam::InterfaceFacts;

use crate::aims::Aims;
use crate::cluster::{self, Owners, Settled};
use crate::config::{Config, Family};
use crate::core::{Core, Order, Started};
use crate::files::{self, Found};
use crate::host::Host;
use crate::http;
use crate::introspect::{self, Pages};
use crate::keeper::{Egress, Keeper};
use crate::leftovers::{self, Leftovers};
use crate::metrics::Metrics;
use crate::newcomers::look_when_starved;
use crate::news::Newsroom;
use crate::observer::Calls;
use crate::published::{Published, Publisher};
use crate::refresh::Refresh;
use crate::snat::Snat;
use crate::startup::{self, Surroundings};
use crate::{executor, grpc, node_file, socket};

/// Calls under way at the end get this long to end by themselves,
const FINISH_WITHIN: Duration = Duration::from_millis(800);
/// and each last step this long.
const END_WITHIN: Duration = Duration::from_millis(400);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The plugin's socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// A setting for EC2 or IMDS.
    #[error(transparent)]
    Cloud(#[from] vpcnet_cloud::ConfigError),
    /// The gRPC transport.
    #[error("cannot serve the socket: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Metrics of the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. Nothing is removed from the kernel at the end: pods go on.
///
/// # Errors
/// [`AgentError`], all at the start but the transport's.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let config = Arc::new(config);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.kubernetes.node_name,
        "vpcnetd starts"
    );
    for note in &config.notes {
        tracing::warn!(%note, "setting");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Metrics::new()?;
    let imds = imds(&config, &metrics)?;
    let sockets = socket::bind(&config.socket)?;

    let files = files::stores(&config);
    let found = files::read(&files, &metrics);
    let state = files.state.clone();
    let (core, handle, orders) = Core::new(files, Arc::clone(&metrics));
    let found_cluster = cluster::find(&config);
    let news = match &found_cluster {
        Ok(Some((_, news))) => news.clone(),
        Ok(None) | Err(_) => Newsroom::default(),
    };
    let core = core.telling(news.clone());
    let publisher = Publisher::new(Published {
        exclude_snat: config.host.exclude_snat.clone(),
        external_snat: config.host.external_snat,
        multi_nic: config.uses_all_cards(),
        policy_mode: config.kubernetes.policy_mode.clone(),
        ipv6: config.family == Family::V6,
        ..Published::default()
    });
    let aims = Arc::new(Aims::new(Arc::clone(&config)));
    // Before the pool begins, and not only when it changes.
    if let Some(path) = &config.pool.node_file {
        take_node_file(&aims, &publisher, node_file::read(path));
    }
    let cluster = match found_cluster {
        Ok(found) => found.map(|(cluster, _)| {
            cluster.start(cluster::Around {
                config: Arc::clone(&config),
                aims: Arc::clone(&aims),
                core: handle.clone(),
                publisher: publisher.clone(),
                metrics: Arc::clone(&metrics),
            })
        }),
        Err(why) => {
            tracing::error!(why, "without Kubernetes");
            publisher.change(|p| p.complaints.cluster = vec![why]);
            None
        }
    };
    let leftovers = Arc::new(Leftovers::new(config.host.clone()));
    let around = Surroundings {
        core: handle.clone(),
        imds,
        host: Host::new(config.host.clone(), Arc::clone(&leftovers), Arc::clone(&metrics)),
        leftovers: Arc::clone(&leftovers),
        snat: Arc::new(Snat::new(
            config.host.clone(),
            Arc::clone(&leftovers),
            publisher.clone(),
            Arc::clone(&metrics),
        )),
        publisher: publisher.clone(),
        metrics: Arc::clone(&metrics),
        config: Arc::clone(&config),
        aims,
        newcomers: Arc::default(),
        causes: Arc::default(),
        news,
    };
    // Endpoints and credential settings are checked now: later there is nobody to hear of it.
    around.ec2("us-east-1")?;
    let core = tokio::spawn(core.run());
    let (stop, stopped) = watch::channel(false);
    // Before the socket is served: on a machine that is known this takes milliseconds, and callers find a pool.
    let life = Life {
        around,
        orders,
        state,
        cluster,
    };
    life.begin(found);

    let pages = Pages {
        core: handle.clone(),
        config: Arc::clone(&config),
        publisher: publisher.clone(),
        metrics: Arc::clone(&metrics),
        leftovers,
    };
    if let Some(bind) = config.introspection.clone() {
        tokio::spawn(http::serve(
            "introspection",
            bind,
            introspect::router(pages.clone()),
            stopped.clone(),
        ));
    }
    if let Some(bind) = config.metrics.clone() {
        tokio::spawn(http::serve(
            "metrics",
            bind,
            introspect::metrics_router(pages),
            stopped.clone(),
        ));
    }
    let services = grpc::Services {
        core: handle.clone(),
        metrics,
        published: publisher.subscribe(),
    };
    let socket::AgentSockets { grpc, direct, lock } = sockets;
    let server = tokio::spawn(grpc::serve(grpc, direct, services, stopped));

    let mut server = std::pin::pin!(server);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: ending; pods and their network stay as they are"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending; pods and their network stay as they are"),
        ended = &mut server => {
            if let Ok(result) = ended {
                result?;
            }
            return Ok(());
        }
    }
    // No new calls; those under way may end well.
    let _ = stop.send(true);
    let ended = tokio::time::timeout(FINISH_WITHIN, &mut server).await.is_ok();
    // Whoever still waits for EC2 is told to come back, and the journal gets its last entries.
    handle.stop();
    let _ = tokio::time::timeout(END_WITHIN, core).await;
    if !ended {
        let _ = tokio::time::timeout(END_WITHIN, &mut server).await;
    }
    drop(lock);
    Ok(())
}

/// What holds for this node only is in force from here on. A file that cannot be used changes nothing.
fn take_node_file(
    aims: &Aims,
    publisher: &Publisher,
    read: Result<node_file::NodeValues, node_file::NodeFileError>,
) -> bool {
    let complaint = match read {
        Ok(values) => {
            aims.set_node(values);
            None
        }
        Err(error) => {
            tracing::error!(%error, "what it said before holds");
            Some(error.to_string())
        }
    };
    let taken = complaint.is_none();
    publisher.change(|p| {
        p.complaints.node_file = complaint;
        p.complaints.subnets = aims.complaints();
    });
    taken
}

fn imds(config: &Config, metrics: &Arc<Metrics>) -> Result<Imds, vpcnet_cloud::ConfigError> {
    let mut imds = ImdsConfig::from_environment(&process_environment);
    imds.endpoint = config.cloud.imds_endpoint.clone().or(imds.endpoint);
    imds.observer = Arc::new(Calls {
        metrics: Arc::clone(metrics),
        publisher: None,
        news: Newsroom::default(),
    });
    Imds::with_config(imds)
}

/// What is needed to get to the pool and to live with it.
struct Life {
    around: Surroundings,
    orders: mpsc::UnboundedReceiver<Order>,
    state: crate::store::FileStore,
    cluster: Option<(Settled, Owners)>,
}

impl Life {
    /// Gets to the pool now, or begins to.
    fn begin(self, mut found: Found) {
        for note in &found.notes {
            tracing::error!(%note, "state");
        }
        // Before anything is brought to its wanted state, which is without what is not known of.
        if let Err(error) = self.around.leftovers.read() {
            tracing::error!(%error, "what connections of earlier settings need is not known, and may be taken from them");
        }
        let kernel = startup::kernel_evidence(&self.around.leftovers.prefixes()).unwrap_or_else(|error| {
            tracing::error!(%error, "the kernel does not show its pods");
            found.notes.push(format!(
                "the kernel does not show its pods, so all of the checkpoint's count as alive: {error}"
            ));
            startup::all_alive(found.checkpoint.as_ref())
        });
        let began = std::time::Instant::now();
        match startup::warm(&self.around, &found, &kernel) {
            Ok((mut started, interfaces, missing)) => {
                self.around.metrics.drop_in.initialised(true, began.elapsed());
                started.notes.splice(0..0, found.notes);
                match self.around.ec2(&started.facts.machine.region) {
                    Ok(ec2) => self.live(started, &interfaces, ec2, true, missing),
                    Err(error) => self.around.core.starting(error.to_string()),
                }
            }
            Err(why) => {
                tracing::info!(%why, "asking IMDS what this instance is");
                self.around
                    .core
                    .starting("IMDS is asked what this instance is".into());
                tokio::spawn(async move {
                    let notes = found.notes.clone();
                    if let Some((settled, _)) = &self.cluster {
                        settled.clone().wait().await;
                    }
                    let (mut started, interfaces, ec2) = startup::cold(&self.around, found, kernel).await;
                    started.notes.splice(0..0, notes);
                    self.live(started, &interfaces, ec2, false, false);
                });
            }
        }
    }

    /// Hands the pool over and starts what lives beside it. `doubtful`: it does not know all interfaces, or knows one that has no link.
    fn live(self, started: Started, interfaces: &[InterfaceFacts], ec2: Ec2, warm: bool, doubtful: bool) {
        let Self {
            around,
            orders,
            state,
            cluster,
        } = self;
        let facts = started.facts.clone();
        for note in &started.notes {
            tracing::warn!(%note, "restored");
        }
        let cloud = Arc::new(around.cloud(ec2.clone(), &facts.machine, interfaces));
        around.core.start(started);
        if let Some((_, owners)) = cluster {
            // What became known since the pool's targets were made of what was.
            around.aims.tell(&around.core);
            tokio::spawn(owners.tell(around.core.clone()));
        }
        if doubtful {
            let cloud = Arc::clone(&cloud);
            tokio::spawn(async move { startup::relist(&cloud).await });
        }
        if !warm {
            around
                .newcomers
                .unlisted(interfaces, &around.leftovers.prefixes());
        }
        tokio::spawn(Arc::clone(&cloud.zone).until_known());
        tokio::spawn(Arc::clone(&around.newcomers).run(Arc::clone(&cloud)));
        tokio::spawn(look_when_starved(Arc::clone(&cloud), around.core.starved()));
        tokio::spawn(executor::run(cloud, orders));
        for (eni, attachment) in facts.outliving.clone() {
            let core = around.core.clone();
            tokio::spawn(executor::go_with_instance(ec2.clone(), core, eni, attachment));
        }
        if let Some(path) = around.config.pool.node_file.clone() {
            let (aims, core, publisher) = (
                Arc::clone(&around.aims),
                around.core.clone(),
                around.publisher.clone(),
            );
            tokio::spawn(node_file::follow(path, move |read| {
                let before = aims.targets();
                if take_node_file(&aims, &publisher, read) && aims.targets() != before {
                    tracing::info!(targets = ?aims.targets(), "what holds for this node changed");
                    aims.tell(&core);
                }
            }));
        }
        around.publish(&facts);
        around
            .publisher
            .change(|p| p.complaints.subnets = around.aims.complaints());
        let pod_links = Arc::new(Notify::new());
        tokio::spawn(startup::look_again(around.clone(), Arc::clone(&pod_links)));
        if warm {
            around
                .snat
                .set_source(facts.machine.local_ipv4, &facts.machine.mac);
            let snat = Arc::clone(&around.snat);
            let cidrs = facts.vpc_cidrs.clone();
            tokio::spawn(async move { snat.ensure(&cidrs).await });
            tokio::spawn(startup::verify(
                around.clone(),
                facts.machine.instance_id.clone(),
                state,
            ));
        }
        let keeper = Keeper {
            host: around.host.clone(),
            snat: Arc::clone(&around.snat),
            core: around.core.clone(),
            metrics: Arc::clone(&around.metrics),
            publisher: around.publisher.clone(),
            newcomers: Arc::clone(&around.newcomers),
            pod_links,
            leftovers: Arc::clone(&around.leftovers),
            egress: Egress::new(around.snat.takeover()),
        };
        tokio::spawn(keeper.run());
        tokio::spawn(Arc::clone(&around.leftovers).run(leftovers::Around {
            host: around.host.clone(),
            snat: Arc::clone(&around.snat),
            publisher: around.publisher.clone(),
            metrics: Arc::clone(&around.metrics),
        }));
        let refresh = Refresh {
            imds: around.imds.clone(),
            ec2,
            core: around.core.clone(),
            publisher: around.publisher.clone(),
            snat: Arc::clone(&around.snat),
            mac: facts.machine.mac.clone(),
            follow_groups: around.follows_groups(),
            at_once: warm,
            causes: Arc::clone(&around.causes),
        };
        tokio::spawn(refresh.run());
    }
}
