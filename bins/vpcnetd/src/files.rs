//! What is on disk at start: the checkpoint and our own state, each broken one set aside and told of.

use vpcnet_ipam::Checkpoint;

use crate::config::Config;
use crate::core::Files;
use crate::metrics::Metrics;
use crate::state::StateFile;
use crate::store::{FileStore, make_parent};

/// What could be read.
#[derive(Default)]
pub struct Found {
    /// The checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Our own state.
    pub state: Option<StateFile>,
    /// What was wrong, one sentence each.
    pub notes: Vec<String>,
}

/// Where the files are.
#[must_use]
pub fn stores(config: &Config) -> Files {
    Files {
        checkpoint: FileStore::new(config.checkpoint.clone()),
        state: FileStore::new(config.state.clone()),
    }
}

/// Reads both. Nothing here is fatal: owners can be rebuilt from the kernel, and the rest can be asked for again.
#[must_use]
pub fn read(files: &Files, metrics: &Metrics) -> Found {
    let mut found = Found::default();
    for store in [&files.checkpoint, &files.state] {
        if let Err(error) = make_parent(store.path()) {
            found.notes.push(error.to_string());
        }
    }
    found.checkpoint = usable(&files.checkpoint, metrics, &mut found.notes, Checkpoint::parse);
    found.state = usable(&files.state, metrics, &mut found.notes, StateFile::parse);
    found
}

fn usable<T, E: std::error::Error>(
    store: &FileStore,
    metrics: &Metrics,
    notes: &mut Vec<String>,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Option<T> {
    let bytes = match store.read() {
        Ok(bytes) => bytes?,
        Err(error) => {
            notes.push(error.to_string());
            return None;
        }
    };
    let error = match parse(&bytes) {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    metrics.broken_files.inc();
    let path = store.path().display();
    notes.push(match store.set_aside() {
        Ok(aside) => format!("{path} is broken ({error}); it was kept as {}", aside.display()),
        Err(left) => format!("{path} is broken ({error}) and will be overwritten: {left}"),
    });
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &std::path::Path) -> Files {
        Files {
            checkpoint: FileStore::new(dir.join("ipam.json")),
            state: FileStore::new(dir.join("state.json")),
        }
    }

    #[test]
    fn missing_files_are_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let found = read(&files(&dir.path().join("new")), &Metrics::new().unwrap());
        assert!(found.checkpoint.is_none() && found.state.is_none() && found.notes.is_empty());
        assert!(dir.path().join("new").is_dir(), "their directory is made");
    }

    #[test]
    fn broken_files_are_set_aside_counted_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        files
            .checkpoint
            .write(br#"{"version":"vpc-cni-ipam/1","allocations":[{"#)
            .unwrap();
        files.state.write(br#"{"format":"other/9"}"#).unwrap();
        let metrics = Metrics::new().unwrap();
        let found = read(&files, &metrics);
        assert!(found.checkpoint.is_none() && found.state.is_none());
        assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
        assert!(
            found.notes[0].contains("ipam.json.broken-1"),
            "{}",
            found.notes[0]
        );
        assert_eq!(metrics.broken_files.get(), 2);
        assert!(!files.checkpoint.path().exists() && dir.path().join("ipam.json.broken-1").exists());
    }

    #[test]
    fn a_checkpoint_of_the_original_is_read_and_known_as_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let text = br#"{"version":"vpc-cni-ipam/1","allocations":[{"networkName":"aws-cni","containerID":"c1","ifName":"eth0","ipv4":"10.0.1.23","allocationTimestamp":1,"metadata":{"k8sPodNamespace":"default","k8sPodName":"web-0"}}]}"#;
        files.checkpoint.write(text).unwrap();
        let found = read(&files, &Metrics::new().unwrap());
        let checkpoint = found.checkpoint.unwrap();
        assert!(!checkpoint.ours && checkpoint.allocations.len() == 1 && found.notes.is_empty());
    }

    #[test]
    fn whatever_is_wrong_with_a_checkpoint_it_is_kept_to_the_byte_and_told_with_the_reason() {
        let entry = |id: &str, address: &str| {
            format!(r#"{{"networkName":"aws-cni","containerID":"{id}","ifName":"eth0","ipv4":"{address}"}}"#)
        };
        let (one, two, again) = (
            entry("c1", "10.0.1.1"),
            entry("c2", "10.0.1.2"),
            entry("c3", "10.0.1.1"),
        );
        let whole = format!(r#"{{"version":"vpc-cni-ipam/1","allocations":[{one},{two}]}}"#);
        let cases = [
            (String::new(), "EOF"),
            (whole[..whole.len() / 2].to_owned(), "EOF"),
            (whole[..whole.len() - 1].to_owned(), "EOF"),
            (
                whole.replace("ipam/1", "ipam/2"),
                "\"vpc-cni-ipam/2\" is not \"vpc-cni-ipam/1\"",
            ),
            (
                format!(r#"{{"version":"vpc-cni-ipam/1","allocations":[{one},{two},{again}]}}"#),
                "10.0.1.1 is in the checkpoint twice, for aws-cni/c1/eth0 and for aws-cni/c3/eth0",
            ),
            (whole.replace("10.0.1.2", "10.0.1.256"), "line 1 column"),
            (whole.replace(r#","ipv4":"10.0.1.2""#, ""), "has no address"),
            ("<html>502 Bad Gateway</html>".to_owned(), "line 1 column 1"),
            ("\0".repeat(4096), "line 1 column 1"),
        ];
        for (content, reason) in cases {
            let dir = tempfile::tempdir().unwrap();
            let files = files(dir.path());
            std::fs::write(files.checkpoint.path(), &content).unwrap();
            let metrics = Metrics::new().unwrap();
            let found = read(&files, &metrics);
            assert!(found.checkpoint.is_none(), "{content}");
            let [note] = &found.notes[..] else {
                panic!("{:?}", found.notes)
            };
            assert!(
                note.contains(reason) && note.contains("ipam.json.broken-1"),
                "{note}"
            );
            let kept = std::fs::read(dir.path().join("ipam.json.broken-1")).unwrap();
            assert_eq!(kept, content.as_bytes());
            assert_eq!(metrics.broken_files.get(), 1);
        }
    }
}
