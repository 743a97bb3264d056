//! Labels that say what the node's GPUs are, for those who select nodes by it: NVIDIA's, written as a feature file that
//! node-feature-discovery reads, or to the node itself.
//!
//! ```text
//!   mig-nvml: Details --mig_model::labels--> feature_file: features.d/mig-agent
//!                                       +--> node: the Node object, through the API server
//! ```
//!
//! Serving comes first: nothing is asked of the driver before the kubelet has its lists, and whatever fails here is told
//! once, tried again, and changes nothing else.

mod feature_file;
mod node;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use mig_device_plugin::Status;
use mig_model::{Labels, labels};
use mig_nvml::{Described, Details};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cluster::Trouble;
use crate::config::Chosen;

/// Where labels go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodeLabels {
    /// No labels
    Off,
    /// A file for node-feature-discovery, where that is installed
    FeatureFile,
    /// The own Node object, through the API server
    Node,
}

pub(crate) enum Destination {
    /// NFD's folder.
    FeatureFile(PathBuf),
    /// The node's name.
    Node(String),
}

pub(crate) struct Settings {
    pub(crate) destination: Destination,
    pub(crate) chosen: watch::Receiver<Option<Arc<Chosen>>>,
    /// How often to look whether somebody changed what was written.
    pub(crate) check: Duration,
}

/// How it stands with the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Standing {
    /// Nothing has been tried.
    #[default]
    Waiting,
    /// This node has no folder for features.
    NoFolder,
    /// NVIDIA's gpu-feature-discovery labels this node.
    Others,
    /// There are so many, where they belong.
    Written(usize),
    /// What keeps them from being written, as one word.
    Failing(&'static str),
}

/// For how long the kubelet goes first. One that is not there does not keep the labels for ever.
const KUBELET_FIRST: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Keeps the labels until told to stop.
pub(crate) async fn keep(
    settings: Settings,
    details: Details,
    status: Arc<Status>,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
) {
    let begin = Instant::now();
    while (!status.has_begun() || !status.obstacles().is_empty()) && begin.elapsed() < KUBELET_FIRST {
        if stop.run_until_cancelled(sleep(LOOK)).await.is_none() {
            break;
        }
    }
    let Settings { destination, chosen, check } = settings;
    let source = Source { details, described: None, chosen };
    match destination {
        Destination::FeatureFile(folder) => feature_file::keep(&folder, source, check, &standing, &stop).await,
        Destination::Node(name) => node::keep(name, source, check, &standing, &stop).await,
    }
}

/// Where the labels come from. The driver is asked only once somebody has use for them.
struct Source {
    details: Details,
    described: Option<watch::Receiver<Option<Arc<Described>>>>,
    chosen: watch::Receiver<Option<Arc<Chosen>>>,
}

impl Source {
    /// The labels, if the driver has answered.
    fn labels(&mut self) -> Option<Labels> {
        let described = self.described.get_or_insert_with(|| self.details.follow());
        let described = described.borrow_and_update().clone()?;
        let chosen = self.chosen.borrow_and_update().clone()?;
        Some(labels(&described.inventory, &described.details, &chosen.terms))
    }

    /// Until the driver tells something new; for ever if it was not asked.
    async fn news(&mut self) {
        let Some(described) = &mut self.described else { return std::future::pending().await };
        let told = tokio::select! {
            changed = described.changed() => changed.is_ok(),
            changed = self.chosen.changed() => changed.is_ok(),
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }
}

/// Notes how it stands now, and says whether that is news.
fn becomes(standing: &watch::Sender<Standing>, now: Standing) -> bool {
    standing.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    })
}
