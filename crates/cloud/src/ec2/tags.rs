//! Tags, and the two actions that change them.

use serde::Deserialize;

use super::Ec2;
use super::call::Done;
use super::form::Form;
use crate::{Ec2Action, Ec2Error};

/// A tag of a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
pub struct Tag {
    /// 1 to 127 characters.
    pub key: String,
    /// Up to 255 characters, may be empty.
    #[serde(default)]
    pub value: String,
}

impl Tag {
    /// A tag.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }
}

/// `prefix.N.Key`, `prefix.N.Value`.
pub(super) fn put(form: &mut Form, prefix: &str, tags: &[Tag]) {
    for (at, tag) in tags.iter().enumerate() {
        let at = at + 1;
        form.put(&format!("{prefix}.{at}.Key"), &tag.key);
        form.put(&format!("{prefix}.{at}.Value"), &tag.value);
    }
}

impl Ec2 {
    /// Sets tags on resources, replacing the values of keys they have. Repeating it is harmless.
    ///
    /// # Errors
    /// As EC2 answers; `Gone` if a resource is not there.
    pub async fn create_tags(&self, resources: &[String], tags: &[Tag]) -> Result<(), Ec2Error> {
        let mut form = Form::new(Ec2Action::CreateTags);
        form.list("ResourceId", resources);
        put(&mut form, "Tag", tags);
        self.call::<Done>(Ec2Action::CreateTags, form)
            .await?
            .check(Ec2Action::CreateTags)
    }

    /// Removes tags by key, whatever their value. Keys that are not there are no error.
    ///
    /// # Errors
    /// As EC2 answers.
    pub async fn delete_tags(&self, resources: &[String], keys: &[String]) -> Result<(), Ec2Error> {
        let mut form = Form::new(Ec2Action::DeleteTags);
        form.list("ResourceId", resources);
        for (at, key) in keys.iter().enumerate() {
            form.put(&format!("Tag.{}.Key", at + 1), key);
        }
        self.call::<Done>(Ec2Action::DeleteTags, form)
            .await?
            .check(Ec2Action::DeleteTags)
    }
}
