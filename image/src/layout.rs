//! The OCI image layout (image specification 1.1): an index for each name, a manifest and a configuration for each
//! architecture, all by digest. `manifest.json` beside it is for engines that read Docker's form only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::archive::{Entry, append};
use crate::layer::{Layer, LayerError, digest};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What is said of the image.
pub(crate) struct Image {
    /// Name without tag.
    pub(crate) repository: String,
    /// The tag.
    pub(crate) tag: String,
    /// The commit it is made from.
    pub(crate) commit: String,
    /// Where its source is.
    pub(crate) source: String,
    /// Seconds since 1970.
    pub(crate) epoch: u64,
}

/// One architecture's content.
pub(crate) struct Platform {
    /// As Go names it.
    pub(crate) architecture: String,
    /// Its only layer.
    pub(crate) layer: Layer,
}

/// The names of the image, which differ in what they start and where.
const NAMES: [(&str, &str, &str); 2] = [
    ("", "/app/aws-vpc-cni", "/app"),
    ("-init", "/init/aws-vpc-cni-init", "/init"),
];

/// A whole layout.
pub(crate) struct Layout {
    blobs: BTreeMap<String, Vec<u8>>,
    index: Value,
    docker: Value,
    images: Vec<(String, String)>,
    /// Of the first name, by architecture.
    manifests: BTreeMap<String, String>,
}

/// Makes it.
pub(crate) fn make(image: &Image, platforms: &[Platform]) -> Layout {
    let mut layout = Layout {
        blobs: BTreeMap::new(),
        index: Value::Null,
        docker: Value::Null,
        images: Vec::new(),
        manifests: BTreeMap::new(),
    };
    let mut names = Vec::new();
    let mut docker = Vec::new();
    for (suffix, start, directory) in NAMES {
        let name = format!("{}{suffix}:{}", image.repository, image.tag);
        let mut manifests = Vec::new();
        for (at, platform) in platforms.iter().enumerate() {
            let layer = layout.add(LAYER, platform.layer.compressed.clone());
            let config = layout.add_json(CONFIG, &config(image, platform, start, directory));
            if at == 0 {
                docker.push(json!({
                    "Config": blob_path(&config),
                    "RepoTags": [name],
                    "Layers": [blob_path(&layer)],
                }));
            }
            let mut manifest = layout.add_json(
                MANIFEST,
                &json!({
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": config,
                    "layers": [layer],
                    "annotations": annotations(image),
                }),
            );
            if suffix.is_empty() {
                let digest = digest_of(&manifest);
                layout.manifests.insert(platform.architecture.clone(), digest);
            }
            set(
                &mut manifest,
                "platform",
                json!({ "architecture": platform.architecture, "os": "linux" }),
            );
            manifests.push(manifest);
        }
        let mut index = layout.add_json(
            INDEX,
            &json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": manifests,
                "annotations": annotations(image),
            }),
        );
        let digest = digest_of(&index);
        layout.images.push((name.clone(), digest));
        // containerd reads the first, others the second.
        let names_of_it = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": format!("{}{suffix}", image.tag),
        });
        set(&mut index, "annotations", names_of_it);
        names.push(index);
    }
    layout.index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": names });
    layout.docker = Value::from(docker);
    layout
}

/// Of a descriptor.
fn digest_of(descriptor: &Value) -> String {
    let digest = descriptor.get("digest").and_then(Value::as_str);
    digest.unwrap_or_default().to_owned()
}

/// Adds a member to an object.
fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn config(image: &Image, platform: &Platform, start: &str, directory: &str) -> Value {
    let created = rfc3339(image.epoch);
    json!({
        "created": created,
        "architecture": platform.architecture,
        "os": "linux",
        "config": {
            "Entrypoint": [start],
            "WorkingDir": directory,
            "Env": ["PATH=/app:/usr/sbin:/usr/bin"],
            "User": "0:0",
            "Labels": annotations(image),
        },
        "rootfs": { "type": "layers", "diff_ids": [platform.layer.diff_id] },
        "history": [{ "created": created, "created_by": "scripts/image" }],
    })
}

/// The keys that the image specification defines.
fn annotations(image: &Image) -> Value {
    json!({
        "org.opencontainers.image.title": "vpcnet",
        "org.opencontainers.image.description": "Pods get addresses of their AWS VPC",
        "org.opencontainers.image.version": image.tag,
        "org.opencontainers.image.revision": image.commit,
        "org.opencontainers.image.source": image.source,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.created": rfc3339(image.epoch),
    })
}

/// `sha256:…` as a path of the layout.
fn blob_path(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    format!("blobs/{}", digest.replace(':', "/"))
}

