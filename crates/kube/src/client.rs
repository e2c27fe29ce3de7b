//! Typed requests.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::{self, Access, AccessError, Credential};
use crate::error::{ApiError, Status};
use crate::resource::{List, Resource, Selection, path, push_encoded};
use crate::transport::{Http, Material, chain};

/// From the request to the end of the answer; for a watch, to its beginning.
const WITHIN: Duration = Duration::from_secs(15);
/// The longest answer: ten times the metadata of the pods of the largest node.
const LONGEST: usize = 16 * 1024 * 1024;
/// The longest answer of a refusal.
const LONGEST_STATUS: usize = 64 * 1024;

/// How current a list has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// As the API server has it in memory: cheap, and perhaps a little behind.
    Any,
    /// As it is.
    Latest,
}

/// A client of one API server. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    access: Access,
    agent: String,
    made: Mutex<Made>,
}

/// The connections and what they were made with.
#[derive(Default)]
struct Made {
    http: Option<(Material, Http)>,
    /// A connection could not be made: perhaps because certificates have been renewed.
    doubtful: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.access).finish()
    }
}

impl Client {
    /// A client; nothing is connected yet. `agent`: the user agent, which the API server's log has.
    #[must_use]
    pub fn new(access: Access, agent: &str) -> Self {
        Self(Arc::new(Inner {
            access,
            agent: agent.to_owned(),
            made: Mutex::default(),
        }))
    }

    /// Where the API server is: scheme, host and port.
    #[must_use]
    pub fn server(&self) -> String {
        let server = &self.0.access.server;
        let host = server.authority().map(http::uri::Authority::as_str);
        format!(
            "{}://{}",
            server.scheme_str().unwrap_or("https"),
            host.unwrap_or_default()
        )
    }

