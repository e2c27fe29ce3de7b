//! A directory tree as a layer: a compressed tar whose bytes follow from names and contents alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::archive::{Entry, append};

const PROGRAM: u32 = 0o755;
const DATA: u32 = 0o644;
/// Everybody may write there, and remove only what is theirs.
const SHARED: u32 = 0o1777;

/// A layer.
pub(crate) struct Layer {
    /// As it lies in the image.
    pub(crate) compressed: Vec<u8>,
    /// SHA-256 of the tar, `sha256:…`.
    pub(crate) diff_id: String,
}

/// The tree could not be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The system's answer.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// Neither file nor directory nor link.
    #[error("{}: it is neither a file nor a directory nor a symbolic link", .0.display())]
    Kind(PathBuf),
}

/// `sha256:…` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Packs what is in `directory`.
///
/// # Errors
/// [`LayerError`].
pub(crate) fn pack(directory: &Path, epoch: u64) -> Result<Layer, LayerError> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, directory, Path::new(""), epoch)?;
    let io = |source| LayerError::Io {
        path: directory.to_path_buf(),
        source,
    };
    let tar = tar.into_inner().map_err(io)?;
    // Neither a time nor a name nor a system in the header.
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    gzip.write_all(&tar).map_err(io)?;
    let compressed = gzip.finish().map_err(io)?;
    Ok(Layer {
        diff_id: digest(&tar),
        compressed,
    })
}

fn add(tar: &mut tar::Builder<Vec<u8>>, root: &Path, within: &Path, epoch: u64) -> Result<(), LayerError> {
    let here = root.join(within);
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LayerError::Io { path, source }
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(&here).map_err(at(&here))? {
        names.push(entry.map_err(at(&here))?.file_name());
    }
    // By bytes: the same on every machine, whatever its locale and file system.
    names.sort();
    for name in names {
        let name = within.join(name);
        let path = root.join(&name);
        let metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
        let kind = metadata.file_type();
        let mode = metadata.permissions().mode();
        if kind.is_dir() {
            // Sticky bits are meant; all else of a builder's modes is its umask.
            let mode = if mode & 0o1000 == 0 { PROGRAM } else { SHARED };
            append(tar, &name, &Entry::Directory, mode, epoch).map_err(at(&path))?;
            add(tar, root, &name, epoch)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(at(&path))?;
            append(tar, &name, &Entry::Link(&target), 0o777, epoch).map_err(at(&path))?;
        } else if kind.is_file() {
            let bytes = fs::read(&path).map_err(at(&path))?;
            let mode = if mode & 0o100 == 0 { DATA } else { PROGRAM };
            append(tar, &name, &Entry::File(&bytes), mode, epoch).map_err(at(&path))?;
        } else {
            return Err(LayerError::Kind(path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn fill(root: &Path, order: &[&str]) {
        for name in order {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
        }
        symlink("vpcnet", root.join("app/aws-vpc-cni")).unwrap();
        fs::set_permissions(root.join("app/vpcnet"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    }

    #[test]
    fn the_same_names_and_contents_are_the_same_bytes_whenever_and_however_they_were_made() {
        let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        fill(a.path(), &["app/vpcnet", "etc/passwd", "a"]);
        fill(b.path(), &["etc/passwd", "a", "app/vpcnet"]);
        fs::set_permissions(b.path().join("a"), fs::Permissions::from_mode(0o600)).unwrap();
        let [one, two] = [pack(a.path(), 7).unwrap(), pack(b.path(), 7).unwrap()];
        assert_eq!(one.compressed, two.compressed);
        assert_eq!(one.diff_id, two.diff_id);
        assert_ne!(pack(a.path(), 8).unwrap().diff_id, one.diff_id);
        fs::write(b.path().join("a"), "other").unwrap();
        assert_ne!(pack(b.path(), 7).unwrap().diff_id, one.diff_id);
    }

    #[test]
    fn entries_are_roots_sorted_and_of_one_time() {
        let tree = tempfile::tempdir().unwrap();
        fill(tree.path(), &["etc/passwd", "app/vpcnet"]);
        let layer = pack(tree.path(), 1_700_000_000).unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(layer.compressed.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(digest(&tar), layer.diff_id);
        let mut found = Vec::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            let name = entry.path().unwrap().display().to_string();
            found.push((name, header.mode().unwrap()));
        }
        let wanted = [
            ("app", 0o755),
            ("app/aws-vpc-cni", 0o777),
            ("app/vpcnet", 0o755),
            ("etc", 0o755),
            ("etc/passwd", 0o644),
            ("tmp", 0o1777),
        ];
        let wanted = wanted.map(|(name, mode)| (name.to_owned(), mode));
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_cannot_be_in_a_layer_is_named() {
        let tree = tempfile::tempdir().unwrap();
        let socket = tree.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = pack(tree.path(), 0).map(drop).unwrap_err();
        assert!(error.to_string().contains("socket"), "{error}");
    }
}
