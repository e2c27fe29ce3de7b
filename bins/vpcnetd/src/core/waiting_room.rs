//! Calls that arrive before the agent knows its instance: ADDs wait there, DELs are sent back.

use std::collections::BTreeMap;
use std::time::Duration;

use vpcnet_ipam::{Answer, Mono, Refusal, RefusalCause, RequestId};

use super::Told;
use super::handle::{Call, Wish};

/// How soon a caller is told to come back: IMDS is asked again within this time.
const RETRY_IN: Duration = Duration::from_secs(5);

/// The waiting calls, in order of arrival.
#[derive(Default)]
pub(crate) struct WaitingRoom {
    calls: BTreeMap<RequestId, Call>,
    why: String,
    /// Those who were refused, for the core to note.
    pub(crate) told: Vec<Told>,
}

impl WaitingRoom {
    /// Why the calls wait.
    pub(crate) fn why(&self) -> &str {
        if self.why.is_empty() {
            "reading the instance's identity"
        } else {
            &self.why
        }
    }

    pub(crate) fn set_why(&mut self, why: String) {
        self.why = why;
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Takes a call in; one that cannot wait is answered.
    pub(crate) fn enter(&mut self, call: Call) {
        match call.wish {
            Wish::Address { .. } => {
                self.calls.insert(call.request, call);
            }
            // The plugin then takes the pod's wiring down by itself, and the address is freed at the agent's start,
            // when its veth is found missing. Waiting would hold up the sandbox's end for nothing.
            Wish::GiveBack => {
                let waiting: Vec<RequestId> = self
                    .calls
                    .values()
                    .filter(|c| c.key == call.key)
                    .map(|c| c.request)
                    .collect();
                for request in waiting {
                    if let Some(add) = self.calls.remove(&request) {
                        self.send(
                            add,
                            refusal(
                                RefusalCause::Deleted,
                                "the sandbox was deleted while its ADD waited".into(),
                            ),
                        );
                    }
                }
                let text = self.sentence("its address is not given back yet");
                self.send(call, refusal(RefusalCause::StillWorking, text));
            }
        }
    }

    /// A caller hung up.
    pub(crate) fn leave(&mut self, request: RequestId) {
        self.calls.remove(&request);
    }

    /// When the next deadline passes.
    pub(crate) fn next_wake(&self) -> Option<Mono> {
        self.calls.values().filter_map(deadline).min()
    }

    /// Refuses those whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Mono) {
        let over: Vec<RequestId> = self
            .calls
            .values()
            .filter(|c| deadline(c).is_some_and(|d| d <= now))
            .map(|c| c.request)
            .collect();
        for request in over {
            let text = self.sentence("no address was given");
            if let Some(call) = self.calls.remove(&request) {
                self.send(call, refusal(RefusalCause::StillWorking, text));
            }
        }
    }

    /// All calls, for the pool that is there at last.
    pub(crate) fn open(&mut self) -> impl Iterator<Item = Call> + use<> {
        std::mem::take(&mut self.calls).into_values()
    }

    /// A caller that has gone needs no refusal, but is told of.
    fn send(&mut self, call: Call, answer: Answer) {
        self.told.push(Told {
            answer: answer.clone(),
            is_add: matches!(call.wish, Wish::Address { .. }),
            key: call.key,
            meta: call.meta,
            took: call.arrived.elapsed(),
            stages: None,
        });
        let _ = call.reply.send(answer);
    }

    fn sentence(&self, what: &str) -> String {
        format!(
            "{what}: the agent is starting and waits for its instance's data: {}",
            self.why()
        )
    }
}

fn deadline(call: &Call) -> Option<Mono> {
    match call.wish {
        Wish::Address { deadline, .. } => Some(deadline),
        Wish::GiveBack => None,
    }
}

fn refusal(cause: RefusalCause, message: String) -> Answer {
    Answer::Refused(Refusal {
        cause,
        message,
        retry_in: Some(RETRY_IN),
    })
}
