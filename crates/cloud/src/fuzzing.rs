//! The readers of what EC2 and IMDS send, laid open to the fuzz targets of this project. No interface for anybody else.

use crate::ec2;
use crate::imds::values::FORMS;
use crate::xml::ErrorDocument;

/// Reads a document as the answer of the action that its outermost element names, and shows what was read.
///
/// # Errors
/// What the caller of the action would be told.
pub fn ec2_answer(action: &str, body: &[u8]) -> Result<String, String> {
    ec2::shown(action, body)
}

/// The actions that [`ec2_answer`] knows.
pub const EC2_ACTIONS: [&str; 11] = ec2::SHOWN;

/// Code and message of an error document; `None` if it is none.
#[must_use]
pub fn ec2_error(body: &[u8]) -> Option<(String, String)> {
    ErrorDocument::parse(body).map(|e| (e.code, e.message))
}

/// Names of the forms that values of IMDS have.
#[must_use]
pub fn imds_forms() -> Vec<&'static str> {
    FORMS.iter().map(|(name, _)| *name).collect()
}

/// Reads a value, trimmed as the client does it, in a form; gives what was read, as words.
///
/// # Errors
/// What the reader of the value would be told; it names the path, which here is the form's name.
pub fn imds_value(form: &str, text: &str) -> Result<Vec<String>, String> {
    let read = FORMS.iter().find(|(name, _)| *name == form);
    match read {
        Some((_, read)) => read(text.trim()).map_err(|e| e.to_string()),
        None => Err(format!("no form {form:?}")),
    }
}
