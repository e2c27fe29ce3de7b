//! The environment of a container in a Kubernetes manifest, a List of `kubectl get -o json`, values of a Helm chart, or a bare
//! list of variables.

use serde_json::{Map, Value};
use yaml_rust2::Yaml;

use super::SourceError;
use super::environment::Environment;

/// Containers that are the agent's, of the original's manifest and of ours.
const AGENTS: [&str; 2] = ["aws-node", "vpcnetd"];

/// YAML as JSON has it; what JSON lacks becomes null.
pub(super) fn from_yaml(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(text) | Yaml::String(text) => Value::String(text.clone()),
        Yaml::Integer(n) => Value::from(*n),
        Yaml::Boolean(b) => Value::Bool(*b),
        Yaml::Array(items) => items.iter().map(from_yaml).collect(),
        Yaml::Hash(entries) => {
            let pairs = entries
                .iter()
                .filter_map(|(k, v)| Some((k.as_str()?.to_owned(), from_yaml(v))));
            Value::Object(pairs.collect())
        }
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

/// A container, or what looks like the inside of one.
struct Container<'a> {
    name: String,
    init: bool,
    inside: &'a Map<String, Value>,
}

/// The agent's environment.
pub(super) fn environment(
    path: &str,
    documents: &[Value],
    container: Option<&str>,
) -> Result<Environment, SourceError> {
    if let (None, [Value::Array(list)]) = (container, documents)
        && list.iter().all(|entry| entry.get("name").is_some())
    {
        let mut found = Environment::default();
        listed(list, &mut found);
        return Ok(found);
    }
    let mut containers = Vec::new();
    documents.iter().for_each(|d| collect(d, &mut containers));
    if containers.is_empty() {
        let fragments = documents.iter().filter_map(Value::as_object);
        containers.extend(
            fragments
                .filter(|f| f.contains_key("env"))
                .map(|inside| Container {
                    name: "env".into(),
                    init: false,
                    inside,
                }),
        );
    }
    let chosen = choose(path, &containers, container)?;
    let mut found = Environment::default();
    match chosen.get("env") {
        Some(Value::Array(list)) => listed(list, &mut found),
        Some(Value::Object(map)) => {
            let scalars = map
                .iter()
                .filter_map(|(name, v)| Some((name.clone(), scalar(v)?)));
            found.settings.extend(scalars);
        }
        _ => {}
    }
    for source in chosen
        .get("envFrom")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let what = origin(source).unwrap_or_else(|| "something".into());
        found.remarks.push(format!(
            "envFrom takes variables from {what}: they are not known here"
        ));
    }
    Ok(found)
}

/// All containers, wherever in the document pods are described.
fn collect<'a>(value: &'a Value, found: &mut Vec<Container<'a>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|i| collect(i, found)),
        Value::Object(map) => {
            for (key, inner) in map {
                let init = key == "initContainers";
                match inner {
                    Value::Array(list) if init || key == "containers" => {
                        let inside = list.iter().filter_map(Value::as_object);
                        found.extend(inside.map(|inside| Container {
                            name: text(inside.get("name")).unwrap_or_default(),
                            init,
                            inside,
                        }));
                    }
                    inner => collect(inner, found),
                }
            }
        }
        _ => {}
    }
}

/// The one asked for; else the agent's; else the only one.
fn choose<'a>(
    path: &str,
    containers: &[Container<'a>],
    wanted: Option<&str>,
) -> Result<&'a Map<String, Value>, SourceError> {
    let path = path.to_owned();
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let there = names.join(", ");
    let main = || containers.iter().filter(|c| !c.init);
    let fitting: Vec<&Container<'a>> = match wanted {
        Some(name) => containers.iter().filter(|c| c.name == name).collect(),
        // The agent among the others of its pod.
        None if main().any(|c| AGENTS.contains(&c.name.as_str())) => {
            main().filter(|c| AGENTS.contains(&c.name.as_str())).collect()
        }
        None => main().collect(),
    };
    match (fitting.as_slice(), wanted) {
        ([one], _) => Ok(one.inside),
        ([], Some(name)) if !containers.is_empty() => Err(SourceError::NoContainer {
            path,
            name: name.to_owned(),
            there,
        }),
        ([], _) => Err(SourceError::NoEnvironment { path }),
        _ => Err(SourceError::Several { path, there }),
    }
}

/// Kubernetes' list of `name` with `value` or `valueFrom`.
fn listed(list: &[Value], found: &mut Environment) {
    for entry in list {
        let Some(name) = text(entry.get("name")) else {
            continue;
        };
        if let Some(source) = entry.get("valueFrom") {
            let what = origin(source).unwrap_or_else(|| "elsewhere".into());
            found.remarks.push(format!(
                "{name} comes from {what}, which is not known here: it counts as not set"
            ));
            continue;
        }
        let value = entry.get("value");
        if matches!(value, Some(Value::Bool(_) | Value::Number(_))) {
            found.remarks.push(format!(
                "{name}: the value needs quotes: Kubernetes takes text only"
            ));
        }
        let value = value.and_then(scalar).unwrap_or_default();
        if value.contains("$(") {
            found.remarks.push(format!(
                "{name}: Kubernetes replaces $(…) in the value; here it is taken as it stands"
            ));
        }
        found.settings.push((name, value));
    }
}

