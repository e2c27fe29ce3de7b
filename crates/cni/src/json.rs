//! Reading JSON objects key by key, so that an error names the key, what was wanted and what stood there.

use serde_json::{Map, Value};

/// A value of the wrong kind in otherwise sound JSON.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{at}: expected {expected}, found {found}")]
pub struct DecodeError {
    /// Path of the value, `prevResult.ips[0].address`.
    pub at: String,
    /// What should stand there.
    pub expected: &'static str,
    /// What does.
    pub found: String,
}

/// A JSON object and its place in the whole. A key with the value `null` counts as absent, as in the reference library.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    map: &'a Map<String, Value>,
    at: String,
}

/// How a value is shown in an error: its kind, and short texts and numbers themselves.
fn show(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.chars().count() <= LONGEST => format!("the string {s:?}"),
        Value::String(_) => "a long string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

impl<'a> Object<'a> {
    /// `value` as an object; `at` is its place, empty for the outermost.
    ///
    /// # Errors
    /// It is something else.
    pub fn new(value: &'a Value, at: impl Into<String>) -> Result<Self, DecodeError> {
        let at = at.into();
        match value {
            Value::Object(map) => Ok(Self { map, at }),
            other => Err(wrong(place(at), "an object", other)),
        }
    }

    /// A map that is known to be one.
    pub fn of(map: &'a Map<String, Value>, at: impl Into<String>) -> Self {
        Self { map, at: at.into() }
    }

    /// Path of `key` here.
    pub fn path(&self, key: &str) -> String {
        if self.at.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.at)
        }
    }

    /// The value of `key`; nothing when absent or null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// A string.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, DecodeError> {
        self.kind(key, "a string", Value::as_str)
    }

    /// A number from 0 to 2^32 - 1 without a fraction.
    ///
    /// # Errors
    /// Another kind of value or number.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, DecodeError> {
        self.kind(key, "a whole number from 0 to 4294967295", |v| {
            v.as_u64().and_then(|n| u32::try_from(n).ok())
        })
    }

    /// The elements of an array, each with its path.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn array(&self, key: &str) -> Result<Option<Vec<(String, &'a Value)>>, DecodeError> {
        let found = self.kind(key, "an array", Value::as_array)?;
        Ok(found.map(|list| {
            list.iter()
                .enumerate()
                .map(|(i, v)| (format!("{}[{i}]", self.path(key)), v))
                .collect()
        }))
    }

    /// Strings of an array; none when absent.
    ///
    /// # Errors
    /// Another kind of value, also inside the array.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, DecodeError> {
        let list = self.array(key)?.unwrap_or_default();
        list.into_iter()
            .map(|(at, v)| {
                v.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong(at, "a string", v))
            })
            .collect()
    }

    /// An object.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn object(&self, key: &str) -> Result<Option<Object<'a>>, DecodeError> {
        self.value(key)
            .map(|v| Object::new(v, self.path(key)))
            .transpose()
    }

    /// A string that `parse` understands.
    ///
    /// # Errors
    /// Another kind of value, or `parse` returned nothing.
    pub fn parsed<T>(
        &self,
        key: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        self.kind(key, expected, |v| v.as_str().and_then(&parse))
    }

    /// The error that `key` is missing.
    pub fn missing(&self, key: &str, expected: &'static str) -> DecodeError {
        DecodeError {
            at: self.path(key),
            expected,
            found: "nothing".to_owned(),
        }
    }

    fn kind<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(wrong(self.path(key), expected, value)),
            },
        }
    }
}

fn place(at: String) -> String {
    if at.is_empty() { "the whole".to_owned() } else { at }
}

fn wrong(at: String, expected: &'static str, found: &Value) -> DecodeError {
    DecodeError {
        at,
        expected,
        found: show(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_names_path_expectation_and_find() {
        let value = json!({ "a": { "b": [1, "x"] } });
        let object = Object::new(&value, "").unwrap().object("a").unwrap().unwrap();
        assert_eq!(
            object.strings("b").unwrap_err().to_string(),
            "a.b[0]: expected a string, found the number 1"
        );
        assert_eq!(
            Object::new(&json!([]), "").unwrap_err().to_string(),
            "the whole: expected an object, found an array"
        );
    }

    #[test]
    fn null_counts_as_absent() {
        let value = json!({ "a": null });
        assert_eq!(Object::new(&value, "").unwrap().string("a").unwrap(), None);
    }

    #[test]
    fn numbers_keep_their_range() {
        let value = json!({ "max": 4_294_967_295_u64, "over": 4_294_967_296_u64, "below": -1, "part": 1.5 });
        let object = Object::new(&value, "").unwrap();
        assert_eq!(object.u32("max").unwrap(), Some(u32::MAX));
        for key in ["over", "below", "part"] {
            assert!(object.u32(key).is_err(), "{key}");
        }
    }
}
