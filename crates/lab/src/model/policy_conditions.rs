//! Conditions of IAM policies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::filter::glob_text;
use super::policy::is_about;

/// `{"StringEquals": {"ec2:Region": ["us-west-2"]}}`, one key of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    operator: Operator,
    /// In lower case, as IAM compares keys.
    key: String,
    values: Vec<String>,
}

/// How a key's values in the request are compared with the policy's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Operator {
    quantifier: Quantifier,
    test: Test,
    negated: bool,
    /// An absent key fulfils it.
    if_exists: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quantifier {
    /// The key has one value.
    One,
    ForAllValues,
    ForAnyValue,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    /// Whether the key is absent.
    Null,
}

/// The keys that the lab's requests have. Those that end in `/` go on with a tag's key.
pub(super) const KEYS: [&str; 14] = [
    "aws:RequestTag/",
    "aws:RequestedRegion",
    "aws:ResourceTag/",
    "aws:TagKeys",
    "ec2:AvailabilityZone",
    "ec2:CreateAction",
    "ec2:InstanceID",
    "ec2:InstanceType",
    "ec2:NetworkInterfaceID",
    "ec2:Region",
    "ec2:ResourceTag/",
    "ec2:SecurityGroupID",
    "ec2:Subnet",
    "ec2:Vpc",
];

impl Condition {
    pub(super) fn holds(&self, context: &BTreeMap<String, Vec<String>>) -> bool {
        let found = context.get(&self.key).map_or(&[][..], Vec::as_slice);
        let fits = |value: &String| {
            self.values
                .iter()
                .any(|wanted| self.operator.test.fits(wanted, value))
        };
        if self.operator.test == Test::Null {
            return self.values.iter().any(|v| (v == "true") == found.is_empty());
        }
        let negated = self.operator.negated;
        match self.operator.quantifier {
            // Of nothing, all values are as wanted.
            Quantifier::ForAllValues => found.iter().all(|v| fits(v) != negated),
            Quantifier::ForAnyValue => found.iter().any(|v| fits(v) != negated),
            // An absent key equals nothing, so what must not equal something holds.
            Quantifier::One if found.is_empty() => negated || self.operator.if_exists,
            Quantifier::One => found.iter().any(fits) != negated,
        }
    }
}

impl Test {
    fn fits(self, wanted: &str, value: &str) -> bool {
        match self {
            Self::Equals => wanted == value,
            Self::EqualsIgnoreCase => wanted.to_lowercase() == value.to_lowercase(),
            Self::Like => glob_text(wanted, value),
            Self::Arn => is_about(wanted, Some(value)),
            Self::Null => false,
        }
    }
}

/// The conditions of a statement; all must hold.
///
/// # Errors
/// In words, what is not known.
pub(super) fn conditions(value: &Value) -> Result<Vec<Condition>, String> {
    let by_operator = value.as_object().ok_or("Condition is no JSON object")?;
    let mut all = Vec::new();
    for (name, by_key) in by_operator {
        let operator = operator(name)?;
        let by_key = by_key
            .as_object()
            .ok_or_else(|| format!("Condition {name} is no JSON object"))?;
        for (key, values) in by_key {
            let values = values_of(values)
                .ok_or_else(|| format!("Condition {name} of {key} is no text and no list of texts"))?;
            all.push(condition(name, operator, key, values)?);
        }
    }
    Ok(all)
}

fn condition(name: &str, operator: Operator, key: &str, values: Vec<String>) -> Result<Condition, String> {
    let lower = key.to_ascii_lowercase();
    let known = KEYS.iter().any(|k| {
        let k = k.to_ascii_lowercase();
        if k.ends_with('/') {
            lower.len() > k.len() && lower.starts_with(&k)
        } else {
            lower == k
        }
    });
    if !known {
        return Err(format!(
            "the condition key {key} is not known to this lab; it knows {}",
            KEYS.join(", ")
        ));
    }
    let many = lower == "aws:tagkeys";
    let quantified = operator.quantifier != Quantifier::One || operator.test == Test::Null;
    if many && !quantified {
        return Err(format!(
            "{key} has several values: {name} needs ForAllValues: or ForAnyValue: before it"
        ));
    }
    if operator.test == Test::Null
        && let Some(odd) = values.iter().find(|v| *v != "true" && *v != "false")
    {
        return Err(format!(
            "Null of {key} is \"{odd}\", and neither \"true\" nor \"false\""
        ));
    }
    if let Some(variable) = values.iter().find(|v| v.contains("${")) {
        return Err(format!(
            "the policy variable in \"{variable}\" is not known to this lab"
        ));
    }
    Ok(Condition {
        operator,
        key: lower,
        values,
    })
}

