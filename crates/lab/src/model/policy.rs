//! Identity-based IAM policies: read strictly, and judged as the IAM user guide says ("Policy evaluation logic", "IAM JSON policy
//! elements: Condition operators").
//!
//! What the lab does not know (an element, an operator, a condition key) makes the policy unreadable: a condition that were
//! passed over would allow what it is there to forbid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::filter::glob_text;
use super::policy_conditions::{Condition, conditions};

/// What is wrong with a policy.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{place}: {what}")]
pub struct PolicyError {
    /// Where: `the policy`, `statement 2 (Tagging)`.
    pub place: String,
    /// What, and what was expected.
    pub what: String,
}

/// A policy document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Policy {
    document: Value,
    statements: Vec<Statement>,
}

/// One statement.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Statement {
    allows: bool,
    /// `ec2:describe*`, in lower case, as case does not matter; `*` and `?` as in IAM.
    actions: Vec<String>,
    /// ARNs with `*` and `?`, or `*`.
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

/// What is wanted of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// `ec2:CreateTags`.
    pub(crate) action: String,
    /// ARN of what the action is about; `None`: EC2 judges the action by no resource, so only `*` is about it.
    pub(crate) arn: Option<String>,
    /// The request's context: condition keys in lower case, and their values.
    pub(crate) context: BTreeMap<String, Vec<String>>,
}

/// What a policy says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A statement allows it and none denies it.
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// A statement denies it, whatever others say.
    Denied,
}

impl Policy {
    /// Reads a policy document (JSON).
    ///
    /// # Errors
    /// [`PolicyError`] for what is no policy, and for what this lab cannot judge.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document: Value =
            serde_json::from_str(text).map_err(|e| wrong("the policy", format!("is no JSON: {e}")))?;
        Self::try_from(document)
    }

    /// Allows these actions on everything.
    #[must_use]
    pub fn allowing(actions: &[&str]) -> Self {
        let statements = vec![Statement {
            allows: true,
            actions: actions.iter().map(|a| a.to_ascii_lowercase()).collect(),
            resources: vec!["*".to_owned()],
            conditions: Vec::new(),
        }];
        let allow = json!({ "Effect": "Allow", "Action": actions, "Resource": "*" });
        Self {
            document: json!({ "Version": VERSION, "Statement": [allow] }),
            statements,
        }
    }

    pub(crate) fn judge(&self, asked: &Asked) -> Verdict {
        let mut verdict = Verdict::NotAllowed;
        for statement in &self.statements {
            if !statement.speaks_of(asked) {
                continue;
            }
            if !statement.allows {
                return Verdict::Denied;
            }
            verdict = Verdict::Allowed;
        }
        verdict
    }

    /// What it says of an action whatever that is about, if that is enough to know.
    pub(crate) fn of_action(&self, action: &str) -> Option<Verdict> {
        let mut about = self.statements.iter().filter(|s| s.is_about_action(action));
        if about.clone().any(|s| !s.allows) {
            return None;
        }
        if about
            .clone()
            .any(|s| s.conditions.is_empty() && s.resources.iter().any(|r| r == "*"))
        {
            return Some(Verdict::Allowed);
        }
        about.next().is_none().then_some(Verdict::NotAllowed)
    }

    /// Whether some statement allows the action on something, under some condition.
    pub(crate) fn mentions(&self, action: &str) -> bool {
        self.statements
            .iter()
            .any(|s| s.allows && s.is_about_action(action))
    }
}

impl Statement {
    fn is_about_action(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        self.actions.iter().any(|pattern| glob_text(pattern, &action))
    }

    fn speaks_of(&self, asked: &Asked) -> bool {
        self.is_about_action(&asked.action)
            && self
                .resources
                .iter()
                .any(|pattern| is_about(pattern, asked.arn.as_deref()))
            && self.conditions.iter().all(|c| c.holds(&asked.context))
    }
}

/// A wildcard stays within its part of an ARN; only the last part, which may hold colons itself, is one text.
pub(super) fn is_about(pattern: &str, arn: Option<&str>) -> bool {
    if pattern == "*" {
        return true;
    }
    let Some(arn) = arn else { return false };
    let (pattern, arn): (Vec<&str>, Vec<&str>) =
        (pattern.splitn(6, ':').collect(), arn.splitn(6, ':').collect());
    pattern.len() == arn.len() && pattern.iter().zip(&arn).all(|(p, a)| glob_text(p, a))
}

/// The version of the policy language; the older one, 2008-10-17, has no policy variables and is not written any more.
const VERSION: &str = "2012-10-17";

fn wrong(place: &str, what: impl Into<String>) -> PolicyError {
    PolicyError {
        place: place.to_owned(),
        what: what.into(),
    }
}

impl From<Policy> for Value {
    fn from(policy: Policy) -> Self {
        policy.document
    }
}

impl TryFrom<Value> for Policy {
    type Error = PolicyError;

