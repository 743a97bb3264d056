//! The labels of the own Node object, by server-side apply: the API server notes which labels are ours, takes those away
//! that we no longer name (those of a profile that is gone, whoever ran before us), and keeps us from those of others.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt as _, Patch, PatchParams};
use kube::core::Status;
use mig_model::Labels;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Source, Standing, becomes};
use crate::cluster::{PATIENCE, Trouble, Troubles, client, hung};

/// As the API server knows us.
const MANAGER: &str = "mig-agent";
/// NVIDIA's gpu-feature-discovery (GFD) is there where this is. It says when GFD started, so its value does not tell
/// whether GFD still runs.
const GFDS: &str = "nvidia.com/gfd.timestamp";
/// A look at the own node costs the API server something too: so many times as seldom as at the GPUs.
const SELDOM: u32 = 60;
const MOST_SELDOM: Duration = Duration::from_secs(3600);

pub(super) async fn keep(
    name: String,
    mut source: Source,
    check: Duration,
    standing: &watch::Sender<Standing>,
    stop: &CancellationToken,
) {
    let check = check.saturating_mul(SELDOM).min(MOST_SELDOM);
    let mut node = OwnNode { name, api: None, applied: None, left_to_others: BTreeSet::new() };
    let mut troubles = Troubles::default();
    // Labels stay when we go: a rollout must not take them away for a moment.
    while !stop.is_cancelled() {
        let Some(labels) = source.labels() else {
            stop.run_until_cancelled(source.news()).await;
            continue;
        };
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = node.settle(&labels) => outcome,
        };
        let pause = match outcome {
            Ok(now) => {
                if troubles.end() {
                    becomes(standing, Standing::Waiting);
                }
                tell(&node.name, standing, now);
                // Agents that were started at once shall not ask at once for ever.
                check.mul_f32(0.8 + 0.4 * fastrand::f32())
            }
            Err(trouble) => {
                // Built anew next time: what it was built from may have been wrong.
                node.api = None;
                becomes(standing, Standing::Failing(trouble.kind));
                let (is_news, pause) = troubles.add(&trouble);
                if is_news {
                    tracing::warn!("labels are not written: {trouble}; all else goes on, and it is tried again");
                }
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.news(), if troubles.are_none() => {}
            () = sleep(pause) => {}
        }
    }
}

fn tell(name: &str, standing: &watch::Sender<Standing>, now: Standing) {
    if !becomes(standing, now) {
        return;
    }
    match now {
        Standing::Others => tracing::info!(
            "no labels: NVIDIA's gpu-feature-discovery writes them (the node has {GFDS}); ours begin when it is gone"
        ),
        Standing::Written(count) => tracing::info!(labels = count, "labels are on the node {name}"),
        Standing::Waiting | Standing::NoFolder | Standing::Failing(_) => {}
    }
}

struct OwnNode {
    name: String,
    api: Option<Api<Node>>,
    /// What was asked for last.
    applied: Option<Labels>,
    /// Labels that somebody else has set to something else.
    left_to_others: BTreeSet<String>,
}

impl OwnNode {
    async fn settle(&mut self, labels: &Labels) -> Result<Standing, Trouble> {
        let api = match &self.api {
            Some(api) => api.clone(),
            None => self.api.insert(Api::all(client().await?)).clone(),
        };
        let before = self.asked(api.get_metadata(&self.name)).await?.metadata.labels.unwrap_or_default();
        if before.contains_key(GFDS) {
            self.apply(&api, &Labels::new()).await?;
            return Ok(Standing::Others);
        }
        // What others keep is asked for again once they let go of it.
        let is_due = |(name, value): (&String, &String)| match before.get(name) {
            Some(found) => found != value && !self.left_to_others.contains(name),
            None => true,
        };
        if self.applied.as_ref() != Some(labels) || labels.iter().any(is_due) {
            self.apply(&api, labels).await?;
        }
        Ok(Standing::Written(labels.len() - self.left_to_others.len()))
    }

    /// Makes these our labels, and takes away what else was ours; but not what others have set.
    async fn apply(&mut self, api: &Api<Node>, labels: &Labels) -> Result<(), Trouble> {
        if labels.is_empty() && self.applied.as_ref().is_some_and(Labels::is_empty) {
            return Ok(());
        }
        let mut ours = labels.clone();
        let mut others = BTreeSet::new();
        loop {
            let metadata =
                ObjectMeta { name: Some(self.name.clone()), labels: Some(ours.clone()), ..ObjectMeta::default() };
            let patch = Patch::Apply(metadata.into_request_partial::<Node>());
            let parameters = PatchParams::apply(MANAGER);
            let answer = timeout(PATIENCE, api.patch_metadata(&self.name, &parameters, &patch)).await;
            match answer.map_err(|_| hung())? {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let disputed = disputed(&status);
                    let known = ours.len();
                    ours.retain(|name, _| !disputed.contains(name));
                    // Each round takes some away, so there is an end.
                    if ours.len() == known {
                        return Err(refused(&kube::Error::Api(status)));
                    }
                    others.extend(disputed);
                }
                Err(error) => return Err(refused(&error)),
            }
        }
        let news: Vec<&str> = others.difference(&self.left_to_others).map(String::as_str).collect();
        if !news.is_empty() {
            let (node, names) = (&self.name, news.join(", "));
            tracing::warn!("somebody else has set labels of the node {node}, which are left as they are: {names}");
        }
        self.left_to_others = others;
        self.applied = Some(labels.clone());
        Ok(())
    }

    async fn asked(
        &self,
        answer: impl Future<Output = kube::Result<PartialObjectMeta<Node>>>,
    ) -> Result<PartialObjectMeta<Node>, Trouble> {
        timeout(PATIENCE, answer).await.map_err(|_| hung())?.map_err(|error| refused(&error))
    }
}

fn refused(error: &kube::Error) -> Trouble {
    Trouble::of(error, "its service account needs get and patch on nodes; see docs/labels.md")
}

/// The labels that others set, of those that were refused.
fn disputed(status: &Status) -> BTreeSet<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields = causes.filter(|cause| cause.reason == "FieldManagerConflict").map(|cause| cause.field.as_str());
    fields.filter_map(|field| field.strip_prefix(".metadata.labels.")).map(str::to_owned).collect()
}
