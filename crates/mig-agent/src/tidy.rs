//! The names of resources that are gone, in the status of the own Node. The kubelet never takes a name away: it leaves it
//! there with 0, and whoever looks at the node sees every layout that it ever had.
//!
//! ```text
//!   offered -> withdrawn -> no server (Fleet) -> five minutes later the kubelet writes 0 for the last time -> taken out
//! ```
//! A name is taken out only while it is 0: the API server compares, so that a resource that has just come back is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch as JsonPatch, PatchOperation, RemoveOperation, TestOperation};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use mig_device_plugin::Status;
use mig_model::{ResourceDomain, ResourceName};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{PATIENCE, Trouble, Troubles, client, hung};

/// Looks at what is served, in the time that a name must have been gone.
const LOOKS: u32 = 6;
/// A name that others have left is worth a request to the API server so much more seldom than our own.
const SELDOM: Duration = Duration::from_secs(3600);
/// What the status has a number for each resource in.
const LISTS: [&str; 2] = ["capacity", "allocatable"];

/// How it is tidied.
pub(crate) struct Settings {
    pub(crate) node: String,
    pub(crate) domain: ResourceDomain,
    pub(crate) after: Duration,
}

/// Tidies for as long as the agent runs.
pub(crate) async fn keep(settings: Settings, status: Arc<Status>) {
    let pace = settings.after / LOOKS;
    let mut tidy = Tidy {
        settings,
        status,
        api: None,
        served: BTreeSet::new(),
        ours: BTreeSet::new(),
        gone: BTreeMap::new(),
        unsettled: false,
        looked: None,
    };
    let mut troubles = Troubles::default();
    loop {
        // Agents that were started at once shall not ask at once for ever.
        sleep(pace.mul_f32(0.8 + 0.4 * fastrand::f32())).await;
        if !tidy.is_due() {
            continue;
        }
        match tidy.look().await {
            Ok(()) => {
                if troubles.end() {
                    tracing::info!("the status of the node {} can be tidied again", tidy.settings.node);
                }
            }
            Err(trouble) => {
                // Built anew next time: what it was built from may have been wrong.
                tidy.api = None;
                tidy.looked = None;
                let (is_news, pause) = troubles.add(&trouble);
                if is_news {
                    let node = &tidy.settings.node;
                    tracing::warn!(
                        "the status of the node {node} is not tidied: {trouble}; all else goes on, and it is tried again"
                    );
                }
                sleep(pause).await;
            }
        }
    }
}

struct Tidy {
    settings: Settings,
    status: Arc<Status>,
    api: Option<Api<DynamicObject>>,
    /// What had a server at the last look.
    served: BTreeSet<ResourceName>,
    /// What has had one at any time.
    ours: BTreeSet<ResourceName>,
    /// Names with 0, and since when they have been seen so without a server.
    gone: BTreeMap<ResourceName, Instant>,
    /// Whether the kubelet has still to write 0 for one of ours.
    unsettled: bool,
    looked: Option<Instant>,
}

impl Tidy {
    /// Whether there may be something to be taken out.
    fn is_due(&mut self) -> bool {
        // Before it has begun, nothing is served that will be.
        if !self.status.has_begun() {
            return false;
        }
        let served = self.status.names();
        let lost = !served.is_superset(&self.served);
        self.ours.extend(served.iter().cloned());
        self.served = served;
        lost || self.unsettled || !self.gone.is_empty() || self.looked.is_none_or(|looked| looked.elapsed() >= SELDOM)
    }

    async fn look(&mut self) -> Result<(), Trouble> {
        let now = Instant::now();
        let found = self.zeros().await?;
        self.looked = Some(now);
        self.gone.retain(|name, _| found.contains_key(name));
        for name in found.keys() {
            self.gone.entry(name.clone()).or_insert(now);
        }
        let is_due = |name: &ResourceName| self.gone.get(name).is_some_and(|since| now - *since >= self.settings.after);
        let due: BTreeMap<ResourceName, Vec<PointerBuf>> = found.into_iter().filter(|(name, _)| is_due(name)).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.take_out(&due).await
    }