fn operator(name: &str) -> Result<Operator, String> {
    let (quantifier, rest) = match name.split_once(':') {
        Some(("ForAllValues", rest)) => (Quantifier::ForAllValues, rest),
        Some(("ForAnyValue", rest)) => (Quantifier::ForAnyValue, rest),
        _ => (Quantifier::One, name),
    };
    let (rest, if_exists) = rest
        .strip_suffix("IfExists")
        .map_or((rest, false), |rest| (rest, true));
    let (test, negated) = match rest {
        "StringEquals" => (Test::Equals, false),
        "StringNotEquals" => (Test::Equals, true),
        "StringEqualsIgnoreCase" => (Test::EqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Test::EqualsIgnoreCase, true),
        "StringLike" => (Test::Like, false),
        "StringNotLike" => (Test::Like, true),
        "ArnEquals" | "ArnLike" => (Test::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
        "Null" if quantifier == Quantifier::One && !if_exists => (Test::Null, false),
        _ => {
            return Err(format!(
                "the condition operator {name} is not known to this lab; it knows Null, and String and Arn operators"
            ));
        }
    };
    Ok(Operator {
        quantifier,
        test,
        negated,
        if_exists,
    })
}

fn values_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Bool(one) => Some(vec![one.to_string()]),
        Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether `{operator: {key: values}}` holds for the value that the request has, if any.
    fn holds(operator: &str, wanted: &Value, found: &[&str]) -> bool {
        let mut context = BTreeMap::new();
        if !found.is_empty() {
            let found = found.iter().map(|v| (*v).to_owned()).collect();
            context.insert("aws:resourcetag/team".to_owned(), found);
        }
        let value = json!({ operator: { "AWS:ResourceTag/Team": wanted } });
        conditions(&value).unwrap().iter().all(|c| c.holds(&context))
    }

    #[test]
    fn operators_compare_as_iam_does() {
        for (operator, wanted, equal) in [
            ("StringEquals", json!(["a", "b"]), [true, false, false]),
            ("StringNotEquals", json!(["a", "b"]), [false, true, true]),
            ("StringEqualsIfExists", json!("a"), [true, false, true]),
            ("StringEqualsIgnoreCase", json!("A"), [true, false, false]),
            ("StringLike", json!("?"), [true, false, false]),
            ("StringNotLike", json!("?"), [false, true, true]),
            ("Null", json!("false"), [true, true, false]),
            ("Null", json!(true), [false, false, true]),
        ] {
            let said = [&["a"][..], &["other"], &[]].map(|found| holds(operator, &wanted, found));
            assert_eq!(said, equal, "{operator} {wanted}: equal, other, absent");
        }
    }

    #[test]
    fn sets_are_judged_by_all_or_any_of_their_values() {
        let all = |found: &[&str]| holds("ForAllValues:StringEquals", &json!(["a", "b"]), found);
        let any = |found: &[&str]| holds("ForAnyValue:StringEquals", &json!(["a", "b"]), found);
        assert!(all(&[]) && all(&["a", "b"]) && !all(&["a", "c"]));
        assert!(!any(&[]) && any(&["a", "c"]) && !any(&["c"]));
    }

    #[test]
    fn arns_are_compared_part_by_part() {
        let arn = "arn:aws:ec2:us-west-2:1:subnet/subnet-1";
        assert!(holds("ArnLike", &json!("arn:aws:ec2:*:*:subnet/*"), &[arn]));
        assert!(!holds("ArnLike", &json!("arn:aws:ec2:*:subnet/subnet-1"), &[arn]));
        assert!(holds("ArnNotEquals", &json!("arn:aws:ec2:*:*:vpc/*"), &[arn]));
    }

    #[test]
    fn policy_variables_are_refused() {
        let value = json!({ "StringEquals": { "ec2:Region": "${aws:PrincipalTag/x}" } });
        assert!(conditions(&value).unwrap_err().contains("${"));
    }
}
