//! `Pod`: which object it is, and two annotations. The API server is asked for `metadata` alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::resource::{Name, Resource, or_default};

/// Annotation with the pod's address, where `ANNOTATE_POD_IP` is on.
pub const POD_IPS: &str = "vpc.amazonaws.com/pod-ips";
/// Annotation with the pod's branch interface, written by the controller of security groups for pods.
pub const POD_ENI: &str = "vpc.amazonaws.com/pod-eni";

/// The object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pod {
    /// All that is kept of it.
    pub metadata: PodMetadata,
}

/// `metadata` of a pod, without what nobody here reads: its labels and its other annotations are most of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMetadata {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Another pod of the same name has another one.
    pub uid: String,
    /// Changes with each change of the pod.
    pub resource_version: String,
    /// Those that somebody reads.
    #[serde(deserialize_with = "or_default")]
    pub annotations: PodAnnotations,
}

/// Annotations of a pod that somebody reads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PodAnnotations {
    /// [`POD_IPS`].
    #[serde(
        rename = "vpc.amazonaws.com/pod-ips",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub pod_ips: Option<String>,
    /// [`POD_ENI`].
    #[serde(
        rename = "vpc.amazonaws.com/pod-eni",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub pod_eni: Option<String>,
}

impl Resource for Pod {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const PLURAL: &'static str = "pods";
    const METADATA_ONLY: bool = true;

    fn name(&self) -> Name<'_> {
        Name {
            namespace: &self.metadata.namespace,
            name: &self.metadata.name,
            version: &self.metadata.resource_version,
        }
    }
}

/// A pod's branch interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchInterface {
    /// `eni-…`; empty where the annotation does not say.
    pub id: String,
    /// MAC address, as it is written.
    pub mac: String,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// VLAN on the trunk, 1 to 4094.
    pub vlan: u16,
    /// `10.0.1.0/24`; empty where the annotation does not say.
    pub subnet_cidr: String,
    /// The same for IPv6.
    pub subnet_v6_cidr: String,
}

/// The annotation does not describe a branch interface.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BranchError {
    /// No JSON list of objects.
    #[error("annotation vpc.amazonaws.com/pod-eni is no JSON list with an object: {0}")]
    Json(String),
    /// A field is missing or of no use.
    #[error("annotation vpc.amazonaws.com/pod-eni: {field}={value}: expected {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it should.
        expected: &'static str,
    },
}

impl PodAnnotations {
    /// The pod's branch interface: the first of the list. Names of fields are read in any case, because writers differ (`vlanId`,
    /// `vlanID`).
    ///
    /// # Errors
    /// [`BranchError`].
    pub fn branch(&self) -> Option<Result<BranchInterface, BranchError>> {
        self.pod_eni.as_deref().map(branch)
    }
}

fn branch(text: &str) -> Result<BranchInterface, BranchError> {
    let list: Vec<Map<String, Value>> =
        serde_json::from_str(text).map_err(|e| BranchError::Json(e.to_string()))?;
    let first = list
        .into_iter()
        .next()
        .ok_or_else(|| BranchError::Json("the list is empty".into()))?;
    let get = |name: &str| {
        // The exact name goes before its variants, whatever their order.
        let found = first.get(name);
        let found = found.or_else(|| {
            first
                .iter()
                .find(|(k, _)| k.eq_ignore_ascii_case(name))
                .map(|(_, v)| v)
        });
        found.cloned().unwrap_or(Value::Null)
    };
    let vlan = get("vlanId");
    let mac = string(&get("ifAddress"));
    if mac.is_empty() {
        return Err(wrong("ifAddress", &get("ifAddress"), "a MAC address"));
    }
    let ipv4 = address("privateIp", &get("privateIp"), "an IPv4 address", |a| match a {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    })?;
    let ipv6 = address("ipv6Addr", &get("ipv6Addr"), "an IPv6 address", |a| match a {
        IpAddr::V4(_) => None,
        IpAddr::V6(a) => Some(a),
    })?;
    if ipv4.is_none() && ipv6.is_none() {
        return Err(wrong(
            "privateIp",
            &Value::Null,
            "an address, here or in ipv6Addr",
        ));
    }
    Ok(BranchInterface {
        id: string(&get("eniId")),
        mac,
        ipv4,
        ipv6,
        vlan: vlan
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| (1..=4094).contains(n))
            .ok_or_else(|| wrong("vlanId", &vlan, "a number from 1 to 4094"))?,
        subnet_cidr: string(&get("subnetCidr")),
        subnet_v6_cidr: string(&get("subnetV6Cidr")),
    })
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn wrong(field: &'static str, value: &Value, expected: &'static str) -> BranchError {
    BranchError::Field {
        field,
        value: value.to_string(),
        expected,
    }
}

