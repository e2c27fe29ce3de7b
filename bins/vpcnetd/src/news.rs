//! What happens in the agent that people in the cluster should read. Told by whoever sees it, without waiting; heard by [`crate::cluster`],
//! and by nobody where there is no Kubernetes.

use std::net::IpAddr;

use tokio::sync::mpsc;

/// A pod, as Kubernetes names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PodName {
    /// Of its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// A pod has an address.
    Assigned {
        /// Which.
        pod: PodName,
        /// Its first.
        address: IpAddr,
    },
    /// A pod had it.
    Released {
        /// Which.
        pod: PodName,
        /// Its first.
        address: IpAddr,
    },
    /// A pod was refused an address.
    Refused {
        /// Which.
        pod: PodName,
        /// Why, and when it is tried again: what the runtime was told.
        text: String,
    },
    /// EC2 says that the node's role may not do this.
    Unauthorized {
        /// The operation.
        api: String,
        /// EC2's code.
        code: String,
    },
    /// A subnet had nothing left.
    SubnetFull {
        /// Which, and EC2's word.
        text: String,
    },
}

/// Where it is told. Cheap to clone.
#[derive(Clone, Default)]
pub struct Newsroom(Option<mpsc::UnboundedSender<News>>);

impl Newsroom {
    /// One with a listener.
    #[must_use]
    pub fn open() -> (Self, mpsc::UnboundedReceiver<News>) {
        let (tell, hear) = mpsc::unbounded_channel();
        (Self(Some(tell)), hear)
    }

    /// Whether anybody listens: what nobody hears need not be put into words.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Tells.
    pub fn tell(&self, news: News) {
        if let Some(room) = &self.0 {
            // The listener ends only with the agent.
            let _ = room.send(news);
        }
    }
}
