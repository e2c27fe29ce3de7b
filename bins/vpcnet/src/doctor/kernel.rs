//! What the kernel and the image have of what the agent needs, and what is there already.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::process::Command;
use vpcnet_config::{Config, Family};
use vpcnet_linux::netlink::Socket;
use vpcnet_linux::original::{Found, Programs};
use vpcnet_linux::{observe, original};

use super::Findings;
use crate::program;

const LIMIT: Duration = Duration::from_secs(10);
/// The first kernel with all that is used: NAT chains of nftables that do not need the older tables' module.
const LEAST: (u32, u32) = (4, 18);
/// Below it a link's index takes one more question; no more than that.
const ECHO: (u32, u32) = (6, 2);
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const OWN: &str = "/proc/sys";
const MOUNTED: &str = "/host/proc/sys";

/// Looks.
pub(super) async fn look(config: &Config) -> Findings {
    let mut found = Findings::of("kernel");
    release(&mut found);
    nft(&mut found).await;
    parameters(&mut found, config);
    present(&mut found, config);
    found
}

fn release(found: &mut Findings) {
    let release = match std::fs::read_to_string(RELEASE) {
        Ok(release) => release.trim().to_owned(),
        Err(error) => return found.warn(format!("{RELEASE}: {error}"), ""),
    };
    match number(&release) {
        None => found.warn(format!("kernel {release}: its release is no number"), ""),
        Some(n) if n < LEAST => found.problem(
            format!("kernel {release} is older than {}.{}", LEAST.0, LEAST.1),
            "use an image with a newer kernel",
        ),
        Some(n) if n < ECHO => found.note(format!(
            "kernel {release}: adding a pod takes one question more than from 6.2 on"
        )),
        Some(_) => found.ok(format!("kernel {release}")),
    }
}

fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

async fn nft(found: &mut Findings) {
    let mut command = Command::new("nft");
    command.args(["-j", "list", "tables"]);
    match program::run(&mut command, b"", LIMIT).await {
        Ok(output) if output.status.success() => {
            found.ok("nftables can be used: nft is there, and the kernel answers it")
        }
        Ok(output) => found.problem(
            format!("nft fails: {}", String::from_utf8_lossy(&output.stderr).trim()),
            "the agent needs CAP_NET_ADMIN and a kernel with nf_tables (CONFIG_NF_TABLES, CONFIG_NFT_NAT)",
        ),
        Err(error) => found.problem(
            format!("nft cannot be run: {error}"),
            "it is in the image; elsewhere install the package nftables",
        ),
    }
}

fn parameters(found: &mut Findings, config: &Config) {
    let told = config.host.proc_sys.as_deref();
    let root = match told {
        Some(root) => root,
        None if Path::new(MOUNTED).join("net").is_dir() => Path::new(MOUNTED),
        None => Path::new(OWN),
    };
    let key = root.join("net/ipv4/ip_forward");
    match access(&key, Access::WRITE_OK) {
        Ok(()) => found.ok(format!("kernel parameters can be written at {}", root.display())),
        Err(error) => found.problem(
            format!("{} cannot be written: {error}", key.display()),
            "mount the node's /proc/sys/net at /host/proc/sys/net, or say where it is with VPCNET_PROC_SYS; it takes CAP_NET_ADMIN too",
        ),
    }
    if (config.family == Family::V6 || config.egress.v6) && !root.join("net/ipv6").is_dir() {
        found.problem(
            "the settings ask for IPv6, and the kernel has none",
            "boot without ipv6.disable=1",
        );
    }
}

/// What of amazon-vpc-cni-k8s, and of pods, is on this node: that is what would be taken over.
fn present(found: &mut Findings, config: &Config) {
    match Found::look(&Programs::default()) {
        Ok(there) => {
            if let Some(error) = there.unread() {
                found.warn(
                    format!("what the kernel's older tables hold is not known: {error}"),
                    "use the image, which has xtables-legacy-multi",
                );
            }
            if there.is_nothing() {
                found.ok("no chains of amazon-vpc-cni-k8s are here");
            } else {
                found.note("chains of amazon-vpc-cni-k8s are here: they are taken over at the agent's start, without breaking connections (docs/migration.md)");
            }
        }
        Err(error) => found.problem(
            format!("the packet filter cannot be read: {error}"),
            "CAP_NET_ADMIN is needed",
        ),
    }
    let pods = Socket::open().and_then(|mut socket| {
        let pods = observe::pods(&mut socket, &[config.host.veth_prefix.as_str()])?;
        Ok((pods, original::old_rules(&mut socket)?))
    });
    match pods {
        Ok((pods, old)) => {
            let n = pods.veths.len();
            if n > 0 {
                found.note(format!(
                    "{n} pods with links {}… run here: they keep their addresses",
                    config.host.veth_prefix
                ));
            }
            if !old.is_empty() {
                found.note(format!(
                    "rules of {} pods are of a very old release: they are brought to today's form",
                    old.len()
                ));
            }
        }
        Err(error) => found.problem(
            format!("links cannot be listed: {error}"),
            "CAP_NET_ADMIN is needed",
        ),
    }
    let checkpoint = &config.checkpoint;
    if checkpoint.exists() {
        found.note(format!(
            "{} is here: its owners are taken over",
            checkpoint.display()
        ));
    }
    if std::os::unix::net::UnixStream::connect(&config.socket).is_ok() {
        found.note(format!(
            "an agent serves {}: one runs at a time, so stop it before another one starts",
            config.socket.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(number("6.18.5"), Some((6, 18)));
        assert_eq!(number("5.10.0-28-cloud-amd64"), Some((5, 10)));
        assert_eq!(number("4.18-rc1"), Some((4, 18)));
        assert_eq!(number("next"), None);
    }
}
