//! Whose address is whose, in the files of CNI's `host-local`: `dataDir/NETWORK/ADDRESS` holds the container's id and the
//! interface's name, `last_reserved_ip.0` the address that was given last, `lock` is locked (flock) by who reads to write. Pods
//! that the AWS VPC CNI gave an address by `host-local` are known here, and ours there.
//!
//! A file appears whole or not at all: it is written under another name and linked to its own. The lock ends with its process.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::failure::Failure;
use crate::range::Range;

/// Longer than any number of pods can keep an ADD waiting; who holds the lock this long hangs.
const PATIENCE: Duration = Duration::from_secs(30);
const LAST: &str = "last_reserved_ip.0";
const LOCK: &str = "lock";
/// A file that is being written. Only who has the lock writes, so one name is enough.
const DRAFT: &str = ".draft";

/// Who has an address: an attachment of the runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// `CNI_CONTAINERID`.
    pub(crate) container: String,
    /// `CNI_IFNAME`; none in files of old `host-local` releases.
    pub(crate) if_name: Option<String>,
}

impl Owner {
    /// Of an attachment.
    pub(crate) fn new(container: &str, if_name: &str) -> Self {
        Self {
            container: container.to_owned(),
            if_name: Some(if_name.to_owned()),
        }
    }

    /// Whether this attachment is the owner; an owner without interface is all of its container.
    pub(crate) fn is(&self, container: &str, if_name: &str) -> bool {
        self.container == container && self.if_name.as_deref().is_none_or(|own| own == if_name)
    }

    fn to_text(&self) -> String {
        match &self.if_name {
            Some(if_name) => format!("{}\r\n{if_name}", self.container),
            None => self.container.clone(),
        }
    }

    fn of_text(text: &str) -> Self {
        let mut lines = text.trim().lines();
        Self {
            container: lines.next().unwrap_or_default().trim().to_owned(),
            if_name: lines.next().map(|line| line.trim().to_owned()),
        }
    }
}

/// Every address that has an owner. No directory is none.
///
/// # Errors
/// [`Failure::Files`].
pub(crate) fn entries(dir: &Path) -> Result<Vec<(IpAddr, Owner)>, Failure> {
    let read = match fs::read_dir(dir) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("cannot list", dir)(error)),
    };
    let mut all = Vec::new();
    for entry in read {
        let entry = entry.map_err(failed("cannot list", dir))?;
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read(entry.path()) {
            Ok(text) => all.push((address, Owner::of_text(&String::from_utf8_lossy(&text)))),
            // Given back meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("cannot read", &entry.path())(error)),
        }
    }
    all.sort_by_key(|(address, _)| *address);
    Ok(all)
}

