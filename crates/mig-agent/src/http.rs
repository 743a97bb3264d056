//! What probes and people ask over HTTP.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mig_device_plugin::Status;
use mig_nvml::{DriverState, View};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Probes and people need a handful. More wait, so that idle ones do not take the descriptors that the kubelet needs.
const MOST_CONNECTIONS: usize = 64;
/// A request's head comes at once, or never.
const HEAD_DEADLINE: Duration = Duration::from_secs(2);
/// For one connection in all: everything that is answered here is a few lines long.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
/// After an accept that failed, usually for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
            // A client that misbehaves is its own problem.
            let _ = timeout(CONNECTION_DEADLINE, http.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
}

#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) views: watch::Receiver<View>,
    pub(crate) status: Arc<Status>,
}

pub(crate) fn router(known: Known) -> Router {
    Router::new()
        // A driver that hangs is no reason to be killed: a restart does not help it, and serving goes on without it.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/v1/inventory", get(inventory))
        .with_state(known)
}

/// Ready: the driver answers and the kubelet watches every list. If not, one line for each reason.
async fn readyz(State(known): State<Known>) -> (StatusCode, String) {
    let mut reasons = String::new();
    match &known.views.borrow().driver {
        DriverState::Ready => {}
        DriverState::Starting => reasons.push_str("driver: the GPUs are being read\n"),
        DriverState::Stalled => reasons.push_str("driver: it does not answer; see the kernel's log\n"),
        DriverState::Failed(fault) => {
            let _ = writeln!(reasons, "driver: {}", fault.message);
        }
    }
    if !known.status.has_begun() {
        reasons.push_str("resources: none is offered yet\n");
    }
    if let Some(why) = known.status.container_problem() {
        let _ = writeln!(reasons, "containers: {why}");
    }
    for (resource, why) in known.status.obstacles() {
        let _ = writeln!(reasons, "{resource}: {why}");
    }
    if reasons.is_empty() {
        return (StatusCode::OK, format!("ready: {} resources registered\n", known.status.served()));
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons)
}

/// The last reading of the GPUs, as JSON; `null` before the first.
async fn inventory(State(known): State<Known>) -> Response {
    let inventory = known.views.borrow().inventory.clone();
    match serde_json::to_string(&inventory.as_deref()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
