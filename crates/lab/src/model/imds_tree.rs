//! The metadata tree of one instance at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ids::InstanceId;
use super::rights::Credentials;
use super::state::{Attachment, Interface};
use super::vpc::Vpc;

/// Values by path below `/latest/`; directories are what paths have in common.
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// The tree of an instance with the interfaces it had at `moment`; `None`: there is no such instance.
    pub(crate) fn of(
        vpc: &Vpc,
        id: &InstanceId,
        moment: Duration,
        credentials: Option<&Credentials>,
    ) -> Option<Self> {
        let instance = vpc.instances.get(id).filter(|i| i.exists())?;
        let mut tree = Self(BTreeMap::new());
        let subnet = vpc.subnets.get(&instance.subnet)?;
        let region = &vpc.config.region;
        let mut interfaces = vpc.interfaces.as_of(moment);
        interfaces.retain(|i| i.linked().is_some_and(|a| a.instance == *id));
        let primary = interfaces
            .iter()
            .find(|i| i.id == instance.primary)
            .cloned()
            .or_else(|| {
                // The instance is younger than the moment: its primary interface was there from its start.
                vpc.interfaces.get(&instance.primary).cloned()
            })?;
        if interfaces.is_empty() {
            interfaces.push(primary.clone());
        }

        let address = primary.primary.map(|a| a.to_string()).unwrap_or_default();
        let name = primary.primary.map(|a| vpc.private_name(a)).unwrap_or_default();
        let groups: Vec<String> = primary.groups.iter().map(|g| vpc.group_name(g)).collect();
        tree.put("ami-id", &instance.image);
        tree.put("ami-launch-index", &instance.launch_index.to_string());
        tree.put("ami-manifest-path", "(unknown)");
        tree.put("block-device-mapping/ami", "/dev/xvda");
        tree.put("block-device-mapping/root", "/dev/xvda");
        tree.put("hostname", &name);
        tree.put("instance-action", "none");
        tree.put("instance-id", id.as_str());
        tree.put("instance-life-cycle", "on-demand");
        tree.put("instance-type", &instance.instance_type);
        tree.put("local-hostname", &name);
        tree.put("local-ipv4", &address);
        tree.put("mac", &primary.mac.to_string());
        tree.put("placement/availability-zone", &subnet.zone);
        tree.put("placement/availability-zone-id", &subnet.zone_id);
        tree.put("placement/region", region);
        tree.put("profile", "default-hvm");
        tree.put("reservation-id", &instance.reservation);
        tree.put("security-groups", &groups.join("\n"));
        tree.put("services/domain", "amazonaws.com");
        tree.put("services/partition", "aws");
        tree.put("system", "nitro");
        if let Some(ipv6) = primary.ipv6.addresses.first() {
            tree.put("ipv6", &ipv6.to_string());
        }
        if let Some(public) = primary.public {
            tree.put("public-hostname", &vpc.public_name(public));
            tree.put("public-ipv4", &public.to_string());
        }
        for interface in &interfaces {
            if let Some(attachment) = interface.linked() {
                tree.put_interface(vpc, interface, attachment, &instance.instance_type);
            }
        }
        if let (Some(role), Some(credentials)) = (&instance.role, credentials) {
            tree.put_role(vpc, role, credentials);
        }
        let pending = vpc.moment(instance.launched).replace(".000Z", "Z");
        tree.put_document(vpc, instance, &subnet.zone, &address, &pending);
        Some(tree)
    }

    fn put(&mut self, path: &str, value: &str) {
        self.0.insert(format!("meta-data/{path}"), value.to_owned());
    }

    fn put_interface(&mut self, vpc: &Vpc, interface: &Interface, attachment: &Attachment, kind: &str) {
        let base = format!("network/interfaces/macs/{}", interface.mac);
        let mut put = |field: &str, value: String| self.put(&format!("{base}/{field}"), &value);
        put("device-number", attachment.device_index.to_string());
        put("interface-id", interface.id.to_string());
        put("mac", interface.mac.to_string());
        put("owner-id", vpc.config.account.clone());
        put("security-group-ids", lines(&interface.groups));
        let names: Vec<String> = interface.groups.iter().map(|g| vpc.group_name(g)).collect();
        put("security-groups", names.join("\n"));
        put("subnet-id", interface.subnet.to_string());
        put("vpc-id", vpc.id.to_string());
        put("vpc-ipv4-cidr-block", vpc.config.cidr.to_string());
        put("vpc-ipv4-cidr-blocks", lines(&vpc.cidrs()));
        if let Some(subnet) = vpc.subnets.get(&interface.subnet) {
            put("subnet-ipv4-cidr-block", subnet.cidr.to_string());
            if let Some(cidr) = subnet.ipv6 {
                put("subnet-ipv6-cidr-blocks", cidr.to_string());
            }
        }
        // Only types with several cards have this field.
        if vpcnet_limits::lookup(kind).is_some_and(|l| l.cards.len() > 1) {
            put("network-card", attachment.card.to_string());
        }
        if let Some(primary) = interface.primary {
            put("local-hostname", vpc.private_name(primary));
            let addresses: Vec<_> = interface.addresses().collect();
            put("local-ipv4s", lines(&addresses));
        }
        if !interface.prefixes.is_empty() {
            put("ipv4-prefix", lines(&interface.prefixes));
        }
        if let Some(cidr) = vpc.config.ipv6 {
            put("vpc-ipv6-cidr-blocks", cidr.to_string());
        }
        if !interface.ipv6.addresses.is_empty() {
            put("ipv6s", lines(&interface.ipv6.addresses));
        }
        if !interface.ipv6.prefixes.is_empty() {
            put("ipv6-prefix", lines(&interface.ipv6.prefixes));
        }
        if let (Some(public), Some(private)) = (interface.public, interface.primary) {
            put(&format!("ipv4-associations/{public}"), private.to_string());
            put("public-hostname", vpc.public_name(public));
            put("public-ipv4s", public.to_string());
        }
    }

    fn put_role(&mut self, vpc: &Vpc, role: &str, credentials: &Credentials) {
        let updated = vpc.moment(credentials.issued).replace(".000Z", "Z");
        let expires = vpc
            .moment(credentials.expires.unwrap_or_default())
            .replace(".000Z", "Z");
        let account = &vpc.config.account;
        let info = serde_json::json!({
            "Code": "Success",
            "LastUpdated": updated,
            "InstanceProfileArn": format!("arn:aws:iam::{account}:instance-profile/{role}"),
            "InstanceProfileId": "AIPAVPCNETLAB00000001",
        });
        self.put("iam/info", &pretty(&info));
        let secret = serde_json::json!({
            "Code": "Success",
            "LastUpdated": updated,
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key,
            "SecretAccessKey": credentials.secret_key,
            "Token": credentials.session_token,
            "Expiration": expires,
        });
        self.put(&format!("iam/security-credentials/{role}"), &pretty(&secret));
    }

    fn put_document(
        &mut self,
        vpc: &Vpc,
        instance: &super::state::Instance,
        zone: &str,
        address: &str,
        pending: &str,
    ) {
        let document = serde_json::json!({
            "accountId": vpc.config.account,
            "architecture": "x86_64",
            "availabilityZone": zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "imageId": instance.image,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "kernelId": null,
            "marketplaceProductCodes": null,
            "pendingTime": pending,
            "privateIp": address,
            "ramdiskId": null,
            "region": vpc.config.region,
            "version": "2017-09-30",
        });
        self.0
            .insert("dynamic/instance-identity/document".to_owned(), pretty(&document));
    }

    /// The value at a path below the version, or the listing of a directory; either with or without a slash at its end,
    /// as botocore asks for its zone with one.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let trimmed = path.trim_end_matches('/');
        if let Some(value) = self.0.get(trimmed) {
            return Some(value.clone());
        }
        let start = if trimmed.is_empty() {
            String::new()
        } else {
            format!("{trimmed}/")
        };
        let names: BTreeSet<String> = self
            .0
            .range(start.clone()..)
            .take_while(|(p, _)| p.starts_with(&start))
            .filter_map(|(p, _)| p.strip_prefix(&start))
            .map(|rest| {
                rest.split_once('/')
                    .map_or_else(|| rest.to_owned(), |(dir, _)| format!("{dir}/"))
            })
            .collect();
        // At the root IMDS lists its two directories without their slash.
        let names: Vec<String> = names
            .into_iter()
            .map(|n| {
                if start.is_empty() {
                    n.trim_end_matches('/').to_owned()
                } else {
                    n
                }
            })
            .collect();
        if names.is_empty() {
            None
        } else {
            Some(names.join("\n"))
        }
    }
}

fn lines<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
