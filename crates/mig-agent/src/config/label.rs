//! The label of the own Node that names its configuration. It is watched: a change is seen when it is made, and costs the
//! API server nothing meanwhile. It takes the rights to get and to watch nodes.

use std::pin::pin;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{PartialObjectMeta, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

use crate::cluster::{PATIENCE, Trouble, client, hung};

/// API servers end watches by themselves after some minutes.
const WATCH: u32 = 290;
/// A connection that says nothing for longer than that leads nowhere any more.
const SILENCE: Duration = Duration::from_secs(WATCH as u64 + 30);
const LONGEST: Duration = Duration::from_secs(60);
/// A watch that ends sooner was no watch, whoever has ended it.
const LIVELY: Duration = Duration::from_secs(10);

/// What is known of the label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// Nothing, and why.
    Unknown(String),
    /// Its value; nothing if the node does not have it.
    Known(Option<String>),
}

/// Watches the label for as long as somebody wants to know. What was known last stays known while the API server is away.
pub(crate) async fn follow(node: String, label: String, found: watch::Sender<Label>) {
    let backoff = ExponentialBuilder::new().with_max_delay(LONGEST).without_max_times().with_jitter();
    let mut pauses = backoff.build();
    let mut told = None;
    while !found.is_closed() {
        let began = Instant::now();
        let outcome = watch_node(
            &node,
            &label,
            |labels: Option<&str>| {
                let now = Label::Known(labels.map(str::to_owned));
                found.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            },
            || {
                if told.take().is_some() {
                    tracing::info!("the label {label} of the node {node} is watched again");
                }
            },
        )
        .await;
        if began.elapsed() >= LIVELY {
            pauses = backoff.build();
        }
        if let Err(trouble) = outcome {
            found.send_if_modified(|known| {
                let is_news = matches!(known, Label::Unknown(_));
                if is_news {
                    *known = Label::Unknown(format!("the node's label cannot be read: {trouble}"));
                }
                is_news
            });
            if told != Some(trouble.kind) {
                told = Some(trouble.kind);
                tracing::warn!("unable to watch the label {label} of the node {node}: {trouble}; it is tried again");
            }
        }
        sleep(pauses.next().unwrap_or(LONGEST)).await;
    }
}

/// Until the API server ends it.
async fn watch_node(
    node: &str,
    label: &str,
    mut tell: impl FnMut(Option<&str>),
    watched: impl FnOnce(),
) -> Result<(), Trouble> {
    let api: Api<Node> = Api::all(client().await?);
    let refused = |error: &kube::Error| {
        Trouble::of(error, "its service account needs get and watch on nodes; see docs/settings.md")
    };
    let mut told = |metadata: &ObjectMeta| {
        tell(metadata.labels.as_ref().and_then(|labels| labels.get(label)).map(String::as_str));
    };
    // A watch alone could begin with what there is, but API servers whose etcd is before 3.4.31 or 3.5.13 refuse that.
    let found = timeout(PATIENCE, api.get_metadata_opt(node)).await.map_err(|_| hung())?;
    let Some(found) = found.map_err(|error| refused(&error))? else {
        let message = format!("the API server shows no Node {node} (--node-name must be the Node's own name)");
        return Err(Trouble { kind: "NoSuchNode", message });
    };
    told(&found.metadata);
    let version = found.metadata.resource_version.unwrap_or_default();
    let wanted = WatchParams::default().fields(&format!("metadata.name={node}")).timeout(WATCH);
    let begun = timeout(PATIENCE, api.watch_metadata(&wanted, &version)).await.map_err(|_| hung())?;
    let mut events = pin!(begun.map_err(|error| refused(&error))?);
    watched();
    loop {
        let event = match timeout(SILENCE, events.next()).await {
            Ok(Some(event)) => event.map_err(|error| refused(&error))?,
            Ok(None) | Err(_) => return Ok(()),
        };
        match event {
            WatchEvent::Added(PartialObjectMeta { metadata, .. })
            | WatchEvent::Modified(PartialObjectMeta { metadata, .. }) => told(&metadata),
            // A Node that is made anew is told again.
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
            // Too old to go on from: another watch begins with what there is.
            WatchEvent::Error(status) if status.code == 410 => return Ok(()),
            WatchEvent::Error(status) => return Err(refused(&kube::Error::Api(status))),
        }
    }
}
