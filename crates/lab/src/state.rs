//! What a lab has made, on disk, written before the thing is made: so `down` finds all of it after any crash.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::fabric::names::Names;
use crate::kubernetes::machine::Group;
use crate::process::Process;

/// The state directory and its layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dir {
    path: PathBuf,
    base: String,
}

/// Everything the lab keeps in its directory; `down` removes these and nothing else.
const FILES: &[&str] = &["state.json", "state.json.new", "control.sock", "lock"];
const FOLDERS: &[&str] = &["log", "pods"];

impl Dir {
    /// The directory at `path`; its last part is the base of the namespaces' names.
    ///
    /// # Errors
    /// [`LabError::Usage`] when the last part does not fit into names of namespaces.
    pub fn new(path: &Path) -> Result<Self, LabError> {
        let path = std::path::absolute(path).map_err(LabError::file("find", path))?;
        let base = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default()
            .to_owned();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if base.is_empty() || base.len() > 64 || !base.chars().all(fits) || base.starts_with('.') {
            return Err(LabError::Usage(format!(
                "the state directory's name '{base}' names the namespaces too: use 1 to 64 letters, digits, '-', '_' or '.'"
            )));
        }
        Ok(Self { path, base })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its last part, with which every name of the lab begins.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The names that follow from it.
    #[must_use]
    pub fn names(&self) -> Names {
        Names::new(&self.base)
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Where logs are.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where pods are recorded.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }

    fn state(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// Makes the directory and its folders.
    ///
    /// # Errors
    /// [`LabError::File`]; also when something else already lies there.
    pub fn create(&self) -> Result<(), LabError> {
        if self.path.exists() && !self.state().exists() {
            let mut entries = fs::read_dir(&self.path).map_err(LabError::file("read", &self.path))?;
            if entries.any(|e| e.is_ok_and(|e| !is_ours(&e.file_name()))) {
                return Err(LabError::Usage(format!(
                    "{} holds things that are not a lab's: choose another --dir",
                    self.path.display()
                )));
            }
        }
        for folder in FOLDERS {
            let folder = self.path.join(folder);
            fs::create_dir_all(&folder).map_err(LabError::file("create", &folder))?;
        }
        Ok(())
    }

    /// Removes what a lab keeps in it, then the directory if nothing else is there.
    ///
    /// # Errors
    /// The first [`LabError::File`].
    pub fn remove(&self) -> Result<(), LabError> {
        let ok = |r: io::Result<()>, path: &Path| match r {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LabError::file("remove", path)(e)),
            _ => Ok(()),
        };
        for folder in FOLDERS {
            let folder = self.path.join(folder);
            ok(fs::remove_dir_all(&folder), &folder)?;
        }
        for file in FILES {
            let file = self.path.join(file);
            ok(fs::remove_file(&file), &file)?;
        }
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => ok(other, &self.path),
        }
    }
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|n| FILES.contains(&n) || FOLDERS.contains(&n))
}

/// What was made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Made {
    /// The daemon.
    pub daemon: Option<Process>,
    /// Named network namespaces.
    pub namespaces: Vec<String>,
    /// Processes beside the daemon, with what they are.
    pub processes: Vec<(String, Process)>,
    /// Control groups.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Directories outside this one.
    #[serde(default)]
    pub disks: Vec<PathBuf>,
    /// True when `/run/netns` was not made ready for names before.
    pub netns_dir: bool,
}

/// The record, kept in step with its file.
#[derive(Debug)]
pub struct Records {
    dir: Dir,
    made: Made,
}

impl Records {
    /// A new record, written.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn create(dir: &Dir, made: Made) -> Result<Self, LabError> {
        let records = Self {
            dir: dir.clone(),
            made,
        };
        records.write()?;
        Ok(records)
    }

    /// What an earlier process recorded; `None` when there is no lab.
    ///
    /// # Errors
    /// [`LabError::File`] when the file cannot be read or makes no sense.
    pub fn load(dir: &Dir) -> Result<Option<Made>, LabError> {
        let file = dir.state();
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|e| LabError::file("read", &file)(io::Error::other(e))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(LabError::file("read", &file)(e)),
        }
    }

    /// Changes the record and its file; to be called before the thing is made, or after it has gone.
    ///
    /// # Errors
    /// [`LabError::File`]; then nothing is to be made.
    pub fn change(&mut self, change: impl FnOnce(&mut Made)) -> Result<(), LabError> {
        change(&mut self.made);
        self.write()
    }

    fn write(&self) -> Result<(), LabError> {
        let (file, new) = (self.dir.state(), self.dir.path.join("state.json.new"));
        let text = serde_json::to_vec_pretty(&self.made)
            .map_err(|e| LabError::file("write", &file)(io::Error::other(e)))?;
        fs::File::create(&new)
            .and_then(|mut f| f.write_all(&text))
            .and_then(|()| fs::rename(&new, &file))
            .map_err(LabError::file("write", &file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_found_again_and_removal_takes_only_the_labs_own_files() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::new(&temp.path().join("lab-x")).unwrap();
        dir.create().unwrap();
        let mut records = Records::create(&dir, Made::default()).unwrap();
        records
            .change(|m| m.namespaces.push("lab-x-vpc".to_owned()))
            .unwrap();
        assert_eq!(
            Records::load(&dir).unwrap().unwrap().namespaces,
            vec!["lab-x-vpc"]
        );
        fs::write(dir.path().join("mine.txt"), "kept").unwrap();
        dir.remove().unwrap();
        assert!(dir.path().join("mine.txt").exists());
        assert!(!dir.state().exists());
        assert_eq!(Records::load(&dir).unwrap(), None);
    }

    #[test]
    fn a_directory_with_other_things_is_not_taken() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "").unwrap();
        let dir = Dir::new(temp.path()).map(|d| d.create());
        assert!(!matches!(dir, Ok(Ok(()))));
    }

    #[test]
    fn names_that_namespaces_cannot_have_are_refused() {
        for bad in ["/", "/tmp/a b", "/tmp/..", "/tmp/.x"] {
            assert!(Dir::new(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
