//! Putting a file in the place of another one: at every moment, also over a power cut, the name leads to the whole old or
//! to the whole new file, with its mode.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file could not be put there; what was there before still is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// What is to be copied.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Where it is to go.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Programs.
pub(crate) const EXECUTABLE: u32 = 0o755;
/// What everybody may read.
pub(crate) const READABLE: u32 = 0o644;

/// Copies `from` to `to`.
///
/// # Errors
/// [`PlaceError`].
pub(crate) fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), PlaceError> {
    let read = |source| PlaceError::Read {
        path: from.to_path_buf(),
        source,
    };
    let mut source = File::open(from).map_err(read)?;
    if !source.metadata().map_err(read)?.is_file() {
        return Err(read(io::Error::other("it is no regular file")));
    }
    put(to, mode, |file| io::copy(&mut source, file).map(drop))
}

/// Writes `bytes` to `to`.
///
/// # Errors
/// [`PlaceError::Write`].
pub(crate) fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<(), PlaceError> {
    put(to, mode, |file| io::Write::write_all(file, bytes))
}

fn put(to: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), PlaceError> {
    let new = beside(to);
    let make = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        fill(&mut file)?;
        // Whatever the umask is, and whatever one that was killed has left.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, to)?;
        sync_directory(to)
    };
    make().map_err(|source| {
        // It holds nothing that anybody waits for.
        let _ = fs::remove_file(&new);
        PlaceError::Write {
            path: to.to_path_buf(),
            source,
        }
    })
}

/// In the same directory, so that a rename does it; and with an ending that no runtime takes for a network's configuration.
fn beside(to: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".new");
    to.with_file_name(name)
}

fn sync_directory(of: &Path) -> io::Result<()> {
    of.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_takes_the_place_of_another_with_its_mode_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("plugin"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        // Of an installer that was killed, with a mode that must not be kept.
        fs::write(dir.path().join(".plugin.new"), "ne and more").unwrap();
        copy(&from, &to, EXECUTABLE).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(names(dir.path()), ["from", "plugin"]);
    }

    #[test]
    fn whoever_has_the_old_file_open_goes_on_reading_the_old_one() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("plugin");
        write(&to, b"old", EXECUTABLE).unwrap();
        let mut running = File::open(&to).unwrap();
        write(&to, b"new", EXECUTABLE).unwrap();
        let mut text = String::new();
        running.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
    }

    #[test]
    fn what_fails_names_the_file_and_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("plugin");
        fs::write(&to, "old").unwrap();
        let error = copy(&dir.path().join("none"), &to, EXECUTABLE).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        let error = copy(dir.path(), &to, EXECUTABLE).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        let gone = dir.path().join("gone/plugin");
        let error = write(&gone, b"", READABLE).unwrap_err();
        assert!(error.to_string().contains("gone/plugin"), "{error}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
        assert_eq!(names(dir.path()), ["plugin"]);
    }
}
