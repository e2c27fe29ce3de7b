//! Files that must be whole or not be there: written beside their place, synced, renamed over it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading failed for another reason than that the file is missing.
    #[error("cannot read {}: {source}; check its mode and its disk", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A step of writing failed; the file is as it was before.
    #[error("cannot write {} ({step}): {source}; check that its directory is there, writable and not full", path.display())]
    Write {
        /// The file that was to be replaced.
        path: PathBuf,
        /// Which step.
        step: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

/// One file, replaced as a whole.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store at `path`; nothing is touched yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content, or `None` where there is no file.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Puts `bytes` in the file's place. After `Ok` they survive a crash of the machine as far as the directory's
    /// file system allows; after an error the old content stands. Mode 0600.
    ///
    /// # Errors
    /// [`StoreError::Write`] with the step that failed.
    pub fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary();
        let fail = |step: &'static str| {
            let path = self.path.clone();
            let temporary = &temporary;
            move |source: io::Error| {
                // On a full disk the half-written file itself may be what fills it.
                let _ = fs::remove_file(temporary);
                StoreError::Write { path, step, source }
            }
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail("create temporary file"))?;
        file.write_all(bytes).map_err(fail("write temporary file"))?;
        file.sync_data().map_err(fail("sync temporary file"))?;
        drop(file);
        fs::rename(&temporary, &self.path).map_err(fail("rename over the old file"))?;
        // Any reader sees the new content from here on. Only a power cut could bring the old one back, and no pod
        // survives that, so a directory that cannot be synced is no reason to refuse.
        if let Some(directory) = self.path.parent()
            && let Err(error) = File::open(directory).and_then(|d| d.sync_data())
        {
            tracing::warn!(path = %directory.display(), %error, "directory not synced");
        }
        Ok(())
    }

    /// Renames the file to `<name>.broken-<n>` with the first free `n`, so that it can be looked at later.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be renamed.
    pub fn set_aside(&self) -> Result<PathBuf, StoreError> {
        let name = self.name();
        let aside = (1..10_000)
            .map(|n| self.path.with_file_name(format!("{name}.broken-{n}")))
            .find(|path| fs::symlink_metadata(path).is_err())
            .unwrap_or_else(|| self.path.with_file_name(format!("{name}.broken-last")));
        match fs::rename(&self.path, &aside) {
            Ok(()) => Ok(aside),
            Err(source) => Err(StoreError::Write {
                path: self.path.clone(),
                step: "set the broken file aside",
                source,
            }),
        }
    }

    /// Always the same name: a crash between write and rename leaves one file that the next write takes over, not a heap of them.
    fn temporary(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.tmp-vpcnetd", self.name()))
    }

    fn name(&self) -> String {
        self.path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// Makes the directory that will hold `path`, mode 0755, if it is not there.
///
/// # Errors
/// [`StoreError::Write`].
pub fn make_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(|source| StoreError::Write {
        path: path.to_path_buf(),
        step: "make its directory",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_written_is_read_back_and_nothing_else_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("ipam.json"));
        assert_eq!(store.read().unwrap(), None);
        store.write(b"one").unwrap();
        store.write(b"two").unwrap();
        assert_eq!(store.read().unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(
            fs::metadata(store.path()).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_crash_between_write_and_rename_leaves_the_old_content_and_the_next_write_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("ipam.json"));
        store.write(b"old").unwrap();
        // What a killed agent leaves behind: a temporary file, longer than what comes next.
        fs::write(store.temporary(), b"half of something that was never renam").unwrap();
        assert_eq!(store.read().unwrap().unwrap(), b"old");
        store.write(b"new").unwrap();
        assert_eq!(store.read().unwrap().unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("missing").join("ipam.json"));
        let error = store.write(b"x").unwrap_err().to_string();
        assert!(
            error.contains("missing/ipam.json") && error.contains("create temporary file"),
            "{error}"
        );
    }

    #[test]
    fn broken_files_are_kept_under_numbered_names() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("ipam.json"));
        for n in 1..=3 {
            store.write(b"{").unwrap();
            assert_eq!(
                store.set_aside().unwrap(),
                dir.path().join(format!("ipam.json.broken-{n}"))
            );
            assert_eq!(store.read().unwrap(), None);
        }
    }
}
