//! CreateTags and DeleteTags, and what a tag may be.

use std::sync::Arc;

use super::error::ApiError;
use super::ids::{EniId, GroupId, InstanceId, SubnetId};
use super::request::Tags;
use super::response::Response;
use super::vpc::Vpc;

/// Tags a resource may have ("Tag your Amazon EC2 resources", restrictions).
const MOST: usize = 50;
const KEY_CHARS: usize = 128;
const VALUE_CHARS: usize = 256;

/// Refuses tags EC2 would refuse.
pub(crate) fn valid(tags: &Tags) -> Result<(), ApiError> {
    for (key, value) in tags {
        let wrong = if key.is_empty() {
            Some("Tag key cannot be empty".to_owned())
        } else if key.to_ascii_lowercase().starts_with("aws:") {
            Some(format!(
                "Tag keys starting with 'aws:' are reserved for internal use: '{key}'"
            ))
        } else if key.chars().count() > KEY_CHARS {
            Some(format!(
                "Tag key exceeds the maximum length of {KEY_CHARS} characters"
            ))
        } else if value.chars().count() > VALUE_CHARS {
            Some(format!(
                "Tag value exceeds the maximum length of {VALUE_CHARS} characters"
            ))
        } else {
            None
        };
        if let Some(message) = wrong {
            return Err(ApiError::invalid_value(message));
        }
    }
    within_limit(tags)
}

fn within_limit(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() <= MOST {
        return Ok(());
    }
    Err(ApiError::client(
        "TagLimitExceeded",
        format!("You have reached the maximum number of tags ({MOST}) on a resource"),
    ))
}

impl Vpc {
    pub(crate) fn create_tags(&mut self, resources: &[String], tags: &Tags) -> Result<Response, ApiError> {
        if resources.is_empty() {
            return Err(ApiError::missing("resourceIdSet"));
        }
        if tags.is_empty() {
            return Err(ApiError::missing("tagSet"));
        }
        valid(tags)?;
        let mut results = Vec::new();
        for resource in resources {
            let mut all = self.tags_of(resource).ok_or_else(|| not_found(resource))?;
            all.extend(tags.iter().map(|(k, v)| (k.clone(), v.clone())));
            within_limit(&all)?;
            results.push((resource, all));
        }
        for (resource, all) in results {
            self.set_tags(resource, all);
        }
        Ok(Response::Done)
    }

    pub(crate) fn delete_tags(
        &mut self,
        resources: &[String],
        tags: &[(String, Option<String>)],
    ) -> Result<Response, ApiError> {
        if resources.is_empty() {
            return Err(ApiError::missing("resourceIdSet"));
        }
        let mut results = Vec::new();
        for resource in resources {
            let mut all = self.tags_of(resource).ok_or_else(|| not_found(resource))?;
            if tags.is_empty() {
                all.clear();
            }
            all.retain(|key, value| {
                !tags
                    .iter()
                    .any(|(k, v)| k == key && v.as_ref().is_none_or(|v| v == value))
            });
            results.push((resource, all));
        }
        for (resource, all) in results {
            self.set_tags(resource, all);
        }
        Ok(Response::Done)
    }

    fn set_tags(&mut self, resource: &str, tags: Tags) {
        if resource == self.id.as_str() {
            self.tags = tags;
        } else if let Some(subnet) = self.subnets.get_mut(&SubnetId::from(resource)) {
            Arc::make_mut(subnet).tags = tags;
        } else if let Some(group) = self.groups.get_mut(&GroupId::from(resource)) {
            Arc::make_mut(group).tags = tags;
        } else if self.instances.get(&InstanceId::from(resource)).is_some() {
            self.change_instance(&InstanceId::from(resource), |i| i.tags = tags);
        } else {
            self.interfaces
                .change(self.now, &EniId::from(resource), |i| i.tags = tags);
        }
    }
}

/// EC2 words this by the kind of id.
fn not_found(resource: &str) -> ApiError {
    let kinds = [
        (EniId::PREFIX, ApiError::no_interface(resource)),
        (InstanceId::PREFIX, ApiError::no_instance(resource)),
        (SubnetId::PREFIX, ApiError::no_subnet(resource)),
        (GroupId::PREFIX, ApiError::no_group(resource)),
    ];
    kinds
        .into_iter()
        .find(|(prefix, _)| resource.starts_with(prefix))
        .map_or_else(
            || ApiError::client("InvalidID", format!("The ID '{resource}' is not valid")),
            |(_, error)| error,
        )
}