impl Layout {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.blobs.insert(digest, bytes);
        descriptor
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.add(media_type, value.to_string().into_bytes())
    }

    /// Names with tag, and the digests they stand for.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&str, &str)> {
        self.images
            .iter()
            .map(|(name, digest)| (name.as_str(), digest.as_str()))
    }

    /// The digest of the first name's manifest for an architecture.
    pub(crate) fn digest_of(&self, architecture: &str) -> &str {
        self.manifests.get(architecture).map_or("", String::as_str)
    }

    /// The layout as one file.
    ///
    /// # Errors
    /// None that a buffer gives; the writer's, then.
    pub(crate) fn archive(&self, epoch: u64) -> Result<Vec<u8>, LayerError> {
        let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for (digest, bytes) in &self.blobs {
            let path = Path::new("blobs").join(digest.replace(':', "/"));
            files.insert(path, bytes.clone());
        }
        files.insert("index.json".into(), self.index.to_string().into_bytes());
        files.insert("manifest.json".into(), self.docker.to_string().into_bytes());
        files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let mut tar = tar::Builder::new(Vec::new());
        let packed = || -> io::Result<Vec<u8>> {
            for directory in ["blobs", "blobs/sha256"] {
                append(&mut tar, Path::new(directory), &Entry::Directory, 0o755, epoch)?;
            }
            for (path, bytes) in &files {
                append(&mut tar, path, &Entry::File(bytes), 0o644, epoch)?;
            }
            tar.into_inner()
        };
        packed().map_err(|source| LayerError::Io {
            path: "image.tar".into(),
            source,
        })
    }
}

/// Seconds since 1970 as RFC 3339 in UTC: days to a date by the civil calendar's 400-year cycle.
pub(crate) fn rfc3339(epoch: u64) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    // Counted from 1 March of year 0, so that a leap day is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            repository: "example.org/vpcnet".into(),
            tag: "1.2.3".into(),
            commit: "abc".into(),
            source: "https://example.org".into(),
            epoch: 1_700_000_000,
        }
    }

    fn platform(architecture: &str, bytes: &[u8]) -> Platform {
        Platform {
            architecture: architecture.into(),
            layer: Layer {
                compressed: bytes.to_vec(),
                diff_id: digest(b"the tar"),
            },
        }
    }

    fn read<'a>(layout: &'a Layout, descriptor: &Value) -> (Value, &'a [u8]) {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = layout
            .blobs
            .get(digest)
            .unwrap_or_else(|| panic!("no blob {digest}"));
        assert_eq!(descriptor["size"], bytes.len());
        (serde_json::from_slice(bytes).unwrap_or_default(), bytes)
    }

    #[test]
    fn both_names_lead_to_both_architectures_and_differ_in_what_they_start_only() {
        let layout = make(&image(), &[platform("amd64", b"one"), platform("arm64", b"two")]);
        let mut found = Vec::new();
        for name in layout.index["manifests"].as_array().unwrap() {
            let (index, _) = read(&layout, name);
            for manifest in index["manifests"].as_array().unwrap() {
                let (content, _) = read(&layout, manifest);
                let (config, _) = read(&layout, &content["config"]);
                let (_, layer) = read(&layout, &content["layers"][0]);
                assert_eq!(config["architecture"], manifest["platform"]["architecture"]);
                assert_eq!(config["rootfs"]["diff_ids"], json!([digest(b"the tar")]));
                found.push((
                    name["annotations"]["io.containerd.image.name"].clone(),
                    config["config"]["Entrypoint"][0].clone(),
                    config["config"]["WorkingDir"].clone(),
                    String::from_utf8(layer.to_vec()).unwrap(),
                ));
            }
        }
        let row = |suffix: &str, start: &str, directory: &str, layer: &str| {
            (
                json!(format!("example.org/vpcnet{suffix}:1.2.3")),
                json!(start),
                json!(directory),
                layer.to_owned(),
            )
        };
        assert_eq!(
            found,
            [
                row("", "/app/aws-vpc-cni", "/app", "one"),
                row("", "/app/aws-vpc-cni", "/app", "two"),
                row("-init", "/init/aws-vpc-cni-init", "/init", "one"),
                row("-init", "/init/aws-vpc-cni-init", "/init", "two"),
            ]
        );
        // Layers are not there twice: two layers, four configurations, four manifests, two indices.
        assert_eq!(layout.blobs.len(), 12);
    }

    #[test]
    fn dockers_form_is_of_the_first_architecture() {
        let layout = make(&image(), &[platform("amd64", b"one"), platform("arm64", b"two")]);
        let names: Vec<_> = layout
            .docker
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["RepoTags"][0])
            .collect();
        assert_eq!(
            names,
            ["example.org/vpcnet:1.2.3", "example.org/vpcnet-init:1.2.3"]
        );
        let path = blob_path(&json!({ "digest": digest(b"one") }));
        assert_eq!(layout.docker[0]["Layers"], json!([path]));
    }

    #[test]
    fn the_same_input_is_the_same_archive() {
        let archive = || {
            let layout = make(&image(), &[platform("amd64", b"one")]);
            digest(&layout.archive(5).unwrap())
        };
        assert_eq!(archive(), archive());
    }

    #[test]
    fn times_are_written_as_dates() {
        for (epoch, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(epoch), text);
        }
    }
}
