//! Waiting until pods can be served: until the agent's health service says that it serves, which is heard the moment it
//! changes, and until the plugin that is on the node now answers STATUS with yes.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use vpcnet_rpc::health::HealthCheckRequest;
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::health::health_client::HealthClient;
use vpcnet_rpc::node::StatusRequest;
use vpcnet_rpc::{Connection, method};

use super::say::Teller;
use crate::program;

/// A unix socket answers at once or its owner is stuck.
const DIAL: Duration = Duration::from_secs(2);
/// The agent makes its socket within milliseconds of its start.
const REDIAL: Duration = Duration::from_millis(50);
/// Causes and STATUS cannot be listened to. Asked again only while it does not serve.
const AGAIN: Duration = Duration::from_secs(1);
const STATUS: Duration = Duration::from_secs(10);

/// Returns when pods can be served; tells what it waits for.
pub(crate) async fn pods_can_be_served(
    socket: &Path,
    plugin: &Path,
    question: Option<&Value>,
    tell: &mut Teller,
) {
    loop {
        match listen(socket, tell).await {
            Ok(()) => {}
            Err(why) => {
                tell.waiting(format!("the agent at {}: {why}", socket.display()));
                tokio::time::sleep(REDIAL).await;
                continue;
            }
        }
        let Some(question) = question else {
            return;
        };
        match says_no(plugin, question).await {
            None => return,
            Some(why) => tell.waiting(format!("STATUS of {}: {why}", plugin.display())),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Returns when the health service says that it serves.
async fn listen(socket: &Path, tell: &mut Teller) -> Result<(), String> {
    let connection = Connection::unix(socket, DIAL).await.map_err(|e| e.to_string())?;
    let request = HealthCheckRequest::default();
    let watch = HealthClient::new(connection.clone()).watch(request).await;
    let mut words = watch.map_err(|status| status.to_string())?.into_inner();
    let mut last = ServingStatus::Unknown;
    loop {
        match tokio::time::timeout(AGAIN, words.message()).await {
            Ok(Ok(Some(word))) => last = word.status(),
            Ok(Ok(None)) => return Err("it ended the connection".into()),
            Ok(Err(status)) => return Err(status.to_string()),
            // What it waits for may be another thing by now.
            Err(_) => {}
        }
        if last == ServingStatus::Serving {
            return Ok(());
        }
        // The agent's own words, if it has any.
        let reply = connection.unary(&method::STATUS, StatusRequest {}).await;
        let why = reply.map(|r| r.message).unwrap_or_default();
        tell.waiting(if why.is_empty() {
            format!("the agent's health service says {}", last.as_str_name())
        } else {
            format!("the agent: {why}")
        });
    }
}

/// Why an ADD would fail now; none if it would not.
async fn says_no(plugin: &Path, question: &Value) -> Option<String> {
    let directory = plugin.parent().unwrap_or(plugin).as_os_str();
    let mut command = program::plugin(plugin, "STATUS", directory);
    let output = match program::run(&mut command, question.to_string().as_bytes(), STATUS).await {
        Ok(output) => output,
        Err(error) => return Some(format!("it cannot be run: {error}")),
    };
    if output.status.success() {
        return None;
    }
    let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let words = ["msg", "details"].map(|key| object.get(key).and_then(Value::as_str).unwrap_or_default());
    let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
    if words.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Some(format!("{} {said}", output.status));
    }
    Some(words.join(": "))
}
