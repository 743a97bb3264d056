//! What probes and people ask over HTTP.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mig_device_plugin::Status;
use mig_nvml::{DriverState, View};
use tokio::sync::watch;

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
