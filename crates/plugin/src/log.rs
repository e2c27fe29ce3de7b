//! The plugin's log: JSON lines, each written in one piece, to the file the configuration names or to stderr.
//!
//! A log that cannot be written must not keep a pod from starting, so no function here fails.

use std::cell::OnceCell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Everything.
    Debug,
    /// One line for each call.
    Info,
    /// What is wrong without stopping the call.
    Warn,
    /// What stops it.
    Error,
}

impl Level {
    /// `pluginLogLevel`, with the AWS VPC CNI's tolerance: what is unknown is debug.
    pub fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "info" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "fatal" => Self::Error,
            _ => Self::Debug,
        }
    }
}

/// Where the log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTo {
    /// Standard error.
    Stderr,
    /// A file, made where it is missing.
    File(PathBuf),
}

impl LogTo {
    /// `pluginLogFile`.
    pub fn parse(text: &str) -> Self {
        match text {
            // Not stdout, even when asked: the result goes there, and a runtime could not read it among log lines.
            "" | "stderr" | "stdout" => Self::Stderr,
            path => Self::File(PathBuf::from(path)),
        }
    }
}

/// At this size the file is moved aside to `<path>.1` before the next line; that of the time before goes.
const FULL: u64 = 100 << 20;

/// Where this call's lines go.
pub struct Log {
    to: LogTo,
    /// Opened for the first line: most calls that go well have none, unless everything is logged.
    file: OnceCell<Option<File>>,
    level: Level,
    container: String,
    pod: String,
}

impl Log {
    /// A log for one call about this container (`CNI_CONTAINERID`) and pod (`namespace/name`). Where it cannot be opened,
    /// stderr takes its place and is told why.
    pub fn new(to: LogTo, level: Level, container: String, pod: String) -> Self {
        Self {
            to,
            file: OnceCell::new(),
            level,
            container,
            pod,
        }
    }

    /// What happened, step by step.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        self.line(Level::Debug, "debug", text);
    }

    /// One line for each call.
    pub fn info(&self, text: impl FnOnce() -> String) {
        self.line(Level::Info, "info", text);
    }

    /// Something is wrong that did not stop the call.
    pub fn warn(&self, text: impl FnOnce() -> String) {
        self.line(Level::Warn, "warn", text);
    }

    /// The call failed.
    pub fn error(&self, text: impl FnOnce() -> String) {
        self.line(Level::Error, "error", text);
    }

    fn line(&self, level: Level, name: &str, text: impl FnOnce() -> String) {
        if level < self.level {
            return;
        }
        let text = text();
        match self.file.get_or_init(|| self.open()) {
            Some(file) => self.write(file, name, &text),
            None => self.write(std::io::stderr().lock(), name, &text),
        }
    }

    fn open(&self) -> Option<File> {
        let LogTo::File(path) = &self.to else {
            return None;
        };
        match open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                let note = format!("pluginLogFile {}: {error}; logging to stderr", path.display());
                self.write(std::io::stderr().lock(), "warn", &note);
                None
            }
        }
    }

    fn write(&self, mut to: impl Write, name: &str, text: &str) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = json!({
            "level": name, "ts": timestamp(since), "msg": text, "container": self.container, "pod": self.pod,
        });
        let _lost_when_the_disk_is_full = to.write_all(format!("{line}\n").as_bytes());
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    // Append: several plugins write at once, and each line must land whole at the end.
    let append = || OpenOptions::new().append(true).create(true).open(path);
    let file = append()?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.len() >= FULL {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        std::fs::rename(path, aside)?;
        return append();
    }
    Ok(file)
}

/// RFC 3339 in UTC with milliseconds: `2024-02-29T12:00:00.000Z`. Proleptic Gregorian calendar, computed on
/// 400-year eras that begin on 1 March, where the leap day is the last of its year.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let milliseconds = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_known_moments() {
        let at = |s, ms| timestamp(Duration::from_secs(s) + Duration::from_millis(ms));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(1_704_067_199, 999), "2023-12-31T23:59:59.999Z");
        assert_eq!(at(1_709_208_000, 0), "2024-02-29T12:00:00.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_full_log_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin.log");
        File::create(&path).unwrap().set_len(FULL).unwrap();
        drop(open(&path).unwrap());
        assert_eq!(path.metadata().unwrap().len(), 0);
        assert_eq!(dir.path().join("plugin.log.1").metadata().unwrap().len(), FULL);
    }
}
