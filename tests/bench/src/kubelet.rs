//! The simulated kubelet, with what is needed of it here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use kubelet_sim::{AdmissionError, Event, Options, Pod, What};

/// NVIDIA's plugin has been seen to take eight seconds for 64 GPUs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kubelet that was never run before, without pods.
pub(crate) struct Kubelet {
    inner: kubelet_sim::Kubelet,
}

/// What became of a pod.
pub(crate) enum Admission {
    Admitted,
    /// The kubelet knew of no healthy slice that was free, and did not ask.
    NoneLeft,
    /// The plugin was asked, and what it answered, or did not, was of no use.
    Failed,
}

impl Kubelet {
    pub(crate) async fn start(root: &Path) -> anyhow::Result<Self> {
        for folder in ["device-plugins", "pod-resources"] {
            match fs::remove_dir_all(root.join(folder)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let inner = kubelet_sim::Kubelet::start_with(root, Options::default()).await?;
        Ok(Self { inner })
    }

    /// Waits until this many devices of one resource are listed, from event number `since` on, and says when that was.
    pub(crate) async fn all_listed(&self, since: usize, devices: usize) -> anyhow::Result<Instant> {
        let is_it = |what: &What| matches!(what, What::List { healthy, .. } if *healthy == devices);
        let event = self.inner.wait_for_event(since, is_it, PATIENCE).await;
        Ok(event.map_err(|error| anyhow!("{devices} devices were not listed: {error}"))?.at)
    }

    /// How much has happened so far, for those that wait for what comes next.
    pub(crate) fn seen(&self) -> usize {
        self.inner.events().len()
    }

    /// The same, with a patience of the caller's own; nothing if it is not so in time.
    pub(crate) async fn listed_within(&self, since: usize, devices: usize, patience: Duration) -> Option<Instant> {
        let is_it = |what: &What| matches!(what, What::List { healthy, .. } if *healthy == devices);
        self.inner.wait_for_event(since, is_it, patience).await.ok().map(|event| event.at)
    }

    /// A pod with one slice.
    pub(crate) async fn admit(&self, name: &str) -> Admission {
        let pod = Pod::new(name).container("main", [("nvidia.com/mig-1g.5gb", 1)]);
        match self.inner.admit(pod).await {
            Ok(_) => Admission::Admitted,
            Err(
                AdmissionError::NoneHealthy(_)
                | AdmissionError::NoLongerHealthy(_)
                | AdmissionError::TooFew { .. }
                | AdmissionError::UnknownResource(_),
            ) => Admission::NoneLeft,
            Err(_) => Admission::Failed,
        }
    }

    /// The pod ends. One that failed holds nothing.
    pub(crate) async fn delete(&self, name: &str) {
        self.inner.delete(name).await;
    }

    /// Where the only plugin serves, and the ids that it has listed.
    pub(crate) fn offered(&self) -> anyhow::Result<(PathBuf, Vec<String>)> {
        let endpoint = self.inner.events().into_iter().find_map(|event| match event.what {
            What::Registered { endpoint, .. } => Some(endpoint),
            _ => None,
        });
        let socket = self.inner.root().join("device-plugins").join(endpoint.context("nothing is registered")?);
        let resources = self.inner.resources();
        let devices = resources.values().flat_map(|resource| &resource.devices).map(|device| device.id.clone());
        Ok((socket, devices.collect()))
    }

    /// Kills it and starts it anew after a while, as a real one that is restarted. Waits until all is listed again, and
    /// says how long that took from the moment that its new socket was there.
    pub(crate) async fn restart(&self, devices: usize) -> anyhow::Result<Duration> {
        self.inner.kill().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let since = self.inner.events().len();
        self.inner.start_again().await?;
        let listed = self.all_listed(since, devices).await?;
        let is_start = |event: &Event| matches!(event.what, What::Started);
        let started = self.inner.events_since(since).into_iter().find(is_start);
        let started = started.context("the kubelet's start is not among its events")?.at;
        Ok(listed.duration_since(started))
    }

    /// Kills it and starts it anew at once; waits until it has a list, whichever.
    pub(crate) async fn restart_to_any(&self, since: usize) -> anyhow::Result<()> {
        self.inner.kill().await;
        self.inner.start_again().await?;
        let is_it = |what: &What| matches!(what, What::List { first: true, .. });
        let listed = self.inner.wait_for_event(since, is_it, PATIENCE).await;
        listed.map(|_| ()).map_err(|error| anyhow!("no list after a restart of the kubelet: {error}"))
    }

    /// Waits until this many are healthy, now or later.
    pub(crate) async fn all_listed_now(&self, devices: usize, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < patience {
            let resources = self.inner.resources();
            let listed = resources.values().flat_map(|resource| &resource.devices);
            if listed.filter(|device| device.health == "Healthy").count() == devices {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(anyhow!("{devices} devices were not healthy again"))
    }

    /// What was done that would harm a real kubelet, and how often.
    pub(crate) fn violations(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for violation in self.inner.violations() {
            *counts.entry(format!("{:?}", violation.kind)).or_default() += 1;
        }
        counts
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        // They were reported, or the measurement has failed anyway; left in place they would end the program.
        self.inner.take_violations();
    }
}
