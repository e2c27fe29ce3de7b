//! The log of calls: the last ones in full, all of them counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

/// Which face a call came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Face {
    /// The EC2 API.
    Ec2,
    /// The metadata service.
    Imds,
}

/// Serialises a duration as a number of milliseconds, fractions included.
pub(crate) fn millis<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_secs_f64() * 1000.0)
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Call {
    /// Its number, from 1, over both faces.
    pub number: u64,
    /// Lab time of its arrival.
    #[serde(rename = "at_ms", serialize_with = "millis")]
    pub at: Duration,
    /// Which face.
    pub face: Face,
    /// Name of the node that made it, or of the role where no node did.
    pub caller: String,
    /// EC2 action, or IMDS path.
    pub action: String,
    /// `ok`, EC2's error code, an HTTP status, or what became of the answer: `hung`, `lost`.
    pub result: String,
    /// From arrival to answer.
    #[serde(rename = "latency_ms", serialize_with = "millis")]
    pub latency: Duration,
    /// EC2 request id; empty for IMDS.
    pub request_id: String,
}

/// How often an action ended how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CallCount {
    /// Which face.
    pub face: Face,
    /// Who.
    pub caller: String,
    /// EC2 action; all IMDS paths together are `GET` and `PUT`.
    pub action: String,
    /// How it ended.
    pub result: String,
    /// How often.
    pub count: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct CallLog {
    keep: usize,
    last: VecDeque<Call>,
    number: u64,
    counts: BTreeMap<(Face, String, String, String), u64>,
}

impl CallLog {
    pub(crate) const fn new(keep: usize) -> Self {
        Self {
            keep,
            last: VecDeque::new(),
            number: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Logs a call under the heading it is counted by.
    pub(crate) fn add(&mut self, mut call: Call, heading: &str) {
        self.number += 1;
        call.number = self.number;
        let key = (
            call.face,
            call.caller.clone(),
            heading.to_owned(),
            call.result.clone(),
        );
        *self.counts.entry(key).or_insert(0) += 1;
        self.last.push_back(call);
        while self.last.len() > self.keep {
            self.last.pop_front();
        }
    }

    pub(crate) fn last(&self) -> impl Iterator<Item = &Call> {
        self.last.iter()
    }

    pub(crate) fn counts(&self) -> Vec<CallCount> {
        self.counts
            .iter()
            .map(|((face, caller, action, result), count)| CallCount {
                face: *face,
                caller: caller.clone(),
                action: action.clone(),
                result: result.clone(),
                count: *count,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_the_counts_are_not() {
        let mut log = CallLog::new(3);
        for _ in 0..10 {
            let call = Call {
                number: 0,
                at: Duration::ZERO,
                face: Face::Ec2,
                caller: "node-1".to_owned(),
                action: "DescribeSubnets".to_owned(),
                result: "ok".to_owned(),
                latency: Duration::ZERO,
                request_id: String::new(),
            };
            log.add(call, "DescribeSubnets");
        }
        assert_eq!(log.last().map(|c| c.number).collect::<Vec<_>>(), [8, 9, 10]);
        assert_eq!(log.counts().len(), 1);
        assert_eq!(log.counts()[0].count, 10);
    }
}
