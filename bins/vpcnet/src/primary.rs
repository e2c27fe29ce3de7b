//! The node's primary interface: the link with the MAC address that IMDS calls the instance's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vpcnet_cloud::{Imds, ImdsConfig, process_environment};
use vpcnet_config::Config;
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{Link, NetlinkError, Socket};

/// Of documentation (RFC 5737, RFC 3849): the way there is the default route.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// It is not known which link it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrimaryError {
    /// The kernel does not say.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting for IMDS.
    #[error(transparent)]
    Imds(#[from] vpcnet_cloud::ConfigError),
    /// IMDS names a MAC that no link has.
    #[error(
        "IMDS says that the primary interface has the MAC address {mac}, and no link has it (there are {links}); does this run in the node's network namespace (hostNetwork: true)?"
    )]
    NoLink {
        /// What IMDS says.
        mac: String,
        /// What there is.
        links: String,
    },
    /// The one that was named is not there.
    #[error("there is no link {name} (there are {links})")]
    NotThere {
        /// What was said.
        name: String,
        /// What there is.
        links: String,
    },
    /// IMDS is away, and nothing else shows it.
    #[error(
        "IMDS does not say which interface is the primary one ({imds}), and there is no default route (links: {links}); is 169.254.169.254 reached from here? --primary names the link otherwise"
    )]
    Unknown {
        /// Why IMDS does not.
        imds: String,
        /// What there is.
        links: String,
    },
}

/// IMDS by the settings.
///
/// # Errors
/// An endpoint that is none.
pub(crate) fn imds(config: &Config) -> Result<Imds, vpcnet_cloud::ConfigError> {
    let mut imds = ImdsConfig::from_environment(&process_environment);
    imds.endpoint = config.cloud.imds_endpoint.clone().or(imds.endpoint);
    Imds::with_config(imds)
}

/// The primary interface's link, and why IMDS was not believed, if it was not.
pub(crate) struct Primary {
    /// The link.
    pub(crate) link: Link,
    /// It was found by the default route, because of this.
    pub(crate) without_imds: Option<String>,
}

/// Finds it: by its name, if that was said; by IMDS; where IMDS does not answer, by the default route, since a node has to come
/// up again without IMDS too.
///
/// # Errors
/// [`PrimaryError`].
pub(crate) async fn find(config: &Config, told: Option<&str>) -> Result<Primary, PrimaryError> {
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    if let Some(name) = told {
        let link = links.iter().find(|link| link.name == name);
        let link = link.cloned().ok_or_else(|| PrimaryError::NotThere {
            name: name.to_owned(),
            links: listed(&links),
        })?;
        return Ok(Primary {
            link,
            without_imds: None,
        });
    }
    match imds(config)?.require("mac").await {
        Ok(mac) => Ok(Primary {
            link: with_mac(&links, &mac)?,
            without_imds: None,
        }),
        Err(error) => {
            let imds = error.to_string();
            let index = default_route(&mut socket)?;
            let link = links.iter().find(|link| Some(link.index) == index).cloned();
            let link = link.ok_or_else(|| PrimaryError::Unknown {
                imds: imds.clone(),
                links: listed(&links),
            })?;
            Ok(Primary {
                link,
                without_imds: Some(imds),
            })
        }
    }
}

fn with_mac(links: &[Link], said: &str) -> Result<Link, PrimaryError> {
    let mac: Option<Mac> = said.trim().parse().ok();
    let link = links.iter().find(|link| mac.is_some() && link.mac == mac);
    link.cloned().ok_or_else(|| PrimaryError::NoLink {
        mac: said.to_owned(),
        links: listed(links),
    })
}

fn default_route(socket: &mut Socket) -> Result<Option<u32>, NetlinkError> {
    for address in ANYWHERE {
        // An unreachable network is an answer too: there is none in this family.
        let Ok(Some(route)) = socket.route_to(address) else {
            continue;
        };
        if let Some(device) = route.device {
            return Ok(Some(device.index));
        }
    }
    Ok(None)
}

fn listed(links: &[Link]) -> String {
    let links = links.iter().filter(|link| !link.loopback);
    let names: Vec<String> = links
        .map(|link| match link.mac {
            Some(mac) => format!("{} {mac}", link.name),
            None => link.name.clone(),
        })
        .collect();
    if names.is_empty() {
        "none but loopback".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, mac: Option<&str>) -> Link {
        Link {
            index,
            name: name.into(),
            mac: mac.map(|mac| mac.parse().unwrap()),
            mtu: 9001,
            up: true,
            loopback: name == "lo",
            kind: None,
        }
    }

    #[test]
    fn the_link_is_found_by_its_mac_and_never_by_having_none() {
        let links = [
            link(1, "lo", None),
            link(2, "ens5", Some("02:00:00:00:00:05")),
            link(3, "ens6", Some("02:00:00:00:00:06")),
        ];
        assert_eq!(with_mac(&links, "02:00:00:00:00:06\n").unwrap().name, "ens6");
        for said in ["02:00:00:00:00:07", "", "<html>"] {
            let error = with_mac(&links, said).unwrap_err().to_string();
            assert!(
                error.contains("ens5 02:00:00:00:00:05, ens6 02:00:00:00:00:06") && error.contains(said),
                "{error}"
            );
        }
        let error = with_mac(&links[..1], "02:00:00:00:00:07")
            .unwrap_err()
            .to_string();
        assert!(error.contains("none but loopback"), "{error}");
    }
}
