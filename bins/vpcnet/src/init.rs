//! `vpcnet init`: prepares the node before the agent starts there, and ends. What needs no privilege of the agent later is done
//! here: the CNI project's plugins, and parameters that the agent's container cannot write.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use vpcnet_config::{Config, ConfigErrors, Family};
use vpcnet_linux::sysctl::{SysctlError, Tree};

use crate::install::{self, CORE, InstallError, Teller};
use crate::place::{self, EXECUTABLE, PlaceError};
use crate::primary::{self, PrimaryError};

/// For operators on the node.
const OWN: &str = "vpcnet";

/// Where things are.
#[derive(Args)]
pub(crate) struct Options {
    /// Where vpcnet is [default: the program's own directory]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where the CNI project's plugins are [default: ../init beside --from, else --from]
    #[arg(long, value_name = "DIR")]
    core: Option<PathBuf>,
    /// The primary interface's link [default: the one with the MAC address that IMDS names]
    #[arg(long, value_name = "LINK")]
    primary: Option<String>,
}

/// The node could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// The agent would not start.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Where this program is.
    #[error(transparent)]
    Sources(#[from] InstallError),
    /// A plugin.
    #[error("{0}; is the node's directory mounted there (HOST_CNI_BIN_PATH)?")]
    Plugin(#[from] PlaceError),
    /// The primary interface.
    #[error("the primary interface is not found: {0}")]
    Primary(#[from] PrimaryError),
    /// A parameter.
    #[error("{0}, or the node's /proc/sys/net mounted at /host/proc/sys/net (VPCNET_PROC_SYS)")]
    Parameter(#[from] SysctlError),
}

/// Prepares the node.
///
/// # Errors
/// [`InitError`]. What was done until then stays; the next run does it again.
pub(crate) async fn run(options: Options) -> Result<ExitCode, InitError> {
    let tell = Teller::new("init");
    let config = install::environment()?;
    let (from, core) = install::sources(options.from, options.core)?;
    let to = &config.install.bin_dir;
    for name in CORE {
        place::copy(&core.join(name), &to.join(name), EXECUTABLE)?;
    }
    place::copy(&from.join(OWN), &to.join(OWN), EXECUTABLE)?;
    tell.say(format_args!(
        "{} and {OWN} are in {}",
        CORE.join(", "),
        to.display()
    ));

    let primary = primary::find(&config, options.primary.as_deref()).await?;
    if let Some(why) = primary.without_imds {
        tell.say(format_args!(
            "IMDS does not say which interface is the primary one ({why}); taking {}, which the default route leaves by",
            primary.link.name
        ));
    }
    let tree = Tree::of_the_host(config.host.proc_sys.as_deref());
    for parameter in parameters(&config, &primary.link.name) {
        if parameter.set(&tree)? {
            tell.say(format_args!("{} is now {}", parameter.key, parameter.value));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A kernel parameter and what it has to be.
#[derive(Debug, PartialEq, Eq)]
struct Parameter {
    key: String,
    value: &'static str,
    /// Not every kernel has it.
    optional: bool,
    /// Left alone where it has this value.
    unless: Option<&'static str>,
}

impl Parameter {
    fn of(key: impl Into<String>, value: &'static str) -> Self {
        Self {
            key: key.into(),
            value,
            optional: false,
            unless: None,
        }
    }

    /// Whether it was changed.
    fn set(&self, tree: &Tree) -> Result<bool, SysctlError> {
        let now = match tree.read(&self.key) {
            Err(error) if error.is_missing() && self.optional => return Ok(false),
            now => now?,
        };
        if now == self.value || Some(now.as_str()) == self.unless {
            return Ok(false);
        }
        tree.write(&self.key, self.value).map(|()| true)
    }
}

/// In the order in which they are set.
fn parameters(config: &Config, primary: &str) -> Vec<Parameter> {
    let early_demux = if config.install.tcp_early_demux { "1" } else { "0" };
    let mut all = vec![
        Parameter::of("net/ipv4/ip_forward", "1"),
        // Loose: replies of pods on further interfaces to NodePort clients come back by the primary.
        Parameter::of(format!("net/ipv4/conf/{primary}/rp_filter"), "2"),
        Parameter {
            optional: true,
            ..Parameter::of("net/ipv4/tcp_early_demux", early_demux)
        },
    ];
    if config.family == Family::V6 {
        all.push(Parameter::of("net/ipv6/conf/all/disable_ipv6", "0"));
    }
    if config.family == Family::V6 || config.egress.v6 {
        all.extend([
            // A router takes no advertisements unless told so, and the way out that it has from one would go with the next
            // line. Where none are taken anyway, another program looks after them.
            Parameter {
                unless: Some("0"),
                ..Parameter::of(format!("net/ipv6/conf/{primary}/accept_ra"), "2")
            },
            Parameter::of("net/ipv6/conf/all/forwarding", "1"),
        ]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Config {
        Config::read(&|name| {
            let found = variables.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_owned())
        })
        .unwrap()
    }

    fn wanted(variables: &[(&str, &str)]) -> Vec<(String, &'static str)> {
        let all = parameters(&config(variables), "ens5");
        all.into_iter().map(|p| (p.key, p.value)).collect()
    }

    fn tree(values: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for (key, value) in values {
            let path = dir.path().join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{value}\n")).unwrap();
        }
        let tree = Tree::at(dir.path());
        (dir, tree)
    }

    #[test]
    fn an_ipv4_node_forwards_with_a_loose_reverse_path() {
        let [forward, loose] = [
            ("net/ipv4/ip_forward".to_owned(), "1"),
            ("net/ipv4/conf/ens5/rp_filter".to_owned(), "2"),
        ];
        let demux = |value| ("net/ipv4/tcp_early_demux".to_owned(), value);
        assert_eq!(wanted(&[]), [forward.clone(), loose.clone(), demux("1")]);
        assert_eq!(
            wanted(&[("DISABLE_TCP_EARLY_DEMUX", "true")]),
            [forward, loose, demux("0")]
        );
    }

    #[test]
    fn with_ipv6_advertisements_are_kept_before_forwarding_ends_them() {
        let v6 = [("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true")];
        let last = |variables: &[(&str, &str)]| wanted(variables).split_off(3);
        let [on, ra, forward] = [
            ("net/ipv6/conf/all/disable_ipv6".to_owned(), "0"),
            ("net/ipv6/conf/ens5/accept_ra".to_owned(), "2"),
            ("net/ipv6/conf/all/forwarding".to_owned(), "1"),
        ];
        assert_eq!(last(&v6), [on, ra.clone(), forward.clone()]);
        assert_eq!(last(&[("ENABLE_V6_EGRESS", "true")]), [ra, forward]);
    }

    #[test]
    fn what_is_so_already_is_not_written_nor_what_another_program_looks_after() {
        let (_dir, tree) = tree(&[("a", "1"), ("b", "0")]);
        assert!(!Parameter::of("a", "1").set(&tree).unwrap());
        let kept = Parameter {
            unless: Some("0"),
            ..Parameter::of("b", "2")
        };
        assert!(!kept.set(&tree).unwrap());
        assert_eq!(tree.read("b").unwrap(), "0");
        assert!(Parameter::of("b", "2").set(&tree).unwrap());
        assert_eq!(tree.read("b").unwrap(), "2");
    }

    #[test]
    fn only_what_not_every_kernel_has_may_be_missing() {
        let (_dir, tree) = tree(&[]);
        let optional = Parameter {
            optional: true,
            ..Parameter::of("gone", "1")
        };
        assert!(!optional.set(&tree).unwrap());
        assert!(Parameter::of("gone", "1").set(&tree).unwrap_err().is_missing());
    }
}