    /// Where the status says 0 of a resource of ours that has no server.
    async fn zeros(&mut self) -> Result<BTreeMap<ResourceName, Vec<PointerBuf>>, Trouble> {
        let node = timeout(PATIENCE, self.api().await?.get(&self.settings.node)).await;
        let node = node.map_err(|_| hung())?.map_err(|error| refused(&error))?;
        let status = node.data.get("status");
        let mut found: BTreeMap<ResourceName, Vec<PointerBuf>> = BTreeMap::new();
        let served = self.status.names();
        let mut in_use = BTreeSet::new();
        for list in LISTS {
            let amounts = status.and_then(|status| status.get(list)).and_then(Value::as_object);
            for (text, amount) in amounts.into_iter().flatten() {
                let Some(name) = self.recognise(text) else { continue };
                if amount.as_str() == Some("0") {
                    found.entry(name).or_default().push(PointerBuf::from_tokens(["status", list, text]));
                } else {
                    in_use.insert(name);
                }
            }
        }
        self.unsettled = in_use.iter().any(|name| self.ours.contains(name) && !served.contains(name));
        found.retain(|name, _| !served.contains(name) && !in_use.contains(name));
        Ok(found)
    }

    /// MIG's names, and those that a configuration has given. Whole GPUs may be somebody else's.
    fn recognise(&self, text: &str) -> Option<ResourceName> {
        let given = || self.ours.iter().find(|name| name.to_string() == text).cloned();
        let name = ResourceName::recognise(text, &self.settings.domain).or_else(given)?;
        let is_whole = name.name() == "gpu" || name.name() == "gpu.shared";
        (!is_whole).then_some(name)
    }

    async fn take_out(&mut self, due: &BTreeMap<ResourceName, Vec<PointerBuf>>) -> Result<(), Trouble> {
        let still_zero = |path: &PointerBuf| {
            PatchOperation::Test(TestOperation { path: path.clone(), value: Value::String("0".to_owned()) })
        };
        let removed = |path: &PointerBuf| PatchOperation::Remove(RemoveOperation { path: path.clone() });
        let steps = due.values().flatten().flat_map(|path| [still_zero(path), removed(path)]);
        let patch = Patch::Json::<()>(JsonPatch(steps.collect()));
        let (api, node) = (self.api().await?, self.settings.node.clone());
        let answer = timeout(PATIENCE, api.patch_status(&node, &PatchParams::default(), &patch)).await;
        match answer.map_err(|_| hung())? {
            Ok(_) => {
                self.gone.retain(|name, _| !due.contains_key(name));
                let names: Vec<String> = due.keys().map(ToString::to_string).collect();
                tracing::info!("taken out of the status of the node {node}: {}", names.join(", "));
                Ok(())
            }
            // The same answer for what is not 0 any more and for what is forbidden: only then it is as it was.
            Err(error @ kube::Error::Api(_)) if is_unprocessable(&error) => {
                let now = self.zeros().await?;
                if due.iter().all(|(name, paths)| now.get(name) == Some(paths)) { Err(refused(&error)) } else { Ok(()) }
            }
            Err(error) => Err(refused(&error)),
        }
    }

    async fn api(&mut self) -> Result<Api<DynamicObject>, Trouble> {
        if let Some(api) = &self.api {
            return Ok(api.clone());
        }
        let nodes = Api::all_with(client().await?, &ApiResource::erase::<Node>(&()));
        Ok(self.api.insert(nodes).clone())
    }
}

fn is_unprocessable(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

fn refused(error: &kube::Error) -> Trouble {
    Trouble::of(error, "its service account needs get on nodes and patch on nodes/status; see docs/settings.md")
}