    fn try_from(document: Value) -> Result<Self, PolicyError> {
        let place = "the policy";
        let object = document
            .as_object()
            .ok_or_else(|| wrong(place, "is no JSON object"))?;
        only(place, object, &["Version", "Id", "Statement"])?;
        if object.get("Version").and_then(Value::as_str) != Some(VERSION) {
            return Err(wrong(place, format!("Version is not \"{VERSION}\"")));
        }
        let list = match object.get("Statement") {
            Some(Value::Array(list)) => list.clone(),
            Some(one @ Value::Object(_)) => vec![one.clone()],
            _ => {
                return Err(wrong(
                    place,
                    "Statement is missing, or neither an object nor a list",
                ));
            }
        };
        if list.is_empty() {
            return Err(wrong(
                place,
                "Statement is empty; IAM takes no policy without one",
            ));
        }
        let numbered = list.iter().zip(1_usize..);
        let statements = numbered
            .map(|(value, n)| statement(value, n))
            .collect::<Result<_, _>>()?;
        Ok(Self { document, statements })
    }
}

fn statement(value: &Value, number: usize) -> Result<Statement, PolicyError> {
    let sid = value.get("Sid").and_then(Value::as_str);
    let place = sid.map_or_else(
        || format!("statement {number}"),
        |sid| format!("statement {number} ({sid})"),
    );
    let object = value
        .as_object()
        .ok_or_else(|| wrong(&place, "is no JSON object"))?;
    only(
        &place,
        object,
        &["Sid", "Effect", "Action", "Resource", "Condition"],
    )?;
    let allows = match object.get("Effect").and_then(Value::as_str) {
        Some("Allow") => true,
        Some("Deny") => false,
        _ => return Err(wrong(&place, "Effect is neither \"Allow\" nor \"Deny\"")),
    };
    let actions = texts(&place, "Action", object.get("Action"))?;
    if let Some(odd) = actions.iter().find(|a| *a != "*" && !a.contains(':')) {
        return Err(wrong(
            &place,
            format!("Action \"{odd}\" names no service, as ec2:DescribeSubnets does"),
        ));
    }
    let resources = texts(&place, "Resource", object.get("Resource"))?;
    if let Some(odd) = resources
        .iter()
        .find(|r| *r != "*" && (!r.starts_with("arn:") || r.splitn(6, ':').count() < 6))
    {
        return Err(wrong(
            &place,
            format!("Resource \"{odd}\" is neither \"*\" nor an ARN with its six parts"),
        ));
    }
    let conditions = match object.get("Condition") {
        None => Vec::new(),
        Some(value) => conditions(value).map_err(|what| wrong(&place, what))?,
    };
    Ok(Statement {
        allows,
        actions: actions.iter().map(|a| a.to_ascii_lowercase()).collect(),
        resources,
        conditions,
    })
}

fn only(place: &str, object: &Map<String, Value>, known: &[&str]) -> Result<(), PolicyError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(wrong(
            place,
            format!("{key} is not known to this lab; it knows {}", known.join(", ")),
        )),
    }
}

