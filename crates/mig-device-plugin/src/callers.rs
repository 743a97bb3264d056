//! Who comes to a plugin's socket.
//!
//! The kubelet needs one connection, and nobody else any. But whoever is root on the node can come, and what a program that
//! has lost its way does there must neither keep the kubelet out nor take the agent's memory and descriptors.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::authority::Authority;

/// The kubelet's, and some of people who look.
const MOST: usize = 16;
/// After an accept that failed, usually for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Caller {
    /// It has asked something.
    asked: AtomicBool,
    /// It asked what the kubelet asks, when the kubelet asks it.
    is_kubelet: AtomicBool,
    leave: CancellationToken,
}

/// A caller's connection.
pub(crate) struct Connection {
    stream: UnixStream,
    authority: Authority,
    caller: Arc<Caller>,
    leave: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Caller {
    pub(crate) fn asks(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_recognised(&self) {
        self.is_kubelet.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_kubelet(&self) -> bool {
        self.is_kubelet.load(Ordering::Relaxed)
    }
}

/// Lets callers in until nobody takes them any more; ends all connections when `leave` is cancelled. Where there are too
/// many, the oldest that has said nothing so far has to go, and where all have spoken, the newcomer.
pub(crate) async fn admit(
    listener: UnixListener,
    callers: mpsc::Sender<io::Result<Connection>>,
    leave: CancellationToken,
) {
    let mut inside: VecDeque<Weak<Caller>> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = callers.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        inside.retain(|caller| caller.strong_count() > 0);
        if inside.len() >= MOST {
            let silent =
                |caller: &Weak<Caller>| caller.upgrade().filter(|caller| !caller.asked.load(Ordering::Relaxed));
            let Some((place, oldest)) = inside.iter().enumerate().find_map(|(at, caller)| Some((at, silent(caller)?)))
            else {
                continue;
            };
            oldest.leave.cancel();
            inside.remove(place);
        }
        let (asked, is_kubelet) = (AtomicBool::new(false), AtomicBool::new(false));
        let caller = Arc::new(Caller { asked, is_kubelet, leave: leave.child_token() });
        inside.push_back(Arc::downgrade(&caller));
        let gone = Box::pin(caller.leave.clone().cancelled_owned());
        if callers.send(Ok(Connection { stream, authority: Authority::new(), caller, leave: gone })).await.is_err() {
            return;
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Arc<Caller> {
        Arc::clone(&self.caller)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.leave.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(new) = buffer.filled_mut().get_mut(before..) {
            self.authority.overwrite(new);
        }
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
