use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::deviceplugin::Empty;
use crate::deviceplugin::device_plugin_client::DevicePluginClient;
use crate::error::CallError;

/// A plugin that is alive answers within milliseconds.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(1);

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

/// Whether a device plugin serves at this socket, by the question that the kubelet asks first. One that takes the
/// connection and keeps silent is there, too: it may hang, and hold its registration all the while.
///
/// Nothing else is asked of other people's plugins: a second ListAndWatch takes the news from the first one's reader in
/// some of them.
pub async fn is_plugin(socket: &Path) -> bool {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        // So many wait to be accepted that there is no room for us: somebody listens.
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    let mut once = Some(stream);
    let dial = service_fn(move |_| {
        let stream = once.take().ok_or(ErrorKind::ConnectionAborted);
        async move { Ok::<_, std::io::Error>(TokioIo::new(stream?)) }
    });
    let ask = async {
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(dial).await.ok()?;
        DevicePluginClient::new(channel).get_device_plugin_options(Empty {}).await.ok()
    };
    // What answers with an error could not have been registered.
    tokio::time::timeout(PLUGIN_DEADLINE, ask).await.map_or(true, |answer| answer.is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_leftover_is_no_plugin_and_neither_is_who_hangs_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("a.sock");
        assert!(!is_plugin(&socket).await, "there is nothing");
        let listener = UnixListener::bind(&socket).unwrap();
        drop(listener);
        assert!(!is_plugin(&socket).await, "nobody listens");
        std::fs::remove_file(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        assert!(!is_plugin(&socket).await, "a file is no socket");
        std::fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            drop(listener.accept());
        });
        assert!(!is_plugin(&socket).await, "it speaks another language");
        server.join().unwrap();
    }

    #[tokio::test]
    async fn who_listens_and_keeps_silent_may_be_a_plugin_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listener = socket.listen(1).unwrap();
        assert!(is_plugin(&path).await);
        // Until nobody else gets in, where a connect that waits would do so for ever.
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        assert!(is_plugin(&path).await);
    }
}
