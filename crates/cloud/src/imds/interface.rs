//! The instance's interfaces as IMDS shows them.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Imds, ImdsError};

const MACS: &str = "network/interfaces/macs";

/// An interface. Lists are in IMDS's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImdsInterface {
    /// `eni-…`
    pub id: String,
    /// Lower case.
    pub mac: String,
    /// Whether it is the instance's primary interface; its device and card are 0.
    pub primary: bool,
    /// Place on its network card.
    pub device: u32,
    /// Network card; 0 where IMDS does not say.
    pub card: u32,
    /// Its subnet.
    pub subnet_id: String,
    /// The subnet's IPv4 range.
    pub subnet_ipv4_cidr: Option<Ipv4Net>,
    /// The subnet's IPv6 ranges.
    pub subnet_ipv6_cidrs: Vec<Ipv6Net>,
    /// IPv4 addresses, the primary one first. Empty on interfaces for EFA only, or while IMDS lags.
    pub local_ipv4s: Vec<Ipv4Addr>,
    /// Delegated /28 prefixes.
    pub ipv4_prefixes: Vec<Ipv4Net>,
    /// IPv6 addresses.
    pub ipv6s: Vec<Ipv6Addr>,
    /// Delegated /80 prefixes.
    pub ipv6_prefixes: Vec<Ipv6Net>,
}

impl ImdsInterface {
    /// The primary IPv4 address.
    pub fn primary_ipv4(&self) -> Option<Ipv4Addr> {
        self.local_ipv4s.first().copied()
    }
}

/// An interface that IMDS lists and does not describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedInterface {
    /// As IMDS lists it.
    pub mac: String,
    /// What is missing or wrong.
    pub cause: ImdsError,
}

/// Every interface IMDS shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InterfaceListing {
    /// Those it describes.
    pub interfaces: Vec<ImdsInterface>,
    /// Those it does not: on their way in or out. That one is here says neither that it is attached nor that it is gone.
    pub skipped: Vec<SkippedInterface>,
}

/// The path of a field of an interface.
pub(super) fn path_of(mac: &str, field: &str) -> String {
    format!("{MACS}/{mac}/{field}")
}

/// Whether a text is six bytes in hexadecimal with colons between.
pub(super) fn is_mac(text: &str) -> bool {
    let mut parts = 0;
    text.split(':').all(|part| {
        parts += 1;
        part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit())
    }) && parts == 6
}

pub(super) fn parse_one<T>(path: &str, text: &str) -> Result<T, ImdsError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|cause: T::Err| ImdsError::Malformed {
        path: path.to_owned(),
        reason: cause.to_string(),
    })
}

pub(super) fn parse_list<T>(path: &str, text: &str) -> Result<Vec<T>, ImdsError>
where
    T: FromStr,
    T::Err: Display,
{
    text.split_whitespace()
        .map(|word| parse_one(path, word))
        .collect()
}

impl Imds {
    /// Every interface of the instance.
    ///
    /// Attaching and detaching race with this listing: an interface whose fields are not there, or cannot be read, is reported as skipped.
    ///
    /// # Errors
    /// If the list itself cannot be read, or IMDS stops answering.
    pub async fn interfaces(&self) -> Result<InterfaceListing, ImdsError> {
        let primary = self
            .require("mac")
            .await?
            .trim_end_matches('/')
            .to_ascii_lowercase();
        let macs = self.require(MACS).await?;
        let mut listing = InterfaceListing::default();
        for entry in macs.split_whitespace() {
            let mac = entry.trim_end_matches('/').to_ascii_lowercase();
            match self.read_interface(&mac, mac == primary).await {
                Ok(interface) => listing.interfaces.push(interface),
                Err(cause) if cause.is_about_one_thing() => {
                    listing.skipped.push(SkippedInterface {
                        mac: entry.to_owned(),
                        cause,
                    });
                }
                Err(cause) => return Err(cause),
            }
        }
        if listing.interfaces.is_empty() && listing.skipped.is_empty() {
            let reason = "it lists no interface, and every instance has one".to_owned();
            return Err(ImdsError::Malformed {
                path: MACS.to_owned(),
                reason,
            });
        }
        Ok(listing)
    }

