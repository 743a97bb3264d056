//! What the agent knows at this moment, for those who ask over HTTP. All of it is in memory: nobody who asks makes the
//! agent ask the driver or the kubelet.

use std::sync::Arc;

use mig_device_plugin::{Status, Wanted};
use mig_model::Offers;
use mig_nvml::{DriverState, View};
use tokio::sync::watch;

use crate::config;
use crate::health;
use crate::labels::Standing;
use crate::slices::{self, Slice};

#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) views: watch::Receiver<View>,
    pub(crate) offers: watch::Receiver<Option<Arc<Wanted>>>,
    pub(crate) config: watch::Receiver<config::Standing>,
    pub(crate) status: Arc<Status>,
    /// Nothing if labels are off.
    pub(crate) labels: Option<watch::Receiver<Standing>>,
}

impl Known {
    pub(crate) fn view(&self) -> View {
        self.views.borrow().clone()
    }

    pub(crate) fn offers(&self) -> Offers {
        self.offers.borrow().as_ref().map(|wanted| wanted.offers.clone()).unwrap_or_default()
    }

    /// Ready: the driver answers and the kubelet watches every list. If not, a line for each reason.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.view().driver {
            DriverState::Ready => {}
            DriverState::Starting => reasons.push("driver: the GPUs are being read".to_owned()),
            DriverState::Stalled => reasons.push("driver: it does not answer; see the kernel's log".to_owned()),
            DriverState::Failed(fault) => reasons.push(format!("driver: {}", fault.message)),
        }
        if let Some(why) = self.view().inventory.as_deref().and_then(health::unwatchable) {
            reasons.push(format!(
                "health: no GPU can be watched for errors, so none is offered (--advertise-unwatched): {why}"
            ));
        }
        let config = self.config.borrow();
        if let Some(problem) = config.problem.as_ref().filter(|_| !config.has_any) {
            let file = config.file.as_deref().unwrap_or_default();
            reasons.push(format!("configuration: {file} cannot be used, and there was none before it: {problem}"));
        }
        drop(config);
        if !self.status.has_begun() {
            reasons.push("resources: none is offered yet".to_owned());
        }
        reasons.extend(self.status.container_problem().map(|why| format!("containers: {why}")));
        reasons.extend(self.status.obstacles().into_iter().map(|(resource, why)| format!("{resource}: {why}")));
        reasons
    }

    /// What somebody should look after though all is served.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let config = self.config.borrow();
        let problem = config.problem.as_ref().filter(|_| config.has_any);
        let file = config.file.as_deref().unwrap_or_default();
        let told =
            problem.map(|why| format!("configuration: {file} cannot be used, the last good one stays in force: {why}"));
        told.into_iter().collect()
    }

    /// Whether the configuration that is asked for is in force; nothing before the first look.
    pub(crate) fn is_configured(&self) -> Option<bool> {
        let config = self.config.borrow();
        (config.has_any || config.problem.is_some()).then_some(config.problem.is_none())
    }

    /// How it stands with the node's labels, unless they are off.
    pub(crate) fn labels(&self) -> Option<Standing> {
        self.labels.as_ref().map(|standing| *standing.borrow())
    }

    pub(crate) fn slices(&self) -> Vec<Slice> {
        slices::of(self.view().inventory.as_deref(), &self.status.resources(), &|uuid| self.status.pods_on(uuid))
    }
}
