//! The agent's two unix sockets: one agent at a time, sockets left by a dead one taken over, root only.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

use crate::store::{StoreError, make_parent};

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody serves it already.
    #[error("another agent serves {}: stop it first (the AWS VPC CNI's agent listens on the same path)", .0.display())]
    Served(PathBuf),
    /// The path is taken by something that is no socket.
    #[error("{} exists and is no socket: move it away or set VPCNET_SOCKET", .0.display())]
    NotASocket(PathBuf),
    /// The directory cannot be made.
    #[error(transparent)]
    Directory(#[from] StoreError),
    /// A step failed.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

/// The bound sockets.
#[derive(Debug)]
pub struct AgentSockets {
    /// Where gRPC connections arrive.
    pub grpc: UnixListener,
    /// Where direct ones do, see [`vpcnet_rpc::direct`].
    pub direct: UnixListener,
    /// Keeps a second vpcnetd from both paths while it is open.
    pub lock: File,
}

/// Binds `path`, and the direct socket beside it, with mode 0660, their directory with 0755. Must be called within the runtime.
///
/// # Errors
/// [`SocketError`]; nothing was changed then, but for the directory and the lock file.
pub fn bind(path: &Path) -> Result<AgentSockets, SocketError> {
    make_parent(path)?;
    // The lock settles the race of two agents that both find the same stale socket. The original does not know of it;
    // for that one the connection attempt below must do.
    let lock_path = path.with_extension("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(io("open lock file", &lock_path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(SocketError::Served(path.to_path_buf())),
        Err(error) => return Err(io("lock", &lock_path)(error.into())),
    }
    // The gRPC one first: whoever serves that is the agent, of whatever make.
    Ok(AgentSockets {
        grpc: listen(path)?,
        direct: listen(&vpcnet_rpc::direct::socket_beside(path))?,
        lock,
    })
}

fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    clear_stale(path)?;
    let listener = UnixListener::bind(path).map_err(io("listen on", path))?;
    // Until here the mode came from the umask; connecting needs the write bit, which 022 withholds from others.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(io("set mode 0660 of", path))?;
    Ok(listener)
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_path_buf();
    move |source| SocketError::Io { step, path, source }
}

/// Removes a socket nobody answers on.
fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(io("look at", path)(source));
        }
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket(path.into()));
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(SocketError::Served(path.into())),
        // EAGAIN is a full backlog: somebody listens, however busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Served(path.into())),
        Err(_) => fs::remove_file(path).map_err(io("remove stale", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener as BlockingListener;

    fn both(path: &Path) -> [PathBuf; 2] {
        [path.to_path_buf(), path.with_file_name("ipamd.sock.direct")]
    }

    #[tokio::test]
    async fn a_fresh_socket_is_for_root_and_its_group_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aws-node").join("ipamd.sock");
        let _sockets = bind(&path).unwrap();
        for path in both(&path) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        }
    }

    #[tokio::test]
    async fn a_socket_nobody_answers_on_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipamd.sock");
        for path in both(&path) {
            drop(BlockingListener::bind(&path).unwrap());
            assert!(path.exists(), "a dead agent's socket stays behind");
        }
        let _sockets = bind(&path).unwrap();
        for path in both(&path) {
            BlockingStream::connect(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_second_agent_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipamd.sock");
        let first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::Served(_))));
        BlockingStream::connect(&path).unwrap();
        drop(first);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn an_agent_of_another_make_is_noticed_by_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipamd.sock");
        let _other = BlockingListener::bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(error.to_string().contains("another agent serves"), "{error}");
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        for at in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ipamd.sock");
            let taken = &both(&path)[at];
            fs::write(taken, "somebody's").unwrap();
            assert!(matches!(bind(&path), Err(SocketError::NotASocket(named)) if named == *taken));
            assert_eq!(fs::read_to_string(taken).unwrap(), "somebody's");
        }
    }
}
