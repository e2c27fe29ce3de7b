//! Pods as a runtime sees them: a namespace, an id, a name.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::host;

/// A pod to be: its namespace is there, its network is not.
pub(crate) struct Pod {
    netns: File,
    /// Position in its run; makes addresses and names.
    pub(crate) number: usize,
    /// `CNI_CONTAINERID`
    pub(crate) id: String,
    /// `K8S_POD_NAME`
    pub(crate) name: String,
}

impl Pod {
    pub(crate) fn new(run: &str, number: usize) -> io::Result<Self> {
        let netns = host::new_namespace()?;
        Ok(Self {
            netns,
            number,
            id: format!("bench{run}{number:032x}"),
            name: format!("bench-{run}-{number}"),
        })
    }

    /// A path by which any process of this machine finds the namespace, while this value lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }
}