/// An address that may be left out, but not be another thing.
fn address<A>(
    field: &'static str,
    value: &Value,
    expected: &'static str,
    of: impl FnOnce(IpAddr) -> Option<A>,
) -> Result<Option<A>, BranchError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => match text.parse().ok().and_then(of) {
            Some(address) => Ok(Some(address)),
            None => Err(wrong(field, value, expected)),
        },
        _ => Err(wrong(field, value, expected)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let pod: Pod = serde_json::from_str(
            r#"{"kind": "PartialObjectMetadata", "metadata": {"name": "web-0", "namespace": "default", "uid": "u", "resourceVersion": "9",
                "labels": {"a": "b"}, "annotations": {"vpc.amazonaws.com/pod-ips": "10.0.0.1", "other": "long"}, "managedFields": [{}]}}"#,
        )
        .unwrap();
        assert_eq!(pod.metadata.annotations.pod_ips.as_deref(), Some("10.0.0.1"));
        let kept = serde_json::to_string(&pod).unwrap();
        assert!(!kept.contains("long") && !kept.contains("labels"), "{kept}");
        let bare: Pod = serde_json::from_str(r#"{"metadata": {"name": "a", "annotations": null}}"#).unwrap();
        assert_eq!(bare.metadata.annotations, PodAnnotations::default());
    }

    /// As the controller writes it, with the key of the VLAN as given.
    fn annotation(vlan: &str) -> String {
        format!(
            r#"[{{"eniId":"eni-1","ifAddress":"02:00:00:00:00:01","privateIp":"10.0.1.7","ipv6Addr":"","{vlan}":3,"subnetCidr":"10.0.1.0/24","subnetV6Cidr":""}}]"#
        )
    }

    #[test]
    fn a_branch_interface_is_read_whatever_the_case_of_its_fields() {
        for vlan in ["vlanId", "vlanID", "VLANID", "vlanid"] {
            let found = branch(&annotation(vlan)).unwrap();
            assert_eq!(
                (found.vlan, found.mac.as_str(), found.ipv4),
                (3, "02:00:00:00:00:01", Some(Ipv4Addr::new(10, 0, 1, 7)))
            );
            assert_eq!((found.ipv6, found.subnet_cidr.as_str()), (None, "10.0.1.0/24"));
        }
        let both = r#"[{"vlanID":9,"vlanId":3,"ifAddress":"02:00:00:00:00:01","ipv6Addr":"2001:db8::1"}]"#;
        assert_eq!(branch(both).unwrap().vlan, 3);
    }

    #[test]
    fn what_is_no_branch_interface_is_refused_with_its_field() {
        for (text, says) in [
            ("", "no JSON"),
            ("{}", "no JSON"),
            ("[]", "empty"),
            ("[7]", "no JSON"),
            (&annotation("other"), "vlanId=null"),
            (&annotation("vlanId").replace(":3", ":0"), "vlanId=0"),
            (&annotation("vlanId").replace(":3", ":4095"), "vlanId=4095"),
            (
                &annotation("vlanId").replace("10.0.1.7", "2001:db8::1"),
                "privateIp=",
            ),
            (&annotation("vlanId").replace("10.0.1.7", ""), "privateIp=null"),
            (
                &annotation("vlanId").replace("02:00:00:00:00:01", ""),
                "ifAddress",
            ),
        ] {
            let error = branch(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
