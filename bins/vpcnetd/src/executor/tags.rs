//! Tags of interfaces that are there. What is made here has them from the start; the primary interface, and what others attached,
//! may lack them, and policies that let a node touch only its cluster's interfaces go by them. They are put right by cause: where a
//! list of what is attached shows that they are missing, and when EC2 refuses a call about an interface.

use std::collections::BTreeMap;

use vpcnet_cloud::{Ec2, Ec2Error, NetworkInterface, Tag};
use vpcnet_ipam::EniId;

use super::delete::look;
use super::{Cloud, Failure};

/// EC2's code for what a policy does not allow.
const NOT_ALLOWED: &str = "UnauthorizedOperation";

/// Tags that are not there or have another value, in the order of their keys.
#[must_use]
pub fn missing(wanted: &BTreeMap<String, String>, eni: &NetworkInterface) -> Vec<Tag> {
    wanted
        .iter()
        .filter(|(key, value)| eni.tag(key) != Some(value.as_str()))
        .map(|(key, value)| Tag::new(key, value))
        .collect()
}

/// Adds tags; nothing depends on it but policies and people, so a failure is only told.
pub async fn add(ec2: &Ec2, eni: &str, tags: &[Tag]) -> bool {
    let keys: Vec<&str> = tags.iter().map(|t| t.key.as_str()).collect();
    match ec2.create_tags(&[eni.to_owned()], tags).await {
        Ok(()) => {
            tracing::info!(eni, ?keys, "tagged");
            true
        }
        Err(error) => {
            tracing::warn!(eni, ?keys, %error, "not tagged");
            false
        }
    }
}

/// Makes a call about an interface; if a policy forbids it, and tags are missing that the policy may go by, once more with them.
pub(super) async fn or_tag<T, F>(cloud: &Cloud, eni: &EniId, call: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Ec2Error>>,
{
    match call().await {
        Err(error) if error.code == NOT_ALLOWED => {
            if tag(cloud, eni).await {
                call().await.map_err(Failure::from)
            } else {
                Err(error.into())
            }
        }
        other => other.map_err(Failure::from),
    }
}

/// Whether tags were missing and are there now.
async fn tag(cloud: &Cloud, eni: &EniId) -> bool {
    let Ok(Some(found)) = look(cloud, eni).await else {
        return false;
    };
    let missing = missing(&cloud.around.tags(&cloud.machine), &found);
    !missing.is_empty() && add(&cloud.ec2, &eni.0, &missing).await
}
