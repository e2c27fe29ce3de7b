//! A list that is kept current: listed once, then changed by what the API server sends, for as long as the process lives. The API server
//! may be away at any time; what was told before stands then.

mod lines;
mod pause;

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Version};
use crate::error::{ApiError, Status};
use crate::resource::{Metadata, Resource, Selection};
use lines::Lines;
use pause::pause;

/// Bookmarks come about once a minute. A watch on which nothing comes for so long is not trusted.
const SILENCE: Duration = Duration::from_secs(600);
/// A watch that ends sooner did not help: a pause comes before the next.
const SHORT: Duration = Duration::from_secs(5);

/// What is told.
#[derive(Debug)]
pub enum Told<K> {
    /// These are all there are.
    Listed(Vec<K>),
    /// This is new, or changed.
    Put(K),
    /// This is gone; its last state.
    Gone(K),
    /// Changes come from here on.
    Watching,
    /// They do not, for now; it is tried again, again and again.
    Away {
        /// Why.
        error: ApiError,
        /// When it is tried again.
        retry_in: Duration,
    },
}

/// How a watch ended.
enum Ended {
    /// As watches do: it goes on from here.
    Usually,
    /// The server does not have all changes since then any more.
    Expired,
    /// It broke, or the server said so.
    Broken(ApiError),
}

/// Follows a selection, for as long as it is polled.
pub async fn follow<K: Resource>(
    client: &Client,
    selection: &Selection,
    mut told: impl FnMut(Told<K>),
) -> Infallible {
    let draw = RandomState::new();
    let mut failures: u32 = 0;
    let mut version: Option<String> = None;
    let mut how = Version::Any;
    loop {
        let error = match once(client, selection, &mut version, how, &mut failures, &mut told).await {
            Ok(Ended::Usually) => continue,
            Ok(Ended::Expired) => {
                tracing::info!(
                    resource = K::PLURAL,
                    "the API server does not have all changes since then any more: listing anew"
                );
                // What is in the server's memory may be as old.
                how = Version::Latest;
                version = None;
                continue;
            }
            Ok(Ended::Broken(error)) | Err(error) => error,
        };
        if error.code().is_some() {
            // It answers and refuses: perhaps because of what it was asked to go on from.
            how = Version::Latest;
            version = None;
        }
        failures = failures.saturating_add(1);
        let retry_in = pause(failures, draw.hash_one(failures));
        told(Told::Away { error, retry_in });
        tokio::time::sleep(retry_in).await;
    }
}

/// Lists unless it is known where to go on, then watches until that ends.
async fn once<K: Resource>(
    client: &Client,
    selection: &Selection,
    version: &mut Option<String>,
    how: Version,
    failures: &mut u32,
    told: &mut impl FnMut(Told<K>),
) -> Result<Ended, ApiError> {
    let from = match version {
        Some(version) => version,
        None => {
            let list = client.list::<K>(selection, how).await?;
            told(Told::Listed(list.items));
            version.insert(list.metadata.resource_version)
        }
    };
    let body = client.watch::<K>(selection, from).await?;
    told(Told::Watching);
    let began = tokio::time::Instant::now();
    let ended = changes(client, body, from, told).await;
    match &ended {
        Ended::Usually | Ended::Expired if began.elapsed() < SHORT => {
            *failures = failures.saturating_add(1);
            let draw = RandomState::new();
            tokio::time::sleep(pause(*failures, draw.hash_one(*failures))).await;
        }
        _ => *failures = 0,
    }
    Ok(ended)
}

