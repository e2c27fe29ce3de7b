//! The versions of the specification, and what each of them has.

use serde_json::{Value, json};

use crate::env::Verb;

/// A version of the CNI specification that this crate speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SpecVersion {
    /// ADD, DEL, VERSION; results list interfaces.
    V0_3_1,
    /// Adds CHECK, and prevResult for DEL.
    V0_4_0,
    /// Addresses of a result no longer say whether they are version 4 or 6.
    V1_0_0,
    /// Adds GC and STATUS.
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest: what an answer speaks when the request does not say.
    pub const NEWEST: Self = Self::V1_1_0;

    /// By its exact text; nothing for versions this crate does not speak.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// `1.1.0` and the like.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether this version of the specification defines `verb`.
    pub fn defines(self, verb: Verb) -> bool {
        match verb {
            Verb::Add | Verb::Del | Verb::Version => true,
            Verb::Check => self >= Self::V0_4_0,
            Verb::Gc | Verb::Status => self >= Self::V1_1_0,
        }
    }

    /// Whether an address in a result carries `version` ("4" or "6").
    pub(crate) fn tells_ip_version(self) -> bool {
        self <= Self::V0_4_0
    }
}

impl std::fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION. `stdin` may be anything, also nothing: the question has to be answered in every case. A
/// version that we speak is echoed, as the specification asks; else the newest stands there.
pub fn version_answer(stdin: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(stdin).ok().and_then(|v| {
        v.get("cniVersion")
            .and_then(Value::as_str)
            .and_then(SpecVersion::parse)
    });
    json!({
        "cniVersion": asked.unwrap_or(SpecVersion::NEWEST).as_str(),
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_by_version_as_the_specification_adds_them() {
        let defined = |verb| SpecVersion::ALL.map(|v| v.defines(verb));
        assert_eq!(defined(Verb::Add), [true; 4]);
        assert_eq!(defined(Verb::Del), [true; 4]);
        assert_eq!(defined(Verb::Version), [true; 4]);
        assert_eq!(defined(Verb::Check), [false, true, true, true]);
        assert_eq!(defined(Verb::Gc), [false, false, false, true]);
        assert_eq!(defined(Verb::Status), [false, false, false, true]);
    }

    #[test]
    fn the_asked_version_is_echoed_when_it_is_spoken() {
        let answer = version_answer(br#"{"cniVersion":"0.4.0"}"#);
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(
            answer["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }

    #[test]
    fn anything_else_on_stdin_gets_the_newest() {
        for stdin in [
            &b""[..],
            b"\xff",
            b"[]",
            b"null",
            br#"{"cniVersion":"9.9.9"}"#,
            br#"{"cniVersion":4}"#,
        ] {
            assert_eq!(version_answer(stdin)["cniVersion"], "1.1.0");
        }
    }
}
