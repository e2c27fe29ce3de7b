//! `KUBECONFIG`: the file format of kubectl (v1 `Config`), as far as an agent can use it. What needs a program to be run, and what makes a
//! connection less safe, is refused by name.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use yaml_rust2::{Yaml, YamlLoader};

use crate::access::{self, Access, AccessError, Credential, Pem};

/// Reads it.
///
/// # Errors
/// [`AccessError::Read`], [`AccessError::Kubeconfig`] with the field.
pub(crate) fn read(path: &Path) -> Result<Access, AccessError> {
    let text = String::from_utf8_lossy(&access::read(path)?).into_owned();
    let file = File { path };
    let documents = YamlLoader::load_from_str(&text).map_err(|e| file.wrong("", e.to_string()))?;
    let root = documents.first().ok_or_else(|| file.wrong("", "it is empty"))?;
    file.access(root)
}

struct File<'a> {
    path: &'a Path,
}

impl File<'_> {
    fn wrong(&self, field: &str, reason: impl Into<String>) -> AccessError {
        AccessError::Kubeconfig {
            path: self.path.to_owned(),
            field: if field.is_empty() { "file" } else { field }.to_owned(),
            reason: reason.into(),
        }
    }

    fn access(&self, root: &Yaml) -> Result<Access, AccessError> {
        let current =
            text(root, "current-context").ok_or_else(|| self.wrong("current-context", "it is not set"))?;
        let context = self.named(root, "contexts", "context", current)?;
        let cluster =
            text(context, "cluster").ok_or_else(|| self.wrong("context.cluster", "it is not set"))?;
        let cluster = self.named(root, "clusters", "cluster", cluster)?;
        for field in ["insecure-skip-tls-verify", "tls-server-name", "proxy-url"] {
            if !matches!(
                get(cluster, field),
                Yaml::BadValue | Yaml::Null | Yaml::Boolean(false)
            ) {
                return Err(self.wrong(&format!("cluster.{field}"), "vpcnet does not do this; remove it"));
            }
        }
        let server = text(cluster, "server").ok_or_else(|| self.wrong("cluster.server", "it is not set"))?;
        let server = access::url("cluster.server", server)
            .map_err(|error| self.wrong("cluster.server", error.to_string()))?;
        let credential = match text(context, "user") {
            Some(name) => self.credential(self.named(root, "users", "user", name)?)?,
            None => Credential::None,
        };
        Ok(Access {
            server,
            authority: self.pem(cluster, "certificate-authority", "cluster")?,
            credential,
            namespace: text(context, "namespace").map(str::to_owned),
        })
    }

    fn credential(&self, user: &Yaml) -> Result<Credential, AccessError> {
        for field in ["exec", "auth-provider", "username"] {
            if !matches!(get(user, field), Yaml::BadValue | Yaml::Null) {
                return Err(self.wrong(
                    &format!("user.{field}"),
                    "vpcnet cannot authenticate this way: give a token, tokenFile or client certificate",
                ));
            }
        }
        // As client-go: the file goes before the token.
        if let Some(path) = text(user, "tokenFile") {
            return Ok(Credential::TokenFile(self.beside(path)));
        }
        if let Some(token) = text(user, "token") {
            return Ok(Credential::Token(token.to_owned()));
        }
        let chain = self.pem(user, "client-certificate", "user")?;
        let key = self.pem(user, "client-key", "user")?;
        match (chain, key) {
            (Some(chain), Some(key)) => Ok(Credential::Certificate { chain, key }),
            (None, None) => Ok(Credential::None),
            (Some(_), None) => Err(self.wrong("user.client-key", "the certificate has no key")),
            (None, Some(_)) => Err(self.wrong("user.client-certificate", "the key has no certificate")),
        }
    }

    /// The entry of a list by its name.
    fn named<'y>(&self, root: &'y Yaml, list: &str, item: &str, name: &str) -> Result<&'y Yaml, AccessError> {
        let entries = get(root, list).as_vec().map(Vec::as_slice).unwrap_or_default();
        let entry = entries.iter().find(|e| text(e, "name") == Some(name));
        entry
            .map(|e| get(e, item))
            .ok_or_else(|| self.wrong(list, format!("there is none named {name:?}")))
    }

    /// `<field>-data` in base64, else `<field>` as a path.
    fn pem(&self, of: &Yaml, field: &str, place: &str) -> Result<Option<Pem>, AccessError> {
        let data = format!("{field}-data");
        if let Some(encoded) = text(of, &data).filter(|d| !d.is_empty()) {
            let text = STANDARD
                .decode(encoded.trim())
                .map_err(|e| self.wrong(&format!("{place}.{data}"), format!("it is not base64: {e}")))?;
            return Ok(Some(Pem::Text(text)));
        }
        Ok(text(of, field).map(|path| Pem::File(self.beside(path))))
    }

    /// Relative paths are relative to the file.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

