//! What the image is made of: the bill of materials in SPDX 2.3, and the statement of provenance of SLSA 1.0 in in-toto's form.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::layout::{Image, Layout, rfc3339};

/// How this image is made, as SLSA names it.
const BUILD_TYPE: &str = "https://github.com/vpcnet/vpcnet/blob/main/docs/image.md#make-image";

/// Something that is in the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Material {
    /// Where it comes from: `cargo`, `golang`, `deb`.
    kind: String,
    name: String,
    version: String,
    /// An SPDX expression; empty if it is not declared.
    licence: String,
    /// Of what was fetched; empty if that is not known here.
    sha256: String,
}

/// The list cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    /// The system's answer.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What.
        source: std::io::Error,
    },
    /// A line that is none.
    #[error("{}, line {line}: {text:?}: kind (cargo, golang, deb), name, version, licence and SHA-256 with tabs between were expected", .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
}

/// Reads a list.
///
/// # Errors
/// [`MaterialError`].
pub(crate) fn read(path: &Path) -> Result<Vec<Material>, MaterialError> {
    let text = std::fs::read_to_string(path).map_err(|source| MaterialError::Io {
        path: path.to_path_buf(),
        source,
    })?;
    let mut materials = Vec::new();
    for (at, line) in text.lines().enumerate() {
        materials.push(parse(line).ok_or_else(|| MaterialError::Line {
            path: path.to_path_buf(),
            line: at + 1,
            text: line.to_owned(),
        })?);
    }
    materials.sort();
    materials.dedup();
    Ok(materials)
}

fn parse(line: &str) -> Option<Material> {
    let mut fields = line.split('\t').map(str::to_owned);
    let material = Material {
        kind: fields.next()?,
        name: fields.next()?,
        version: fields.next()?,
        licence: fields.next()?,
        sha256: fields.next()?,
    };
    let known = ["cargo", "golang", "deb"].contains(&material.kind.as_str());
    let named = !material.name.is_empty() && !material.version.is_empty();
    (known && named && fields.next().is_none()).then_some(material)
}

impl Material {
    /// The package's URL (purl).
    fn purl(&self) -> String {
        let Self {
            kind, name, version, ..
        } = self;
        let version = version.replace('+', "%2B");
        match kind.as_str() {
            "deb" => {
                let (name, arch) = name.split_once(':').unwrap_or((name, "all"));
                format!("pkg:deb/debian/{name}@{version}?arch={arch}")
            }
            _ => format!("pkg:{kind}/{name}@{version}"),
        }
    }
}

/// The bill of materials of one architecture.
pub(crate) fn sbom(image: &Image, arch: &str, manifest: &str, materials: &[Material]) -> Value {
    let name = format!("{}:{}", image.repository, image.tag);
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": image.tag,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": "NOASSERTION",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": manifest.trim_start_matches("sha256:") }],
    })];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    })];
    for (at, material) in materials.iter().enumerate() {
        let id = format!("SPDXRef-{}-{at}", material.kind);
        let licence = match material.licence.as_str() {
            "" => "NOASSERTION",
            licence => licence,
        };
        let mut package = json!({
            "SPDXID": id,
            "name": material.name,
            "versionInfo": material.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence,
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": material.purl(),
            }],
        });
        if let Some(members) = package.as_object_mut().filter(|_| !material.sha256.is_empty()) {
            members.insert(
                "checksums".to_owned(),
                json!([{ "algorithm": "SHA256", "checksumValue": material.sha256 }]),
            );
        }
        packages.push(package);
        relationships.push(json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id,
        }));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name} linux/{arch}"),
        // Unique for what it describes, and the same for the same.
        "documentNamespace": format!("{}/sbom/{arch}/{}", image.source, manifest.trim_start_matches("sha256:")),
        "creationInfo": {
            "created": rfc3339(image.epoch),
            "creators": [concat!("Tool: vpcnet-image-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

/// The statement of where the image comes from.
pub(crate) fn provenance(image: &Image, builder: &str, layout: &Layout, materials: &[Material]) -> Value {
    let subjects: Vec<Value> = layout
        .images()
        .map(|(name, digest)| json!({ "name": name, "digest": { "sha256": digest.trim_start_matches("sha256:") } }))
        .collect();
    let mut dependencies = vec![json!({
        "uri": format!("git+{}@{}", image.source, image.commit),
        "digest": { "gitCommit": image.commit },
    })];
    dependencies.extend(
        materials
            .iter()
            .filter(|m| !m.sha256.is_empty())
            .map(|material| json!({ "uri": material.purl(), "digest": { "sha256": material.sha256 } })),
    );
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "repository": image.repository, "tag": image.tag, "epoch": image.epoch },
                "resolvedDependencies": dependencies,
            },
            "runDetails": { "builder": { "id": builder } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_materials_and_others_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("materials");
        std::fs::write(
            &path,
            "deb\tlibc6:amd64\t2.36-9+deb12u14\t\tff\ncargo\ttokio\t1.2.3\tMIT\t\n",
        )
        .unwrap();
        let found = read(&path).unwrap();
        let purls: Vec<_> = found.iter().map(Material::purl).collect();
        assert_eq!(
            purls,
            [
                "pkg:cargo/tokio@1.2.3",
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64"
            ]
        );
        for wrong in [
            "",
            "npm\ta\t1\t\t",
            "deb\ta\t1\t",
            "deb\t\t1\t\t",
            "deb\ta\t1\t\t\t",
        ] {
            std::fs::write(&path, format!("{wrong}\n")).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.to_string().contains("line 1"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_bill_lists_every_material_once_and_says_what_contains_it() {
        let image = Image {
            repository: "example.org/vpcnet".into(),
            tag: "1".into(),
            commit: "abc".into(),
            source: "https://example.org".into(),
            epoch: 0,
        };
        let material = parse("cargo\ttokio\t1.2.3\tMIT\t00ff").unwrap();
        let bill = sbom(&image, "amd64", "sha256:12", &[material]);
        assert_eq!(bill["packages"].as_array().unwrap().len(), 2);
        assert_eq!(bill["packages"][1]["checksums"][0]["checksumValue"], "00ff");
        assert_eq!(bill["relationships"][1]["relationshipType"], "CONTAINS");
        assert_eq!(
            bill["relationships"][1]["relatedSpdxElement"],
            bill["packages"][1]["SPDXID"]
        );
        assert_eq!(bill["documentNamespace"], "https://example.org/sbom/amd64/12");
    }
}
