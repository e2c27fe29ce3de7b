//! The log: JSON lines in a rotated file, as the AWS VPC CNI writes them, or text on a standard stream.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{DEFAULT_LOG_FILE, LogLevel, LogSettings, LogTarget};

/// A file is renamed when it has this many bytes (the original's 100 MB).
const ROTATE_AT: u64 = 100 * 1024 * 1024;
/// How many old files are kept.
const KEEP: u32 = 5;

/// Starts the log. Returns what went wrong on the way, for the log itself.
pub fn start(settings: &LogSettings) -> Option<String> {
    let (target, mut note) = (resolve(&settings.target), None);
    let level = match settings.level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    // Other crates' lines are kept only from warnings up: the HTTP/2 stack alone writes dozens for every ADD.
    let filter = Targets::new()
        .with_default(Level::WARN)
        .with_target("vpcnet", level)
        .with_target("vpcnetd", level)
        .with_target("vpcnet_cloud", level)
        .with_target("vpcnet_linux", level);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match target {
        LogTarget::File(path) => match Rotated::open(&path, ROTATE_AT) {
            Ok(file) => registry
                .with(
                    fmt::layer()
                        .json()
                        .flatten_event(true)
                        .with_writer(Mutex::new(file)),
                )
                .try_init(),
            Err(error) => {
                note = Some(format!(
                    "cannot write the log to {}: {error}; it goes to stderr",
                    path.display()
                ));
                registry
                    .with(fmt::layer().with_ansi(false).with_writer(io::stderr))
                    .try_init()
            }
        },
        LogTarget::Stdout => registry
            .with(fmt::layer().with_ansi(false).with_writer(io::stdout))
            .try_init(),
        LogTarget::Stderr | LogTarget::Default => registry
            .with(fmt::layer().with_ansi(false).with_writer(io::stderr))
            .try_init(),
    };
    started.err().map(|error| error.to_string()).or(note)
}

/// The original's file is used only where its directory is mounted: outside its image the path means nothing.
fn resolve(target: &LogTarget) -> LogTarget {
    match target {
        LogTarget::Default => {
            let path = Path::new(DEFAULT_LOG_FILE);
            if path.parent().is_some_and(Path::is_dir) {
                LogTarget::File(path.into())
            } else {
                LogTarget::Stderr
            }
        }
        other => other.clone(),
    }
}

/// A log file that becomes `<name>.1` when it is full, while `<name>.1` becomes `<name>.2` and so on.
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl Rotated {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_path_buf(),
            file,
            size,
            limit,
        })
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..KEEP).rev() {
            // Missing ones are the normal case until the log has been full that often.
            let _ = fs::rename(self.numbered(n), self.numbered(n + 1));
        }
        fs::rename(&self.path, self.numbered(1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for Rotated {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size >= self.limit {
            // A log that cannot be rotated goes on growing rather than lose lines.
            let _ = self.rotate();
        }
        let written = self.file.write(line)?;
        self.size = self.size.saturating_add(u64::try_from(written).unwrap_or(0));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Takes the lock of something that stays usable after a panic elsewhere.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_renamed_and_only_five_old_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs").join("a.log");
        let mut log = Rotated::open(&path, 10).unwrap();
        for n in 0..20 {
            // Whole lines, as the subscriber writes them: `writeln!` would write in parts, and a file could end in one.
            log.write_all(format!("line number {n}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line number 19\n");
        assert_eq!(fs::read_to_string(log.numbered(1)).unwrap(), "line number 18\n");
        assert_eq!(fs::read_to_string(log.numbered(5)).unwrap(), "line number 14\n");
        assert!(!log.numbered(6).exists());
    }

    #[test]
    fn an_old_log_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "before\n").unwrap();
        let mut log = Rotated::open(&path, 1000).unwrap();
        log.write_all(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
        assert_eq!(log.size, 13);
    }
}
