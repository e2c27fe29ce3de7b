//! `Event` of `events.k8s.io/v1`: what people read under an object with `kubectl describe`.

use serde::{Deserialize, Serialize};

use crate::resource::{Metadata, Name, Resource};

/// The longest note, reason and action that the API server takes (kubernetes `pkg/apis/core/validation`, `events.go`).
const NOTE: usize = 1024;
const WORD: usize = 128;

/// The object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// Its name is nobody's business; its namespace is that of the object it is about.
    pub metadata: Metadata,
    /// When it was seen first: RFC 3339 with microseconds.
    pub event_time: String,
    /// Who tells it: a domain's name.
    pub reporting_controller: String,
    /// Which of those.
    pub reporting_instance: String,
    /// What was being done.
    pub action: String,
    /// Why it is told: a word for programs.
    pub reason: String,
    /// What it is about.
    pub regarding: ObjectReference,
    /// For people.
    pub note: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// It was seen again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
}

/// Whether something is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Kind {
    /// No.
    Normal,
    /// Yes.
    #[default]
    Warning,
}

/// An object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// `v1`.
    pub api_version: String,
    /// `Pod` or `Node`.
    pub kind: String,
    /// Empty for those of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `kubectl describe` finds events by it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl ObjectReference {
    /// A pod.
    #[must_use]
    pub fn pod(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        }
    }

    /// A node.
    #[must_use]
    pub fn node(name: &str, uid: &str) -> Self {
        Self {
            kind: "Node".into(),
            ..Self::pod("", name, uid)
        }
    }

    /// Where events about it are: those about objects of the cluster are in `default`.
    #[must_use]
    pub fn events_namespace(&self) -> &str {
        match self.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        }
    }
}

/// How often it was seen, and when last.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Series {
    /// With the first time; 2 or more.
    pub count: u32,
    /// RFC 3339 with microseconds.
    pub last_observed_time: String,
}

/// What is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// What it is about.
    pub regarding: ObjectReference,
    /// A word for programs, such as `MissingIAMPermissions`.
    pub reason: String,
    /// What was being done, such as `ec2:CreateNetworkInterface`.
    pub action: String,
    /// For people.
    pub text: String,
}

impl Event {
    /// An event of this name, cut to the lengths that the API server takes.
    #[must_use]
    pub fn warning(name: String, at: String, controller: &str, instance: &str, note: Note) -> Self {
        Self {
            metadata: Metadata {
                namespace: note.regarding.events_namespace().to_owned(),
                name,
                ..Metadata::default()
            },
            event_time: at,
            reporting_controller: controller.to_owned(),
            reporting_instance: cut(instance, WORD),
            action: cut(&note.action, WORD),
            reason: cut(&note.reason, WORD),
            regarding: note.regarding,
            note: cut(&note.text, NOTE),
            kind: Kind::Warning,
            series: None,
        }
    }
}

/// At most so many bytes of a text, and whole characters; what was cut shows.
fn cut(text: &str, most: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most.saturating_sub(MORE.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    format!("{}{MORE}", end.and_then(|at| text.get(..at)).unwrap_or_default())
}

impl Resource for Event {
    const GROUP: &'static str = "events.k8s.io";
    const VERSION: &'static str = "v1";
    const PLURAL: &'static str = "events";

    fn name(&self) -> Name<'_> {
        self.metadata.as_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_about_nodes_lie_in_the_default_namespace() {
        assert_eq!(ObjectReference::node("n", "u").events_namespace(), "default");
        assert_eq!(
            ObjectReference::pod("shop", "web-0", "u").events_namespace(),
            "shop"
        );
    }

    proptest! {
        #[test]
        fn a_text_of_any_length_fits_and_a_short_one_is_whole(text in ".{0,600}") {
            let fits = cut(&text, WORD);
            prop_assert!(fits.len() <= WORD);
            prop_assert!(text.len() > WORD || fits == text);
        }
    }
}
