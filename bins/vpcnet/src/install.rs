//! `vpcnet install`: the first process of the agent's container. Puts the plugins on the node, starts the agent, and lets the
//! container runtime know of the network once pods can be served.
//!
//! It stays the agent's parent and does not become it: what is put on the node is not the agent's affair, the agent can be
//! run without any of it, and its end is heard at any point, also while it is waited for.

mod agent;
mod conflist;
mod ready;
mod say;
mod versions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use vpcnet_config::{Config, ConfigErrors};

use crate::node_address;
use crate::place::{self, EXECUTABLE, PlaceError, READABLE};
use conflist::{Conflist, ConflistError};
pub(crate) use say::Teller;

/// The file's name on the node: the runtime takes the first by name.
const CONFLIST: &str = "10-aws.conflist";
/// Ours, which every release brings anew.
const OURS: [&str; 2] = ["aws-cni", "egress-cni"];
/// The CNI project's, which the image carries.
pub(crate) const CORE: [&str; 5] = ["portmap", "bandwidth", "tuning", "host-local", "loopback"];
/// Between attempts to write the file, on a disk that is full, say.
const AGAIN: Duration = Duration::from_secs(5);

/// Where things are taken from.
#[derive(Args)]
pub(crate) struct Options {
    /// Where aws-cni, egress-cni, vpcnetd and 10-aws.conflist are [default: the program's own directory]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where portmap, bandwidth and tuning are [default: ../init beside --from, else --from]
    #[arg(long, value_name = "DIR")]
    core: Option<PathBuf>,
    /// The agent [default: vpcnetd in --from]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// The template of the plugins' configuration file [default: 10-aws.conflist in --from, else one that is built in]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

/// It could not be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The agent would not start.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Where this program is.
    #[error("cannot find out where this program is: {0}; say it with --from")]
    Own(std::io::Error),
    /// A plugin.
    #[error("{source}; is the node's directory mounted there (HOST_CNI_BIN_PATH)?")]
    Plugin {
        /// Why.
        source: PlaceError,
    },
    /// A plugin of the chain is nowhere.
    #[error("the chain needs the plugin {name}, which is neither in {} (HOST_CNI_BIN_PATH) nor in {}", .node.display(), .image.display())]
    NoPlugin {
        /// Its name.
        name: String,
        /// The node's directory.
        node: PathBuf,
        /// The image's.
        image: PathBuf,
    },
    /// The template.
    #[error("cannot read the template {}: {source}", .path.display())]
    ReadTemplate {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The template's content.
    #[error("the template {path}: {source}")]
    Template {
        /// Which file.
        path: String,
        /// What is wrong.
        source: ConflistError,
    },
    /// The agent.
    #[error("cannot start the agent {}: {source}", .path.display())]
    Agent {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// The environment, as the agent reads it.
///
/// # Errors
/// What keeps the agent from starting.
pub(crate) fn environment() -> Result<Config, ConfigErrors> {
    Config::read(&|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

/// Where files are taken from, by what was said and by where this program is.
pub(crate) fn sources(
    from: Option<PathBuf>,
    core: Option<PathBuf>,
) -> Result<(PathBuf, PathBuf), InstallError> {
    let from = match from {
        Some(from) => from,
        // With links followed: /init/aws-vpc-cni-init is one.
        None => std::env::current_exe()
            .and_then(std::fs::canonicalize)
            .map_err(InstallError::Own)?
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default(),
    };
    let core = core.unwrap_or_else(|| {
        let beside = from.join("../init");
        if beside.is_dir() { beside } else { from.clone() }
    });
    Ok((from, core))
}

/// Runs until the agent ends.
///
/// # Errors
/// [`InstallError`], before the agent was started.
pub(crate) async fn run(options: Options) -> Result<ExitCode, InstallError> {
    let mut tell = Teller::new("install");
    let config = environment()?;
    let (from, core) = sources(options.from, options.core)?;
    let template = template(options.template, &from)?;
    // Before anything is changed: a template that is none shows here, whatever the node's address is.
    let chain = template.render(&config, None)?;

    let signals = agent::Signals::listen().map_err(InstallError::Signals)?;
    for name in OURS {
        place::copy(&from.join(name), &config.install.bin_dir.join(name), EXECUTABLE)
            .map_err(|source| InstallError::Plugin { source })?;
    }
    complete(&chain, &config.install.bin_dir, &core)?;
    tell.say(format_args!(
        "{} are in {}",
        OURS.join(" and "),
        config.install.bin_dir.display()
    ));

    let program = options.agent.unwrap_or_else(|| from.join("vpcnetd"));
    let mut agent = agent::Agent::start(&program, signals).map_err(|source| InstallError::Agent {
        path: program.clone(),
        source,
    })?;
    let announced = announce(&config, &template, chain, &mut tell);
    let ended = tokio::select! {
        ended = agent.ended() => Some(ended),
        () = announced => None,
    };
    let status = match ended {
        Some(status) => {
            tell.say("the agent ended before it served pods");
            status
        }
        None => agent.ended().await,
    };
    Ok(status)
}

/// The template and where it comes from.
struct Template {
    text: String,
    path: String,
}

impl Template {
    fn render(&self, config: &Config, node: Option<std::net::IpAddr>) -> Result<Conflist, InstallError> {
        Conflist::render(&self.text, config, node).map_err(|source| InstallError::Template {
            path: self.path.clone(),
            source,
        })
    }
}

fn template(told: Option<PathBuf>, from: &Path) -> Result<Template, InstallError> {
    let must_be = told.is_some();
    let path = told.unwrap_or_else(|| from.join(CONFLIST));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Template {
            text,
            path: path.display().to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_be => Ok(Template {
            text: conflist::BUILT_IN.to_owned(),
            path: "that is built in".into(),
        }),
        Err(source) => Err(InstallError::ReadTemplate { path, source }),
    }
}

/// Puts those plugins of the chain on the node that it lacks and the image has.
fn complete(chain: &Conflist, node: &Path, image: &Path) -> Result<(), InstallError> {
    for name in chain.types().filter(|name| !node.join(name).exists()) {
        let known = CORE.contains(&name).then(|| image.join(name));
        let Some(source) = known.filter(|path| path.exists()) else {
            return Err(InstallError::NoPlugin {
                name: name.to_owned(),
                node: node.to_path_buf(),
                image: image.to_path_buf(),
            });
        };
        place::copy(&source, &node.join(name), EXECUTABLE)
            .map_err(|source| InstallError::Plugin { source })?;
    }
    Ok(())
}

/// Waits until pods can be served, and then writes the file. Returns when it is written.
async fn announce(config: &Config, template: &Template, chain: Conflist, tell: &mut Teller) {
    let plugin = config.install.bin_dir.join(OURS[0]);
    ready::pods_can_be_served(&config.socket, &plugin, chain.question().as_ref(), tell).await;
    let spoken = spoken(&chain, &config.install.bin_dir, tell).await;
    let to = config.install.conf_dir.join(CONFLIST);
    loop {
        match write(config, template, spoken.as_deref(), &to, tell).await {
            Ok(()) => {
                tell.say(format_args!("pods are served: wrote {}", to.display()));
                return;
            }
            Err(why) => tell.waiting(format!("{why}; tried again every {} s", AGAIN.as_secs())),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What the plugins of the chain speak; none if one does not say, so that no version is promised for it.
async fn spoken(chain: &Conflist, node: &Path, tell: &Teller) -> Option<Vec<BTreeSet<String>>> {
    let mut all = Vec::new();
    for name in chain.types() {
        match versions::spoken(&node.join(name)).await {
            Ok(spoken) => all.push(spoken),
            Err(why) => {
                tell.say(format_args!(
                    "the plugin {name}: {why}; no other version than the template's is offered to the runtime"
                ));
                return None;
            }
        }
    }
    Some(all)
}

async fn write(
    config: &Config,
    template: &Template,
    spoken: Option<&[BTreeSet<String>]>,
    to: &Path,
    tell: &Teller,
) -> Result<(), String> {
    let node = if conflist::egress(config) {
        node_address::other_family(config, tell).await?
    } else {
        None
    };
    let mut list = template.render(config, node).map_err(|e| e.to_string())?;
    if let Some(spoken) = spoken {
        list.speak(spoken);
    }
    place::write(to, list.text().as_bytes(), READABLE)
        .map_err(|e| format!("{e}; is the node's directory mounted there (HOST_CNI_CONFDIR_PATH)?"))
}
