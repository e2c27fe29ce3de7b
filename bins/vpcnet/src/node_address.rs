//! The node's address of the family that pods do not have: what they are seen by from outside when they reach that family.

use std::net::IpAddr;

use vpcnet_config::{Config, Family};
use vpcnet_linux::netlink::{Scope, Socket};

use crate::install::Teller;
use crate::primary;

/// The address; none where the primary interface has no IPv6 address, which is said.
///
/// # Errors
/// It cannot be found out now, or there has to be one.
pub(crate) async fn other_family(config: &Config, tell: &Teller) -> Result<Option<IpAddr>, String> {
    let (v6, key) = match config.family {
        Family::V6 => (false, "local-ipv4"),
        Family::V4 => (true, "ipv6"),
    };
    let imds = primary::imds(config).map_err(|e| e.to_string())?;
    let said = match imds.get(key).await {
        Ok(said) => said,
        Err(error) => {
            let shown = by_the_kernel(config, v6).await?;
            return shown.map(Some).ok_or_else(|| {
                format!("the node's address for egress: IMDS does not say it ({error}), nor does the primary interface show one")
            });
        }
    };
    let address = match said.as_deref().map(str::parse::<IpAddr>) {
        Some(Ok(address)) if address.is_ipv6() == v6 => Some(address),
        Some(_) => {
            return Err(format!(
                "the node's address for egress: IMDS says {key} {:?}, which is none",
                said.unwrap_or_default()
            ));
        }
        None => None,
    };
    match (address, config.family) {
        (None, Family::V6) => Err(
            "the node's address for egress: IMDS knows of no IPv4 address, which every instance has".into(),
        ),
        (None, Family::V4) => {
            tell.say("ENABLE_V6_EGRESS has no effect: the primary interface has no IPv6 address");
            Ok(None)
        }
        (address, _) => Ok(address),
    }
}

async fn by_the_kernel(config: &Config, v6: bool) -> Result<Option<IpAddr>, String> {
    let primary = primary::find(config, None).await.map_err(|e| e.to_string())?;
    let mut socket = Socket::open().map_err(|e| e.to_string())?;
    let addresses = socket
        .addresses(Some(primary.link.index))
        .map_err(|e| e.to_string())?;
    let mut global = addresses
        .iter()
        .filter(|a| a.index == primary.link.index && a.scope == Scope::Universe)
        .map(|a| a.net.addr());
    Ok(global.find(|address| address.is_ipv6() == v6))
}
