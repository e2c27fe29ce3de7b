//! The custom resource definitions in `deploy/crds/`, made from the types. `make generate` writes them; this test, in every run, finds
//! what was written by hand or left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlEmitter, yaml::Hash};

use crate::objects::{EniConfig, EniConfigSpec, EniConfigStatus};
use crate::resource::Resource;

const HEAD: &str = "# Made from crates/kube/src/objects/ by `make generate`. Change it there.\n";

/// A schema as API servers take it: structural, without references and without what they do not know.
fn schema<T: JsonSchema>() -> Value {
    // What a writer must give: readers here are content with less.
    let settings = SchemaSettings::openapi3().for_serialize().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    plain(&mut schema);
    schema
}

/// Titles are Rust's names, and defaults are the reader's business: the API server would write them into objects.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("title");
            fields.remove("default");
            fields.remove("components");
            fields.remove("$schema");
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// The definition of a resource of the cluster with this kind, `spec` and `status`. Unknown fields are kept, as they always were:
/// objects of clusters that exist have some.
fn definition<K: Resource, S: JsonSchema, T: JsonSchema>(kind: &str) -> Value {
    let (group, plural) = (K::GROUP, K::PLURAL);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_ascii_lowercase(),
            },
            "scope": "Cluster",
            "versions": [{
                "name": K::VERSION,
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": schema::<S>(),
                        "status": schema::<T>(),
                    },
                }},
            }],
        },
    })
}

fn yaml(value: &Value) -> Yaml {
    match value {
        Value::Null => Yaml::Null,
        Value::Bool(b) => Yaml::Boolean(*b),
        Value::Number(n) => Yaml::Integer(n.as_i64().expect("an integer")),
        Value::String(s) => Yaml::String(s.clone()),
        Value::Array(items) => Yaml::Array(items.iter().map(yaml).collect()),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(k, v)| (Yaml::String(k.clone()), yaml(v)));
            Yaml::Hash(pairs.collect::<Hash>())
        }
    }
}

fn text(definition: &Value) -> String {
    let mut body = String::new();
    YamlEmitter::new(&mut body).dump(&yaml(definition)).unwrap();
    format!("{HEAD}{}\n", body.trim_start_matches("---\n"))
}

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let definition = definition::<EniConfig, EniConfigSpec, EniConfigStatus>("ENIConfig");
    let name = definition["metadata"]["name"].as_str().unwrap();
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let path = directory.join(format!("{name}.yaml"));
    let wanted = text(&definition);
    if std::env::var_os("VPCNET_UPDATE_EXPECTED").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == wanted,
        "{} is not what crates/kube/src/objects/ gives: run `make generate`",
        path.display()
    );
}

#[test]
fn the_subnet_is_required_and_the_groups_are_not() {
    let schema = schema::<EniConfigSpec>();
    assert_eq!(schema["required"], json!(["subnet"]));
    assert_eq!(schema["properties"]["subnet"]["type"], "string");
    assert_eq!(schema["properties"]["securityGroups"]["items"]["type"], "string");
}