/// One text, or a list of some.
fn texts(place: &str, name: &str, value: Option<&Value>) -> Result<Vec<String>, PolicyError> {
    let missing = || {
        wrong(
            place,
            format!("{name} is missing, or no text and no list of texts"),
        )
    };
    let list = match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| v.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(missing)?,
        _ => return Err(missing()),
    };
    if list.is_empty() { Err(missing()) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(action: &str, arn: Option<&str>, context: &[(&str, &[&str])]) -> Asked {
        Asked {
            action: action.to_owned(),
            arn: arn.map(str::to_owned),
            context: context
                .iter()
                .map(|(k, v)| {
                    (
                        k.to_ascii_lowercase(),
                        v.iter().map(|v| (*v).to_owned()).collect(),
                    )
                })
                .collect(),
        }
    }

    fn policy(statements: &Value) -> Policy {
        Policy::try_from(json!({ "Version": "2012-10-17", "Statement": statements })).unwrap()
    }

    const ENI: &str = "arn:aws:ec2:us-west-2:123456789012:network-interface/eni-1";

    #[test]
    fn a_statement_is_about_its_actions_on_its_resources() {
        let p = policy(&json!([
            { "Effect": "Allow", "Action": ["ec2:Describe*", "EC2:deletenetworkinterface"], "Resource": "*" },
            { "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*:*:network-interface/*" },
        ]));
        let says = |action, arn| p.judge(&asked(action, arn, &[]));
        assert_eq!(says("ec2:DescribeSubnets", None), Verdict::Allowed);
        assert_eq!(says("ec2:DeleteNetworkInterface", Some(ENI)), Verdict::Allowed);
        assert_eq!(says("ec2:CreateTags", Some(ENI)), Verdict::Allowed);
        let instance = "arn:aws:ec2:us-west-2:123456789012:instance/i-1";
        assert_eq!(says("ec2:CreateTags", Some(instance)), Verdict::NotAllowed);
        // An action that EC2 judges by no resource is allowed by "*" alone.
        assert_eq!(says("ec2:CreateTags", None), Verdict::NotAllowed);
        assert!(p.mentions("ec2:CreateTags") && !p.mentions("ec2:RunInstances"));
        // Known by the action alone, or not.
        assert_eq!(p.of_action("ec2:DescribeSubnets"), Some(Verdict::Allowed));
        assert_eq!(p.of_action("ec2:RunInstances"), Some(Verdict::NotAllowed));
        assert_eq!(p.of_action("ec2:CreateTags"), None);
    }

    #[test]
    fn a_denial_goes_before_every_permission() {
        let p = policy(&json!([
            { "Effect": "Deny", "Action": "ec2:Delete*", "Resource": "*" },
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
        ]));
        assert_eq!(
            p.judge(&asked("ec2:DeleteNetworkInterface", Some(ENI), &[])),
            Verdict::Denied
        );
        assert_eq!(
            p.judge(&asked("ec2:CreateTags", Some(ENI), &[])),
            Verdict::Allowed
        );
        assert_eq!(p.of_action("ec2:DeleteNetworkInterface"), None);
    }

    #[test]
    fn a_statement_holds_only_under_all_its_conditions() {
        let p = policy(&json!([{
            "Effect": "Allow", "Action": "ec2:*", "Resource": "*",
            "Condition": {
                "StringEquals": { "aws:ResourceTag/cluster": ["blue", "green"], "ec2:Region": "us-west-2" },
                "ForAllValues:StringLike": { "aws:TagKeys": "node.*" },
            },
        }]));
        let says = |context: &[(&str, &[&str])]| p.judge(&asked("ec2:X", Some(ENI), context));
        let good: [(&str, &[&str]); 2] = [
            ("aws:ResourceTag/cluster", &["green"]),
            ("ec2:Region", &["us-west-2"]),
        ];
        assert_eq!(says(&good), Verdict::Allowed);
        assert_eq!(says(&good[..1]), Verdict::NotAllowed);
        let with_tags = |keys| [good[0], good[1], ("aws:TagKeys", keys)];
        assert_eq!(says(&with_tags(&["node.a", "node.b"])), Verdict::Allowed);
        assert_eq!(says(&with_tags(&["node.a", "other"])), Verdict::NotAllowed);
    }

    #[test]
    fn wildcards_do_not_leave_their_part_of_an_arn() {
        assert!(is_about("arn:aws:ec2:*:*:network-interface/*", Some(ENI)));
        assert!(is_about("arn:*:ec2:us-west-?:123456789012:*", Some(ENI)));
        assert!(!is_about("arn:aws:ec2:*:network-interface/eni-1", Some(ENI)));
        assert!(!is_about("arn:aws:ec2:*:*:instance/*", Some(ENI)));
    }

    #[test]
    fn what_cannot_be_judged_is_no_policy() {
        let with = |key: &str, value: Value| {
            let mut statement = json!({ "Sid": "S", "Effect": "Allow", "Action": "ec2:*", "Resource": "*" });
            statement[key] = value;
            json!({ "Version": "2012-10-17", "Statement": [statement] })
        };
        let cases = [
            (json!([]), "object"),
            (json!({ "Version": "2008-10-17", "Statement": [] }), "Version"),
            (json!({ "Version": "2012-10-17", "Statement": [] }), "empty"),
            (with("Effect", json!("allow")), "Effect"),
            (with("Action", json!([])), "Action"),
            (with("Action", json!("DescribeSubnets")), "names no service"),
            (with("Resource", json!("network-interface/*")), "six parts"),
            (with("NotAction", json!("ec2:*")), "NotAction"),
            (with("Condition", json!({ "StringMatches": {} })), "StringMatches"),
            (
                with("Condition", json!({ "StringEquals": { "aws:Nonsense": "x" } })),
                "aws:Nonsense",
            ),
            (
                with("Condition", json!({ "StringEquals": { "aws:TagKeys": "x" } })),
                "ForAllValues",
            ),
            (
                with("Condition", json!({ "Null": { "aws:TagKeys": "perhaps" } })),
                "perhaps",
            ),
            (
                with("Condition", json!({ "StringEquals": { "ec2:Vpc": 7 } })),
                "ec2:Vpc",
            ),
        ];
        for (document, word) in cases {
            let error = Policy::try_from(document.clone()).unwrap_err().to_string();
            assert!(error.contains(word), "{document}: {error}");
        }
        assert!(Policy::parse("{").unwrap_err().to_string().contains("JSON"));
    }

    #[test]
    fn a_policy_survives_being_written_and_read() {
        let p = policy(&json!([{ "Effect": "Allow", "Action": "ec2:*", "Resource": "*",
            "Condition": { "Null": { "aws:ResourceTag/x": "true" } } }]));
        let text = serde_json::to_string(&p).unwrap();
        assert_eq!(Policy::parse(&text).unwrap(), p);
        let made = Policy::allowing(&["ec2:Describe*"]);
        assert_eq!(Policy::try_from(Value::from(made.clone())).unwrap(), made);
    }
}
