//! Waiting for a link to appear, by the kernel's own messages.

use std::future::Future;
use std::pin::Pin;

use tokio::io::unix::AsyncFd;
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::watch::{Event, Group, Watch, WatchError};

/// Ends when the link is there.
pub type Appeared = Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>;

/// The kernel cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The MAC is none.
    #[error("{0:?} is not a MAC address")]
    Mac(String),
    /// No subscription.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The present links cannot be listed.
    #[error(transparent)]
    List(#[from] NetlinkError),
    /// The runtime cannot wait for the socket.
    #[error("cannot wait for link changes: {0}")]
    Wait(#[from] std::io::Error),
}

/// Subscribes now; the future looks at what is there and then at what comes.
pub(super) fn appearance(mac: &str) -> Appeared {
    match subscribe(mac) {
        Ok((mac, watch)) => Box::pin(wait(mac, watch)),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}

// `AsyncFd::new` is deprecated for descriptors that are closed while they are registered; its successor is unsafe. A `Watch`
// owns its descriptor and closes it only when it is dropped, which `AsyncFd` does after it has deregistered it.
#[allow(deprecated)]
fn subscribe(mac: &str) -> Result<(Mac, AsyncFd<Watch>), LinkError> {
    let parsed = mac.parse().map_err(|_| LinkError::Mac(mac.to_owned()))?;
    Ok((parsed, AsyncFd::new(Watch::open(&[Group::Link])?)?))
}

async fn wait(mac: Mac, mut watch: AsyncFd<Watch>) -> Result<(), LinkError> {
    loop {
        if Socket::open()?.links()?.iter().any(|link| link.mac == Some(mac)) {
            return Ok(());
        }
        // Ends when messages were lost: then the list is read again.
        loop {
            let mut ready = watch.readable_mut().await?;
            let notice = ready.get_inner_mut().next_event()?;
            match notice.map(|n| n.event) {
                Some(Event::Link(link)) if !link.gone && link.mac == Some(mac) => return Ok(()),
                Some(Event::Overrun) => break,
                Some(_) => {}
                None => ready.clear_ready(),
            }
        }
    }
}