    /// One interface.
    ///
    /// # Errors
    /// Also [`ImdsError::Missing`] if IMDS does not show it, or not all of it yet.
    pub async fn interface(&self, mac: &str) -> Result<ImdsInterface, ImdsError> {
        let primary = self.require("mac").await?;
        let mac = mac.to_ascii_lowercase();
        let is_primary = primary.trim_end_matches('/').eq_ignore_ascii_case(&mac);
        self.read_interface(&mac, is_primary).await
    }

    /// The MACs IMDS lists, lower case.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub async fn macs(&self) -> Result<Vec<String>, ImdsError> {
        let macs = self.require(MACS).await?;
        Ok(macs
            .split_whitespace()
            .map(|mac| mac.trim_end_matches('/').to_ascii_lowercase())
            .collect())
    }

    async fn read_interface(&self, mac: &str, primary: bool) -> Result<ImdsInterface, ImdsError> {
        if !is_mac(mac) {
            let reason = "one of its entries is no MAC address".to_owned();
            return Err(ImdsError::Malformed {
                path: MACS.to_owned(),
                reason,
            });
        }
        let id_path = path_of(mac, "interface-id");
        let id = self.word(&id_path).await?;
        if !id.starts_with("eni-") {
            return Err(ImdsError::Malformed {
                path: id_path,
                reason: "it is no interface id (eni-…)".to_owned(),
            });
        }
        let device_path = path_of(mac, "device-number");
        let mut device = parse_one(&device_path, &self.require(&device_path).await?)?;
        let fields_path = path_of(mac, "");
        let fields = self.require(&fields_path).await?;
        let local_ipv4s = self.listed(mac, &fields, "local-ipv4s").await?;
        let ipv6s = self.listed(mac, &fields, "ipv6s").await?;
        let mut card = self
            .listed(mac, &fields, "network-card")
            .await?
            .first()
            .copied()
            .unwrap_or(0);
        let subnet_id = self.word(&path_of(mac, "subnet-id")).await?;
        let subnet_ipv4_cidr = self
            .listed(mac, &fields, "subnet-ipv4-cidr-block")
            .await?
            .first()
            .copied();
        let subnet_ipv6_cidrs = self.listed(mac, &fields, "subnet-ipv6-cidr-blocks").await?;
        let ipv4_prefixes = self.listed(mac, &fields, "ipv4-prefix").await?;
        let ipv6_prefixes = self.listed(mac, &fields, "ipv6-prefix").await?;
        if primary && (device, card) != (0, 0) {
            tracing::warn!(
                mac,
                device,
                card,
                "IMDS gives the primary interface another place than device 0 of card 0: ignored"
            );
            (device, card) = (0, 0);
        }
        Ok(ImdsInterface {
            id,
            mac: mac.to_owned(),
            primary,
            device,
            card,
            subnet_id,
            subnet_ipv4_cidr,
            subnet_ipv6_cidrs,
            local_ipv4s,
            ipv4_prefixes,
            ipv6s,
            ipv6_prefixes,
        })
    }

    /// The values of a field. A field that is not among those listed is not asked for: most interfaces lack most of them.
    async fn listed<T>(&self, mac: &str, fields: &str, name: &str) -> Result<Vec<T>, ImdsError>
    where
        T: FromStr,
        T::Err: Display,
    {
        if !fields
            .split_whitespace()
            .any(|field| field.trim_end_matches('/') == name)
        {
            return Ok(Vec::new());
        }
        let path = path_of(mac, name);
        parse_list(&path, &self.get(&path).await?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_six_bytes() {
        assert!(is_mac("06:aa:BB:00:11:22"));
        for bad in [
            "",
            "06:aa:bb:00:11",
            "06:aa:bb:00:11:22:33",
            "06-aa-bb-00-11-22",
            "6:aa:bb:00:11:22",
            "06:aa:bb:00:11:zz",
        ] {
            assert!(!is_mac(bad), "{bad}");
        }
    }
}
