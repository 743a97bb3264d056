use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::CallError;

/// What tells one socket file from another that took its place.
///
/// The inode alone is not enough: file systems give a freed number out again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketIdentity {
    device: u64,
    inode: u64,
    made: (i64, i64),
}

impl SocketIdentity {
    /// The socket that is at `path` now, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        metadata.file_type().is_socket().then(|| Self::from_metadata(&metadata))
    }

    /// For directories, whose modification time changes with their files.
    pub(crate) fn without_time(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), made: (0, 0) }
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        // A socket's modification time is that of its bind.
        Self { device: metadata.dev(), inode: metadata.ino(), made: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// A connection to a Unix socket. The address is a formality; "localhost" is what the kubelet's own dials send.
pub(crate) async fn connect(socket: &Path, deadline: Duration) -> Result<Channel, CallError> {
    let path = socket.to_owned();
    let dial = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_timeout(deadline)
        .connect_with_connector(dial)
        .await
        .map_err(|source| CallError::Connect { socket: socket.to_owned(), source })
}
