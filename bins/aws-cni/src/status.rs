//! STATUS: could ADD work now? A dry pool is no reason to say no: runtimes make the node unready for it, and the pod would
//! wait for its address anyway.

use crate::agent::{Agent, Health};
use crate::call::Call;
use crate::failure::Failure;

/// Serves STATUS.
///
/// # Errors
/// [`Failure::NotReady`] when the agent is away or does not serve yet, [`Failure::Impaired`] when pods that run may suffer.
pub(crate) fn status(call: &Call) -> Result<(), Failure> {
    let socket = &call.settings.agent_socket;
    let not_ready = |why: String| Failure::NotReady {
        socket: socket.clone(),
        why,
    };
    let away = |failure: Failure| not_ready(failure.to_string());
    let agent = Agent::at(socket);
    let health = agent.health().map_err(away)?;
    let word = agent.status().map_err(away)?;
    match (health, word) {
        (Health::Serving, Some(word)) if !word.impaired.is_empty() => Err(Failure::Impaired(word.impaired)),
        (Health::Serving, _) => Ok(()),
        (Health::NotServing(_), Some(word)) if !word.message.is_empty() => Err(not_ready(word.message)),
        (Health::NotServing(status), _) => Err(not_ready(format!(
            "its health service says {status} (1 is serving)"
        ))),
    }
}
