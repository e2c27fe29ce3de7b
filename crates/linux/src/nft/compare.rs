//! Two tables are the same if they do the same, however they are written down.

use nftables::schema::NfListObject;
use serde_json::{Map, Value};

/// The canonical form of the objects we would write.
pub(super) fn wanted(objects: &[NfListObject<'_>]) -> Value {
    // A value of these types can always be serialised; were it not, the table would just count as different.
    let objects = objects
        .iter()
        .filter_map(|object| serde_json::to_value(object).ok());
    canonical_list(objects)
}

/// The canonical form of what `nft -j list table` printed.
pub(super) fn listed(listing: &Value) -> Value {
    let objects = listing
        .get("nftables")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    canonical_list(objects.into_iter())
}

/// Sorted by kind (table, sets, chains, rules); among themselves rules keep their order, the others need none.
fn canonical_list(objects: impl Iterator<Item = Value>) -> Value {
    let mut kinds: [Vec<Value>; 4] = [const { Vec::new() }; 4];
    let [tables, sets, chains, rules] = &mut kinds;
    for mut object in objects {
        canonical(&mut object);
        match object
            .as_object()
            .and_then(|o| o.keys().next())
            .map(String::as_str)
        {
            None | Some("metainfo") => {}
            Some("table") => tables.push(object),
            Some("chain") => chains.push(object),
            Some("rule") => rules.push(object),
            Some(_) => sets.push(object),
        }
    }
    for unordered in [sets, chains] {
        unordered.sort_by_key(Value::to_string);
    }
    // Rules of different chains come in any order; the sort is stable, so within a chain theirs stays.
    rules.sort_by_key(|rule| rule.pointer("/rule/chain").map(Value::to_string));
    Value::Array(kinds.into_iter().flatten().collect())
}

/// Drops what the kernel adds, and writes alternatives one way.
fn canonical(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for volatile in ["handle", "index", "packets", "bytes"] {
                fields.remove(volatile);
            }
            fields.values_mut().for_each(canonical);
            for unordered in ["flags", "elem"] {
                as_sorted_list(fields, unordered);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(canonical),
        _ => {}
    }
}

/// `"flags": "random"` is the same as `"flags": ["random"]`, and the order is of no matter.
fn as_sorted_list(fields: &mut Map<String, Value>, key: &str) {
    match fields.get_mut(key) {
        Some(Value::Array(items)) => items.sort_by_key(Value::to_string),
        Some(one) => *one = Value::Array(vec![one.take()]),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn canon(objects: Value) -> Value {
        listed(&json!({ "nftables": objects }))
    }

    fn rule(chain: &str, to: &str) -> Value {
        json!({"rule": {"chain": chain, "handle": 7, "expr": [{"snat": {"addr": to, "flags": "random"}}]}})
    }

    #[test]
    fn handles_and_the_order_of_sets_do_not_matter() {
        let one = canon(
            json!([{"metainfo": {"version": "1"}}, {"set": {"name": "a", "handle": 1, "elem": ["1.1.1.1", "2.2.2.2"]}}]),
        );
        let other = canon(json!([{"set": {"name": "a", "handle": 9, "elem": ["2.2.2.2", "1.1.1.1"]}}]));
        assert_eq!(one, other);
    }

    #[test]
    fn the_order_of_rules_in_a_chain_matters_that_of_chains_does_not() {
        let (a1, a2, b) = (rule("a", "1.1.1.1"), rule("a", "2.2.2.2"), rule("b", "3.3.3.3"));
        assert_eq!(canon(json!([a1, a2, b])), canon(json!([b, a1, a2])));
        assert_ne!(canon(json!([a1, a2, b])), canon(json!([a2, a1, b])));
    }

    #[test]
    fn a_changed_rule_a_missing_rule_and_an_extra_one_are_seen() {
        let table = canon(json!([rule("a", "1.1.1.1"), rule("b", "2.2.2.2")]));
        for other in [
            json!([rule("a", "1.1.1.9"), rule("b", "2.2.2.2")]),
            json!([rule("a", "1.1.1.1")]),
            json!([rule("a", "1.1.1.1"), rule("b", "2.2.2.2"), rule("b", "2.2.2.2")]),
        ] {
            assert_ne!(canon(other), table);
        }
    }
}
