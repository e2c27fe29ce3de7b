//! An environment from where it is written: of this process, as lines, or in a manifest.

use yaml_rust2::YamlLoader;

use super::{SourceError, manifest};

/// Settings, and what their source could not show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// Name and value, in the order they stand there.
    pub(super) settings: Vec<(String, String)>,
    /// Sentences for the notes.
    pub(super) remarks: Vec<String>,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        Self {
            settings: std::env::vars_os().map(|(n, v)| (text(n), text(v))).collect(),
            remarks: Vec::new(),
        }
    }
}

/// Tells by the first line that says something which form it is.
pub(super) fn parse(path: &str, text: &str, container: Option<&str>) -> Result<Environment, SourceError> {
    let first = text
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty() && !l.starts_with('#'));
    let syntax = |message: String| SourceError::Syntax {
        path: path.to_owned(),
        message,
    };
    let documents = match first {
        None => return Ok(Environment::default()),
        Some(line) if setting(line).is_some() => return lines(path, text),
        Some(line) if line.starts_with(['{', '[']) => {
            vec![serde_json::from_str(text).map_err(|e| syntax(e.to_string()))?]
        }
        Some(_) => YamlLoader::load_from_str(text)
            .map_err(|e| syntax(e.to_string()))?
            .iter()
            .map(manifest::from_yaml)
            .collect(),
    };
    manifest::environment(path, &documents, container)
}

/// `NAME=VALUE` lines as `env` prints them, and as shells and systemd read them: `export` before and quotes around are taken off.
fn lines(path: &str, text: &str) -> Result<Environment, SourceError> {
    let mut found = Environment::default();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        found
            .settings
            .push(setting(line).ok_or_else(|| SourceError::Line {
                path: path.to_owned(),
                line: n + 1,
                text: line.to_owned(),
            })?);
    }
    Ok(found)
}

fn setting(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=')?;
    let mut letters = name.bytes();
    let begins = letters
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let goes_on = letters.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let bare = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    (begins && goes_on).then(|| (name.to_owned(), bare.unwrap_or(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Environment, SourceError> {
        parse("f", text, None)
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        read(text).unwrap().settings
    }

    fn want(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn lines_of_settings_are_read_as_shells_write_them() {
        assert_eq!(
            pairs("# a comment\n\nA=1\r\nexport B='two words'\n  C=\"{\"x\":\"y\"}\"\nD=\nE=a=b\n"),
            want(&[
                ("A", "1"),
                ("B", "two words"),
                ("C", "{\"x\":\"y\"}"),
                ("D", ""),
                ("E", "a=b")
            ])
        );
        assert_eq!(pairs(""), want(&[]));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = read("A=1\nnonsense\n").unwrap_err().to_string();
        assert!(error.starts_with("f, line 2: \"nonsense\""), "{error}");
        let error = read("A=1\n9=1\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn what_is_neither_form_says_where_it_stops_making_sense() {
        let error = read("a: [1\nb: }").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        let error = read("{\"a\": 1").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