    /// The namespace of the own pod, where it has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.access.namespace.as_deref()
    }

    /// The objects of a selection, of all namespaces.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list<K: Resource>(
        &self,
        selection: &Selection,
        version: Version,
    ) -> Result<List<K>, ApiError> {
        let mut target = path::<K>(None, None);
        target.push('?');
        push_fields(&mut target, selection);
        if version == Version::Any {
            target.push_str("resourceVersion=0");
        }
        self.ask(
            "list",
            K::PLURAL.into(),
            Method::GET,
            &target,
            accept::<K>(true),
            None,
        )
        .await
    }

    /// Changes of a selection after `from`, as they come: the body of the answer.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn watch<K: Resource>(
        &self,
        selection: &Selection,
        from: &str,
    ) -> Result<Incoming, ApiError> {
        let mut target = path::<K>(None, None);
        target.push_str("?watch=1&allowWatchBookmarks=true&");
        push_fields(&mut target, selection);
        target.push_str("resourceVersion=");
        push_encoded(&mut target, from);
        let request = self.request("watch", Method::GET, &target, accept::<K>(false), None)?;
        let begun = self.begin(request);
        let answer = tokio::time::timeout(WITHIN, begun)
            .await
            .map_err(|_| self.timeout())??;
        match answer.status().is_success() {
            true => Ok(answer.into_body()),
            false => Err(self.refusal("watch", K::PLURAL.into(), answer).await),
        }
    }

    /// One object.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get<K: Resource>(&self, namespace: Option<&str>, name: &str) -> Result<K, ApiError> {
        let target = path::<K>(namespace, Some(name));
        let what = what::<K>(namespace, name);
        self.ask("get", what, Method::GET, &target, accept::<K>(false), None)
            .await
    }

    /// Makes an object. Its kind and version are added to what it serialises to. The answer is not read but for refusals.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create<K: Resource + Serialize>(
        &self,
        kind: &'static str,
        namespace: Option<&str>,
        object: &K,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed<'a, K> {
            api_version: String,
            kind: &'static str,
            #[serde(flatten)]
            object: &'a K,
        }
        let api_version = match K::GROUP {
            "" => K::VERSION.to_owned(),
            group => format!("{group}/{}", K::VERSION),
        };
        let what = what::<K>(namespace, object.name().name);
        let typed = Typed {
            api_version,
            kind,
            object,
        };
        let body = self.body("create", &what, &typed)?;
        let target = path::<K>(namespace, None);
        let body = Some(("application/json", body));
        let _: serde::de::IgnoredAny = self
            .ask("create", what, Method::POST, &target, JSON, body)
            .await?;
        Ok(())
    }

    /// Merges a patch into an object (RFC 7386). Give `metadata.uid` or `metadata.resourceVersion` in it to have it refused where
    /// another object, or another state of it, is found: [`ApiError::met_another`].
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn patch<K: Resource>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<(), ApiError> {
        let what = what::<K>(namespace, name);
        let body = self.body("patch", &what, patch)?;
        let target = path::<K>(namespace, Some(name));
        let body = Some(("application/merge-patch+json", body));
        // What it is after that the watch tells; of the answer no more than metadata is asked for.
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        let _: serde::de::IgnoredAny = self
            .ask("patch", what, Method::PATCH, &target, accept, body)
            .await?;
        Ok(())
    }

    fn body<T: Serialize>(&self, verb: &'static str, what: &str, of: &T) -> Result<Vec<u8>, ApiError> {
        serde_json::to_vec(of).map_err(|error| ApiError::Answer {
            verb,
            what: what.to_owned(),
            cause: error.to_string(),
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        what: String,
        method: Method,
        target: &str,
        accept: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<T, ApiError> {
        let request = self.request(verb, method, target, accept, body)?;
        let exchange = async {
            let answer = self.begin(request).await?;
            if !answer.status().is_success() {
                return Err(self.refusal(verb, what, answer).await);
            }
            let text = self.read(answer.into_body(), LONGEST).await;
            let of_no_use = |cause| ApiError::Answer {
                verb,
                what: what.clone(),
                cause,
            };
            let text = match text {
                Ok(text) => text,
                Err(ReadError::TooLong) => {
                    return Err(of_no_use(format!("it is longer than {LONGEST} bytes")));
                }
                Err(ReadError::Broken(error)) => return Err(error),
            };
            serde_json::from_slice(&text).map_err(|e| of_no_use(e.to_string()))
        };
        tokio::time::timeout(WITHIN, exchange)
            .await
            .map_err(|_| self.timeout())?
    }

    fn request(
        &self,
        verb: &'static str,
        method: Method,
        target: &str,
        accept: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Request<Full<Bytes>>, ApiError> {
        let inner = &self.0;
        let base = inner.access.server.path().trim_end_matches('/');
        let uri = Uri::builder()
            .scheme(inner.access.server.scheme_str().unwrap_or("https"))
            .authority(inner.access.server.authority().map_or("", |a| a.as_str()))
            .path_and_query(format!("{base}{target}"))
            .build();
        let mut request = Request::builder()
            .method(method)
            .header(ACCEPT, accept)
            .header(USER_AGENT, &inner.agent);
        if let Ok(uri) = uri {
            request = request.uri(uri);
        }
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let content = match body {
            Some((kind, content)) => {
                request = request.header(CONTENT_TYPE, kind);
                Bytes::from(content)
            }
            None => Bytes::new(),
        };
        request.body(Full::new(content)).map_err(|e| ApiError::Answer {
            verb,
            what: target.to_owned(),
            cause: format!("no request can be made of it: {e}"),
        })
    }

    fn token(&self) -> Result<Option<String>, AccessError> {
        let token = match &self.0.access.credential {
            Credential::None | Credential::Certificate { .. } => return Ok(None),
            Credential::Token(token) => token.clone(),
            Credential::TokenFile(path) => String::from_utf8_lossy(&access::read(path)?).into_owned(),
        };
        Ok(Some(token.trim().to_owned()))
    }

    /// Sends a request; the answer's head is there then.
    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ApiError> {
        let http = self.http()?;
        http.request(request).await.map_err(|error| {
            if error.is_connect() {
                self.made().doubtful = true;
            }
            self.unreachable(&error)
        })
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.0.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections. After a failure the files they need are read again, and used where they differ.
    fn http(&self) -> Result<Http, ApiError> {
        let mut made = self.made();
        if let Some((_, http)) = made.http.as_ref().filter(|_| !made.doubtful) {
            return Ok(http.clone());
        }
        let material = Material::read(&self.0.access)?;
        made.doubtful = false;
        if let Some((known, http)) = &made.http
            && *known == material
        {
            return Ok(http.clone());
        }
        let http = material.client()?;
        made.http = Some((material, http.clone()));
        Ok(http)
    }

    async fn refusal(&self, verb: &'static str, what: String, answer: Response<Incoming>) -> ApiError {
        let code = answer.status().as_u16();
        let text = self.read(answer.into_body(), LONGEST_STATUS).await;
        let text = text.unwrap_or_default();
        let mut status: Status = serde_json::from_slice(&text).unwrap_or_default();
        // Proxies answer with pages of their own.
        status.code = code;
        ApiError::Refused { verb, what, status }
    }

    async fn read(&self, mut body: Incoming, most: usize) -> Result<Bytes, ReadError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ReadError::Broken(self.unreachable(&e)))?;
            if let Some(data) = frame.data_ref() {
                if whole.len() + data.len() > most {
                    return Err(ReadError::TooLong);
                }
                whole.extend_from_slice(data);
            }
        }
        Ok(whole.freeze())
    }

    pub(crate) fn unreachable(&self, error: &dyn std::error::Error) -> ApiError {
        ApiError::Unreachable {
            server: self.server(),
            cause: chain(error),
        }
    }

    fn timeout(&self) -> ApiError {
        ApiError::Timeout {
            server: self.server(),
            within: WITHIN,
        }
    }
}

enum ReadError {
    TooLong,
    Broken(ApiError),
}

const JSON: &str = "application/json";

/// What answers may be; whole objects where the server cannot leave anything out.
fn accept<K: Resource>(list: bool) -> &'static str {
    match (K::METADATA_ONLY, list) {
        (false, _) => JSON,
        (true, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
        (true, false) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
    }
}

fn what<K: Resource>(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{} {namespace}/{name}", K::PLURAL),
        None => format!("{} {name}", K::PLURAL),
    }
}

fn push_fields(target: &mut String, selection: &Selection) {
    if !selection.fields.is_empty() {
        target.push_str("fieldSelector=");
        push_encoded(target, &selection.fields);
        target.push('&');
    }
}