/// Tells what comes until the watch ends; `version` is then where the next one goes on.
async fn changes<K: Resource>(
    client: &Client,
    mut body: Incoming,
    version: &mut String,
    told: &mut impl FnMut(Told<K>),
) -> Ended {
    let mut lines = Lines::default();
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Ended::Broken(client.unreachable(&error)),
            Ok(None) | Err(_) => return Ended::Usually,
        };
        let Some(data) = frame.data_ref() else { continue };
        if lines.push(data).is_err() {
            return Ended::Broken(unreadable::<K>("a line is longer than any object"));
        }
        while let Some(line) = lines.next() {
            match read::<K>(line) {
                Ok(Change::Put(object)) => {
                    object.name().version.clone_into(version);
                    told(Told::Put(object));
                }
                Ok(Change::Gone(object)) => {
                    object.name().version.clone_into(version);
                    told(Told::Gone(object));
                }
                Ok(Change::Mark(at)) => *version = at,
                Ok(Change::Refused(status)) if status.code == 410 => return Ended::Expired,
                Ok(Change::Refused(status)) => {
                    return Ended::Broken(ApiError::Refused {
                        verb: "watch",
                        what: K::PLURAL.into(),
                        status,
                    });
                }
                Err(error) => return Ended::Broken(unreadable::<K>(&error.to_string())),
            }
        }
    }
}

fn unreadable<K: Resource>(cause: &str) -> ApiError {
    ApiError::Answer {
        verb: "watch",
        what: K::PLURAL.into(),
        cause: cause.to_owned(),
    }
}

/// One line of a watch.
enum Change<K> {
    Put(K),
    Gone(K),
    /// All before this is known.
    Mark(String),
    Refused(Status),
}

/// Reads a line (Kubernetes API concepts, "Efficient detection of changes").
fn read<K: Resource>(line: &[u8]) -> Result<Change<K>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Bookmark {
        metadata: Metadata,
    }
    let line: Line<'_> = serde_json::from_slice(line)?;
    let object = line.object.get();
    match line.kind.as_ref() {
        "ADDED" | "MODIFIED" => serde_json::from_str(object).map(Change::Put),
        "DELETED" => serde_json::from_str(object).map(Change::Gone),
        "BOOKMARK" => {
            serde_json::from_str(object).map(|b: Bookmark| Change::Mark(b.metadata.resource_version))
        }
        "ERROR" => serde_json::from_str(object).map(Change::Refused),
        other => Err(serde::de::Error::custom(format!("its type is {other:?}"))),
    }
}

/// Reads what a watch sends in any pieces, as `fuzz/` does. How many lines were of use.
#[must_use]
pub fn read_lines<K: Resource>(bytes: &[u8], piece: usize) -> usize {
    let mut lines = Lines::default();
    let mut of_use = 0;
    for piece in bytes.chunks(piece.max(1)) {
        if lines.push(piece).is_err() {
            return of_use;
        }
        while let Some(line) = lines.next() {
            of_use += usize::from(read::<K>(line).is_ok());
        }
    }
    of_use
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::objects::{Node, Pod};

    #[test]
    fn each_kind_of_line() {
        let object = r#"{"kind":"Node","metadata":{"name":"a","resourceVersion":"5"}}"#;
        let line = |kind: &str| read::<Node>(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes());
        assert!(matches!(line("ADDED").unwrap(), Change::Put(n) if n.metadata.name == "a"));
        assert!(matches!(line("MODIFIED").unwrap(), Change::Put(_)));
        assert!(matches!(line("DELETED").unwrap(), Change::Gone(_)));
        assert!(matches!(line("BOOKMARK").unwrap(), Change::Mark(v) if v == "5"));
        assert!(line("RENAMED").is_err());
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#;
        assert!(matches!(read::<Node>(gone).unwrap(), Change::Refused(s) if s.code == 410));
    }

    #[test]
    fn lines_may_come_in_any_pieces() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"b"}}}"#,
            "\n",
            r#"{"type":"DELETED","object":{"metadata":{"name":"a","namespace":"b"}}}"#,
            "\n",
            r#"{"type":"ADDED","object":"#
        );
        for piece in [1, 7, 64, 4096] {
            assert_eq!(read_lines::<Pod>(text.as_bytes(), piece), 2, "{piece}");
        }
    }
}