fn get<'y>(of: &'y Yaml, key: &str) -> &'y Yaml {
    of.as_hash()
        .and_then(|h| h.get(&Yaml::String(key.to_owned())))
        .unwrap_or(&Yaml::BadValue)
}

fn text<'y>(of: &'y Yaml, key: &str) -> Option<&'y str> {
    get(of, key).as_str()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(text: &str) -> Result<Access, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|e| e.to_string())
    }

    const WHOLE: &str = r#"
apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: there, context: {cluster: other, user: other}}
- {name: here, context: {cluster: c, user: u, namespace: kube-system}}
clusters:
- {name: c, cluster: {server: "https://10.0.0.1:6443", CA}}
users:
- {name: u, user: {USER}}
"#;

    fn whole(authority: &str, user: &str) -> Result<Access, String> {
        of(&WHOLE
            .replace("CA}", &format!("{authority}}}"))
            .replace("{USER}", &format!("{{{user}}}")))
    }

    #[test]
    fn the_current_context_is_used() {
        let access = whole("certificate-authority: /pki/ca.crt", "token: abc").unwrap();
        assert_eq!(access.server.to_string(), "https://10.0.0.1:6443/");
        assert_eq!(access.authority, Some(Pem::File("/pki/ca.crt".into())));
        assert_eq!(access.credential, Credential::Token("abc".into()));
        assert_eq!(access.namespace.as_deref(), Some("kube-system"));
    }

    #[test]
    fn json_is_yaml() {
        let access = of(
            r#"{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a"}}],
            "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:8001"}}]}"#,
        )
        .unwrap();
        assert_eq!(access.credential, Credential::None);
        assert_eq!(access.authority, None);
    }

    #[test]
    fn paths_are_relative_to_the_file_and_data_goes_before_them() {
        let access = whole(
            "certificate-authority-data: aGVsbG8=, certificate-authority: x",
            "tokenFile: token",
        )
        .unwrap();
        assert_eq!(access.authority, Some(Pem::Text(b"hello".to_vec())));
        let Credential::TokenFile(path) = access.credential else {
            panic!("{access:?}")
        };
        assert!(path.is_absolute() && path.ends_with("token"));
        let access = whole("", "client-certificate: a.crt, client-key: a.key").unwrap();
        assert!(matches!(access.credential, Credential::Certificate { .. }));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_field() {
        for (authority, user, field) in [
            (
                "insecure-skip-tls-verify: true",
                "",
                "cluster.insecure-skip-tls-verify",
            ),
            (
                "certificate-authority-data: '%%%'",
                "",
                "cluster.certificate-authority-data",
            ),
            ("", "exec: {command: aws}", "user.exec"),
            ("", "client-certificate: a.crt", "user.client-key"),
        ] {
            let error = whole(authority, user).unwrap_err();
            assert!(error.contains(field) && error.contains("KUBECONFIG="), "{error}");
        }
        for (text, field) in [
            ("", "empty"),
            ("a: [", "file"),
            ("current-context: x", "contexts"),
            ("{}", "current-context"),
            (
                "{current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: nowhere}}]}",
                "cluster.server",
            ),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