/// The files, while nobody else changes them.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Locks the files, and makes the directory if there is none.
    ///
    /// # Errors
    /// [`Failure::Files`], [`Failure::Locked`].
    pub(crate) fn lock(dir: &Path) -> Result<Self, Failure> {
        let make = || DirBuilder::new().recursive(true).mode(0o755).create(dir);
        make().map_err(failed("cannot make directory", dir))?;
        Self::lock_within(dir, PATIENCE)
    }

    /// Locks the files; none if there is no directory, so no address either.
    ///
    /// # Errors
    /// [`Failure::Files`], [`Failure::Locked`].
    pub(crate) fn lock_if_there(dir: &Path) -> Result<Option<Self>, Failure> {
        match fs::metadata(dir) {
            Ok(_) => Self::lock_within(dir, PATIENCE).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("cannot look at", dir)(error)),
        }
    }

    fn lock_within(dir: &Path, patience: Duration) -> Result<Self, Failure> {
        let path = dir.join(LOCK);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(failed("cannot open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock", &path)(error)),
            Err(TryLockError::WouldBlock) => wait(&file, &path, patience)?,
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            _lock: file,
        })
    }

    /// Gives an address of the range to `owner`. If none is left, those go first that nobody uses any more, as `in_use` tells: an
    /// address whose owner's ADD was cut short, and whose DEL never came.
    ///
    /// # Errors
    /// [`Failure::Full`], [`Failure::Files`], and what `in_use` gives.
    pub(crate) fn reserve(
        &mut self,
        range: &Range,
        owner: &Owner,
        mut in_use: impl FnMut(IpAddr, &Owner) -> Result<bool, Failure>,
    ) -> Result<IpAddr, Failure> {
        let draft = self.draft(&owner.to_text())?;
        let mut found = self.publish(&draft, range)?;
        if found.is_none() {
            for (address, owner) in entries(&self.dir)? {
                if range.has(address) && !in_use(address, &owner)? {
                    self.release(address)?;
                }
            }
            found = self.publish(&draft, range)?;
        }
        let removed = fs::remove_file(&draft);
        let address = found.ok_or_else(|| Failure::Full {
            size: range.len(),
            dir: self.dir.clone(),
        })?;
        removed.map_err(failed("cannot remove", &draft))?;
        // Only where the next search begins: without it, it begins where it did.
        let _is_a_hint = self.draft(&address.to_string()).and_then(|draft| {
            fs::rename(&draft, self.dir.join(LAST)).map_err(failed("cannot write", &draft))
        });
        Ok(address)
    }

    /// Links the draft to the first address that is free.
    fn publish(&self, draft: &Path, range: &Range) -> Result<Option<IpAddr>, Failure> {
        let last = fs::read_to_string(self.dir.join(LAST)).ok();
        let last = last.and_then(|text| text.trim().parse().ok());
        let mut taken = 0;
        for address in range.after(last) {
            let path = self.path(address);
            match fs::hard_link(draft, &path) {
                Ok(()) => return Ok(Some(address)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken += 1,
                Err(error) => return Err(failed("cannot write", &path)(error)),
            }
            // A full range is known from one look at the directory rather than from a thousand links.
            if taken == 16 {
                return self.publish_beside(draft, range, last);
            }
        }
        Ok(None)
    }

    fn publish_beside(
        &self,
        draft: &Path,
        range: &Range,
        last: Option<IpAddr>,
    ) -> Result<Option<IpAddr>, Failure> {
        let names = fs::read_dir(&self.dir).map_err(failed("cannot list", &self.dir))?;
        let taken: BTreeSet<IpAddr> = names
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let Some(address) = range.after(last).find(|address| !taken.contains(address)) else {
            return Ok(None);
        };
        let path = self.path(address);
        fs::hard_link(draft, &path).map_err(failed("cannot write", &path))?;
        Ok(Some(address))
    }

    /// Writes a file that is none yet.
    fn draft(&self, text: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join(DRAFT);
        let fail = failed("cannot write", &path);
        // Not truncated: a process that died may have linked it to an address.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(&fail)?;
        file.write_all(text.as_bytes()).map_err(&fail)?;
        Ok(path)
    }

    /// Gives an address back; one that has no owner is no error.
    ///
    /// # Errors
    /// [`Failure::Files`].
    pub(crate) fn release(&mut self, address: IpAddr) -> Result<(), Failure> {
        let path = self.path(address);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Every address that has an owner.
    ///
    /// # Errors
    /// [`Failure::Files`].
    pub(crate) fn entries(&self) -> Result<Vec<(IpAddr, Owner)>, Failure> {
        entries(&self.dir)
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.dir.join(address.to_string())
    }
}

/// Waits in a thread, which ends with the process: the kernel wakes it the moment the lock is free.
fn wait(file: &File, path: &Path, patience: Duration) -> Result<(), Failure> {
    let (done, locked) = mpsc::channel();
    let same = file.try_clone().map_err(failed("cannot lock", path))?;
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || {
            let outcome = loop {
                match same.lock() {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    outcome => break outcome,
                }
            };
            let _nobody_waits_any_more = done.send(outcome);
        })
        .map_err(failed("cannot wait for", path))?;
    match locked.recv_timeout(patience) {
        Ok(outcome) => outcome.map_err(failed("cannot lock", path)),
        Err(_) => Err(Failure::Locked {
            path: path.to_path_buf(),
            waited: patience,
        }),
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Failure + use<> {
    let path = path.to_path_buf();
    move |source| Failure::Files {
        action,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
