//! Lets HTTP clients in. The port is open to the cluster: what anybody does there must neither keep the probes out, which
//! would have the agent killed, nor take the descriptors and the memory that the kubelet's side needs.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

/// Probes, a scraper and people need a handful. Of more, the oldest goes: a probe has its answer within a millisecond, and
/// who holds a connection open without a word is never the newest for long.
const MOST_CONNECTIONS: usize = 64;
/// A request's head comes at once, or never.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);
/// For one request and its answer.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// The longest head of a request.
const LONGEST_HEAD: usize = 16 << 10;
/// After an accept that failed, usually for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        if (accepted.is_err() || oldest_first.len() >= MOST_CONNECTIONS)
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        let Ok((stream, _)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        oldest_first.push_back(connections.spawn(answer(stream, router.clone())));
        // Who comes in a crowd is looked at before the crowd has pushed it out again.
        yield_now().await;
    }
}

/// One request: who wants more comes again.
async fn answer(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(LONGEST_HEAD).keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that misbehaves is its own problem.
    let _ = timeout(CONNECTION_DEADLINE, connection).await;
}
