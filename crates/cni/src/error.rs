//! The error object: what a failing plugin prints on stdout.

use serde_json::{Value, json};

use crate::version::SpecVersion;

/// A code of the error object: those of the specification ("Error", table of codes), and from 100 on the plugin's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u32);

impl Code {
    /// The configuration's version is not spoken, or does not define the verb.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field of the configuration is not supported; the message names key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// Tells the runtime that no DEL is needed: not for general use.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// A variable is missing or malformed; the message names it.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Input or output failed, such as reading stdin.
    pub const IO_FAILURE: Self = Self(5);
    /// Content cannot be decoded.
    pub const DECODING_FAILURE: Self = Self(6);
    /// The configuration is decoded and makes no sense.
    pub const INVALID_CONFIG: Self = Self(7);
    /// The namespace is none, or must not be this one. Not in the specification's table: the reference library's.
    pub const INVALID_NETNS: Self = Self(8);
    /// Transient: the runtime should try later.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: ADD cannot be served now.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: ADD cannot be served now, and pods that run may be impaired.
    pub const LIMITED_CONNECTIVITY: Self = Self(51);
}

/// What a failing plugin prints on stdout, before it ends with a status other than 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorObject {
    /// The configuration's version, or the newest when it has none that we speak.
    pub version: SpecVersion,
    /// What kind of failure.
    pub code: Code,
    /// The thing, the cause, and what can be done; one line.
    pub msg: String,
    /// More of it; left out when empty.
    pub details: String,
}

impl ErrorObject {
    /// As printed.
    pub fn to_json(&self) -> Value {
        let mut object = json!({ "cniVersion": self.version.as_str(), "code": self.code.0, "msg": self.msg });
        if let (false, Some(map)) = (self.details.is_empty(), object.as_object_mut()) {
            map.insert("details".to_owned(), Value::from(self.details.as_str()));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_the_specifications_keys() {
        let mut error = ErrorObject {
            version: SpecVersion::V0_4_0,
            code: Code::TRY_AGAIN_LATER,
            msg: "m".to_owned(),
            details: String::new(),
        };
        assert_eq!(
            error.to_json(),
            json!({ "cniVersion": "0.4.0", "code": 11, "msg": "m" })
        );
        error.details = "d".to_owned();
        assert_eq!(error.to_json()["details"], "d");
    }
}
