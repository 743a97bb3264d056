//! The kubelet's connection to a plugin.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use kubelet::deviceplugin::device_plugin_client::DevicePluginClient;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// The generated client over a connection of ours.
pub(crate) type Plugin = DevicePluginClient<Channel>;

/// One registration's connection, from before the dial to after the end of its stream.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Cancelled when the kubelet hangs up, or dies.
    pub(crate) closed: CancellationToken,
    /// Whether ListAndWatch is open.
    pub(crate) streaming: AtomicBool,
    wire: Mutex<Option<Wire>>,
}

/// Looks at the socket without keeping it open.
#[derive(Debug)]
struct Wire {
    socket: Weak<UnixStream>,
    last_read: Arc<Mutex<Instant>>,
}

impl Connection {
    /// Ends with `life` at the latest.
    pub(crate) fn new(life: &CancellationToken) -> Self {
        Self { closed: life.child_token(), streaming: AtomicBool::default(), wire: Mutex::default() }
    }

    /// Dials once.
    pub(crate) async fn dial(self: &Arc<Self>, path: &Path) -> Result<Plugin, tonic::transport::Error> {
        let connection = Arc::clone(self);
        let path = path.to_owned();
        let connect = move |_| connect(Arc::clone(&connection), path.clone());
        // The name becomes the `:authority`, which is what the real kubelet sends.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector(tower::service_fn(connect)).await?;
        Ok(DevicePluginClient::new(channel))
    }

    /// Whether the plugin has said something here that has not yet been acted upon. The plugin cannot tell when the
    /// kubelet reads its farewell, so what it sent on its old connection before it registered anew has to count first.
    pub(crate) fn is_busy(&self) -> bool {
        let wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wire) = wire.as_ref() else { return false };
        let Some(socket) = wire.socket.upgrade() else { return true };
        let mut look = [PollFd::new(&*socket, PollFlags::IN | PollFlags::RDHUP)];
        let unread = poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0);
        let last_read = *wire.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        unread || last_read.elapsed() < Duration::from_millis(5)
    }

    pub(crate) fn is_streaming(&self) -> bool {
        self.streaming.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.streaming.store(false, Ordering::Release);
        self.closed.cancel();
    }
}

async fn connect(connection: Arc<Connection>, path: PathBuf) -> io::Result<TokioIo<Watched>> {
    let socket = Arc::new(UnixStream::connect(path).await?);
    let last_read = Arc::new(Mutex::new(Instant::now()));
    let wire = Wire { socket: Arc::downgrade(&socket), last_read: Arc::clone(&last_read) };
    *connection.wire.lock().unwrap_or_else(PoisonError::into_inner) = Some(wire);
    Ok(TokioIo::new(Watched { socket, last_read }))
}

/// A Unix stream that remembers when something was last read.
struct Watched {
    socket: Arc<UnixStream>,
    last_read: Arc<Mutex<Instant>>,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(context))?;
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    // Dropping the socket closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
