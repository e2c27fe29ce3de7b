//! What the instance is: read once at start.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::interface::{is_mac, parse_list, parse_one, path_of};
use super::{Imds, ImdsError};

/// The instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceIdentity {
    /// `eu-west-1`
    pub region: String,
    /// `eu-west-1a`
    pub availability_zone: String,
    /// `i-…`
    pub instance_id: String,
    /// `m5.large`
    pub instance_type: String,
    /// The primary interface's MAC, lower case.
    pub mac: String,
    /// The primary interface's primary address: the node's own.
    pub local_ipv4: Ipv4Addr,
}

/// The instance and where its primary interface is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceFacts {
    /// The instance.
    pub identity: InstanceIdentity,
    /// The primary interface, `eni-…`.
    pub interface_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// The subnet's VPC.
    pub vpc_id: String,
    /// The VPC's IPv4 ranges, in IMDS's order.
    pub vpc_ipv4_cidrs: Vec<Ipv4Net>,
    /// The primary interface's security groups.
    pub security_groups: Vec<String>,
}

impl Imds {
    /// Who this instance is.
    ///
    /// # Errors
    /// If IMDS does not answer, or a value is missing or not of its form.
    pub async fn identity(&self) -> Result<InstanceIdentity, ImdsError> {
        let mac = self
            .require("mac")
            .await?
            .trim_end_matches('/')
            .to_ascii_lowercase();
        if !is_mac(&mac) {
            return Err(ImdsError::Malformed {
                path: "mac".to_owned(),
                reason: "it is no MAC address".to_owned(),
            });
        }
        Ok(InstanceIdentity {
            region: self.region().await?,
            availability_zone: self.word("placement/availability-zone").await?,
            instance_id: self.word("instance-id").await?,
            instance_type: self.word("instance-type").await?,
            mac,
            local_ipv4: parse_one("local-ipv4", &self.require("local-ipv4").await?)?,
        })
    }

    /// Everything about this instance that does not change while it runs, and the VPC's ranges and security groups as they are now.
    ///
    /// # Errors
    /// As [`Imds::identity`].
    pub async fn instance_facts(&self) -> Result<InstanceFacts, ImdsError> {
        let identity = self.identity().await?;
        let mac = identity.mac.clone();
        Ok(InstanceFacts {
            identity,
            interface_id: self.word(&path_of(&mac, "interface-id")).await?,
            subnet_id: self.word(&path_of(&mac, "subnet-id")).await?,
            vpc_id: self.word(&path_of(&mac, "vpc-id")).await?,
            vpc_ipv4_cidrs: self.vpc_ipv4_cidrs(&mac).await?,
            security_groups: self.security_groups(&mac).await?,
        })
    }

    /// The IPv4 ranges of the VPC that the interface is in; never empty.
    ///
    /// # Errors
    /// Also if IMDS has none: an empty answer must not be taken for a VPC without ranges.
    pub async fn vpc_ipv4_cidrs(&self, mac: &str) -> Result<Vec<Ipv4Net>, ImdsError> {
        let path = path_of(mac, "vpc-ipv4-cidr-blocks");
        let found = parse_list(&path, &self.require(&path).await?)?;
        if found.is_empty() {
            Err(ImdsError::Missing { path })
        } else {
            Ok(found)
        }
    }

    /// The primary interface's own IPv6 address; `None`: it has none.
    ///
    /// # Errors
    /// If IMDS does not answer, or with something else than an address.
    pub async fn primary_ipv6(&self) -> Result<Option<Ipv6Addr>, ImdsError> {
        let found = self.get("ipv6").await?;
        found.map(|text| parse_one("ipv6", text.trim())).transpose()
    }

    /// The IPv6 ranges of the VPC that the interface is in; empty where it has none.
    ///
    /// # Errors
    /// If IMDS does not answer, or with something else than ranges.
    pub async fn vpc_ipv6_cidrs(&self, mac: &str) -> Result<Vec<Ipv6Net>, ImdsError> {
        let path = path_of(mac, "vpc-ipv6-cidr-blocks");
        parse_list(&path, &self.get(&path).await?.unwrap_or_default())
    }

    /// The security groups of the interface; never empty.
    ///
    /// # Errors
    /// Also if IMDS has none.
    pub async fn security_groups(&self, mac: &str) -> Result<Vec<String>, ImdsError> {
        let path = path_of(mac, "security-group-ids");
        groups(&path, &self.require(&path).await?)
    }

    /// The region: its own path, or, where IMDS is older than that, the identity document, which the AWS VPC CNI reads.
    async fn region(&self) -> Result<String, ImdsError> {
        #[derive(Deserialize)]
        struct Document {
            region: String,
        }
        match self.word("placement/region").await {
            Err(ImdsError::Missing { .. }) => {}
            found => return found,
        }
        let path = "/latest/dynamic/instance-identity/document";
        let text = self.require(path).await?;
        let document: Document = serde_json::from_str(&text).map_err(|cause| ImdsError::Malformed {
            path: path.to_owned(),
            reason: format!("no region can be read from it ({cause})"),
        })?;
        Ok(document.region)
    }

    /// A value that is one word of letters, digits, `-`, `.` and `_`.
    pub(super) async fn word(&self, path: &str) -> Result<String, ImdsError> {
        let text = self.require(path).await?;
        plain_word(path, &text)?;
        Ok(text)
    }
}

/// Whether a value is one word of letters, digits, `-`, `.` and `_`.
pub(super) fn plain_word(path: &str, text: &str) -> Result<(), ImdsError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if text.is_empty() || text.len() > 128 || !text.bytes().all(plain) {
        let reason = "it is not one plain word".to_owned();
        return Err(ImdsError::Malformed {
            path: path.to_owned(),
            reason,
        });
    }
    Ok(())
}

/// Security groups, as a list of plain words that begin with `sg-`; never empty.
pub(super) fn groups(path: &str, text: &str) -> Result<Vec<String>, ImdsError> {
    let found: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let path = path.to_owned();
    let is_one = |id: &String| id.starts_with("sg-") && plain_word(&path, id).is_ok();
    match found.iter().find(|id| !is_one(id)) {
        Some(_) => Err(ImdsError::Malformed {
            path,
            reason: "it does not list security groups (sg-…)".to_owned(),
        }),
        None if found.is_empty() => Err(ImdsError::Missing { path }),
        None => Ok(found),
    }
}
