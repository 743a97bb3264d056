//! What probes and people ask over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mig_model::NodeInventory;
use serde::Serialize;

use crate::known::Known;
use crate::metrics::{self, Metrics};
use crate::page;
use crate::slices::Slice;

/// What is needed to answer.
pub(crate) struct Answers {
    pub(crate) known: Known,
    pub(crate) metrics: Metrics,
    /// What the machine, or the pod, is called.
    pub(crate) host: String,
}

pub(crate) fn router(answers: Answers) -> Router {
    Router::new()
        .route("/", get(status))
        // A driver that hangs is no reason to be killed: a restart does not help it, and serving goes on without it.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/v1/inventory", get(inventory))
        .with_state(Arc::new(answers))
}

/// For people.
async fn status(State(answers): State<Arc<Answers>>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page::render(&answers.known, &answers.host)).into_response()
}

/// For Prometheus.
async fn scrape(State(answers): State<Arc<Answers>>) -> Response {
    match answers.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// For probes: ready, and what should be looked after; or one line for each reason why not.
async fn readyz(State(answers): State<Arc<Answers>>) -> (StatusCode, String) {
    let obstacles = answers.known.obstacles();
    if obstacles.is_empty() {
        let mut lines = vec![format!("ready: {} resources registered", answers.known.status.served())];
        lines.extend(answers.known.remarks());
        return (StatusCode::OK, lines.join("\n") + "\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n")
}

/// The last reading of the GPUs, and who uses what.
#[derive(Serialize)]
struct Inventory<'a> {
    #[serde(flatten)]
    read: &'a NodeInventory,
    slices: Vec<Slice>,
}

/// As JSON; `null` before the first reading.
async fn inventory(State(answers): State<Arc<Answers>>) -> Response {
    let known = &answers.known;
    let read = known.view().inventory;
    let inventory = read.as_deref().map(|read| Inventory { read, slices: known.slices() });
    match serde_json::to_string(&inventory) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
