//! `vpcnet-image`: makes the container image from one directory tree for each architecture. No engine, no daemon, no registry.
//!
//! The same trees and the same options give the same bytes: entries are sorted, owners are root, times are one given time,
//! modes are brought to two, and the compressor is the one that `Cargo.lock` pins. `scripts/image` fills the trees.
//!
//! | module | makes |
//! |---|---|
//! | [`layer`] | a tree into a compressed layer |
//! | [`layout`] | layers into an OCI image layout that `docker load` reads too |
//! | [`materials`] | the bill of materials (SPDX) and the statement of provenance (in-toto, SLSA) |
#![forbid(unsafe_code)]

mod archive;
mod layer;
mod layout;
mod materials;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::layout::{Image, Platform};
use crate::materials::Material;

/// Makes the container image, its bill of materials and its provenance.
#[derive(Parser)]
#[command(name = "vpcnet-image", version)]
struct Cli {
    /// The tree of an architecture, as ARCH=DIRECTORY (amd64, arm64); once for each
    #[arg(long = "tree", required = true, value_name = "ARCH=DIR", value_parser = tree)]
    trees: Vec<(String, PathBuf)>,
    /// What an architecture's tree is made of, as ARCH=FILE: lines of kind, name, version, licence, SHA-256, tabs between
    #[arg(long = "materials", value_name = "ARCH=FILE", value_parser = tree)]
    materials: Vec<(String, PathBuf)>,
    /// Name without tag; the second image's has -init behind it
    #[arg(long, value_name = "NAME")]
    repository: String,
    /// The tag
    #[arg(long, value_name = "VERSION")]
    tag: String,
    /// The commit it is made from
    #[arg(long, value_name = "SHA")]
    commit: String,
    /// Where its source is
    #[arg(long, value_name = "URL")]
    source: String,
    /// Who builds, a URI
    #[arg(long, value_name = "URI")]
    builder: String,
    /// The time of every entry, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    epoch: u64,
    /// Where image.tar, sbom-ARCH.spdx.json and provenance.json are put
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// It could not be made.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Layer(#[from] layer::LayerError),
    #[error(transparent)]
    Materials(#[from] materials::MaterialError),
    #[error("materials for {0}, of which there is no tree")]
    NoTree(String),
}

fn tree(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((arch, path)) if ["amd64", "arm64"].contains(&arch) && !path.is_empty() => {
            Ok((arch.to_owned(), path.into()))
        }
        _ => Err("amd64=PATH or arm64=PATH was expected".into()),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("vpcnet-image: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<String, Failure> {
    let unknown = |(arch, _): &&(String, PathBuf)| !cli.trees.iter().any(|(a, _)| a == arch);
    if let Some((arch, _)) = cli.materials.iter().find(unknown) {
        return Err(Failure::NoTree(arch.clone()));
    }
    let mut platforms = Vec::new();
    for (arch, directory) in &cli.trees {
        platforms.push(Platform {
            architecture: arch.clone(),
            layer: layer::pack(directory, cli.epoch)?,
        });
    }
    let image = Image {
        repository: cli.repository.clone(),
        tag: cli.tag.clone(),
        commit: cli.commit.clone(),
        source: cli.source.clone(),
        epoch: cli.epoch,
    };
    let layout = layout::make(&image, &platforms);
    let mut said = String::new();
    write(&cli.out.join("image.tar"), &layout.archive(cli.epoch)?)?;
    for platform in &platforms {
        let megabytes = platform.layer.compressed.len() as f64 / 1e6;
        said.push_str(&format!(
            "{}: {megabytes:.1} MB compressed\n",
            platform.architecture
        ));
    }
    let mut all: Vec<Material> = Vec::new();
    for (arch, path) in &cli.materials {
        let materials = materials::read(path)?;
        let sbom = materials::sbom(&image, arch, layout.digest_of(arch), &materials);
        write(&cli.out.join(format!("sbom-{arch}.spdx.json")), &pretty(&sbom))?;
        all.extend(materials);
    }
    all.sort();
    all.dedup();
    let provenance = materials::provenance(&image, &cli.builder, &layout, &all);
    write(&cli.out.join("provenance.json"), &pretty(&provenance))?;
    for (name, digest) in layout.images() {
        said.push_str(&format!("{name}@{digest}\n"));
    }
    Ok(said)
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|source| Failure::File {
        path: path.to_path_buf(),
        source,
    })
}