/// Where a value comes from, such as `fieldRef spec.nodeName`.
fn origin(source: &Value) -> Option<String> {
    let (kind, inner) = source.as_object()?.iter().find(|(_, v)| v.is_object())?;
    let words = ["fieldPath", "resource", "name", "key"].into_iter();
    let words: Vec<String> = words.filter_map(|word| text(inner.get(word))).collect();
    Some(format!("{kind} {}", words.join(" ")))
}

fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().map(str::to_owned)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::environment::parse;
    use super::*;

    const MANIFEST: &str = r#"
# Two documents, as in the shipped manifest.
kind: ConfigMap
data: {env: "- name: X"}
---
kind: DaemonSet
spec:
  template:
    spec:
      initContainers:
        - name: aws-vpc-cni-init
          env: [{name: DISABLE_TCP_EARLY_DEMUX, value: "true"}]
      containers:
        - name: aws-node
          env:
            - name: WARM_IP_TARGET
              value: "5"
            - {name: ENABLE_POD_ENI, value: false}
            - name: ADDITIONAL_ENI_TAGS
              value: |-
                {"team":
                 "a"}
            - name: MY_NODE_NAME
              valueFrom: {fieldRef: {apiVersion: v1, fieldPath: spec.nodeName}}
            - name: CLUSTER_NAME
              value: $(MY_NODE_NAME)-x
            - name: NOTHING
          envFrom:
            - configMapRef: {name: more}
        - name: aws-eks-nodeagent
          env: [{name: WARM_IP_TARGET, value: "9"}]
"#;

    fn pairs(environment: &Environment) -> Vec<(&str, &str)> {
        let settings = environment.settings.iter();
        settings.map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    #[test]
    fn the_agents_container_is_found_among_others() {
        let found = parse("f", MANIFEST, None).unwrap();
        assert_eq!(
            pairs(&found),
            [
                ("WARM_IP_TARGET", "5"),
                ("ENABLE_POD_ENI", "false"),
                ("ADDITIONAL_ENI_TAGS", "{\"team\":\n \"a\"}"),
                ("CLUSTER_NAME", "$(MY_NODE_NAME)-x"),
                ("NOTHING", ""),
            ]
        );
        let remarks = found.remarks.join("\n");
        for part in [
            "ENABLE_POD_ENI: the value needs quotes",
            "MY_NODE_NAME comes from fieldRef spec.nodeName",
            "CLUSTER_NAME: Kubernetes replaces",
            "from configMapRef more",
        ] {
            assert!(remarks.contains(part), "{remarks}");
        }
        assert_eq!(found.remarks.len(), 4);
    }

    #[test]
    fn another_container_can_be_named() {
        let found = parse("f", MANIFEST, Some("aws-vpc-cni-init")).unwrap();
        assert_eq!(pairs(&found), [("DISABLE_TCP_EARLY_DEMUX", "true")]);
        let error = parse("f", MANIFEST, Some("nobody")).unwrap_err().to_string();
        assert!(
            error.contains("no container nobody") && error.contains("aws-eks-nodeagent"),
            "{error}"
        );
    }

    #[test]
    fn a_list_of_kubectl_a_bare_list_and_chart_values_are_read_too() {
        let list = r#"{"kind":"List","items":[{"spec":{"template":{"spec":{"containers":[{"name":"vpcnetd","env":[{"name":"A","value":"1"}]}]}}}}]}"#;
        for text in [
            list,
            r#"[{"name":"A","value":"1"}]"#,
            "- name: A\n  value: '1'\n",
            "env:\n  A: 1\ninit:\n  env:\n    B: 2\n",
            "env:\n- name: A\n  value: \"1\"\n",
        ] {
            assert_eq!(pairs(&parse("f", text, None).unwrap()), [("A", "1")], "{text}");
        }
    }

    #[test]
    fn which_container_is_meant_is_not_guessed() {
        let two = r#"{"containers":[{"name":"a","env":[]},{"name":"b"}]}"#;
        let error = parse("f", two, None).unwrap_err().to_string();
        assert!(error.contains("several containers: a, b"), "{error}");
        let twice = r#"[{"containers":[{"name":"aws-node"}]},{"containers":[{"name":"aws-node"}]}]"#;
        assert!(matches!(
            parse("f", twice, None),
            Err(SourceError::Several { .. })
        ));
        for none in ["kind: Service\n", "just words", "[]", "null"] {
            let found = parse("f", none, None);
            assert!(
                matches!(found, Err(SourceError::NoEnvironment { .. }))
                    || found.is_ok_and(|e| e.settings.is_empty()),
                "{none}"
            );
        }
        assert!(parse("f", "kind: Service\n", None).is_err());
    }
}
