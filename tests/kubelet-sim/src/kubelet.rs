//! The handle that tests hold.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kubelet::deviceplugin::{AllocateResponse, PreferredAllocationResponse};
use tokio::{sync::Mutex, time::timeout_at};

use crate::{
    AdmissionError, ContainerAllocation, Event, Options, Pod, PodAllocation, PodResourcesMode, RegistrationMode,
    Resource, Violation, What, admission,
    life::{self, Life},
    node::Node,
    registration,
};

/// A simulated kubelet and the node that it runs on. The node outlives stops and starts of the kubelet.
///
/// Dropping it with violations that nobody has [taken](Self::take_violations) panics.
#[derive(Debug)]
pub struct Kubelet {
    node: Arc<Node>,
    life: Mutex<Option<Life>>,
    /// Pods are admitted one after the other.
    turn: Mutex<()>,
}

/// The kubelet could not start.
#[derive(Debug, thiserror::Error)]
#[error("unable to start a kubelet in {}", root.display())]
pub struct StartError {
    root: PathBuf,
    source: io::Error,
}

impl Kubelet {
    /// Starts in a directory that stands for `/var/lib/kubelet`. Its path should be short: a socket's has 107 bytes.
    pub async fn start(root: impl AsRef<Path>) -> Result<Self, StartError> {
        Self::start_with(root, Options::default()).await
    }

    /// Starts with other limits.
    pub async fn start_with(root: impl AsRef<Path>, options: Options) -> Result<Self, StartError> {
        let kubelet = Self::stopped(root, options);
        kubelet.start_again().await?;
        Ok(kubelet)
    }

    /// A node whose kubelet does not run yet.
    pub fn stopped(root: impl AsRef<Path>, options: Options) -> Self {
        let node = Arc::new(Node::new(root.as_ref(), options));
        Self { node, life: Mutex::new(None), turn: Mutex::new(()) }
    }

    /// The directory that stands for `/var/lib/kubelet`.
    pub fn root(&self) -> &Path {
        &self.node.root
    }

    // === The kubelet's own life ===

    /// Starts if it does not run: wipes every socket in `device-plugins`, keeps the checkpoint and what it says of pods.
    /// All resources have 0 devices until their plugins register again.
    pub async fn start_again(&self) -> Result<(), StartError> {
        let mut life = self.life.lock().await;
        if life.is_none() {
            let failed = |source| StartError { root: self.root().to_owned(), source };
            *life = Some(Life::start(&self.node).map_err(failed)?);
        }
        Ok(())
    }

    /// Hangs up on all plugins, removes kubelet.sock, and ends.
    pub async fn stop(&self) {
        if let Some(life) = self.life.lock().await.take() {
            life.stop().await;
        }
    }

    /// Ends without a goodbye: connections break, kubelet.sock stays. The real one does so on SIGTERM, too.
    pub async fn kill(&self) {
        if let Some(life) = self.life.lock().await.take() {
            life.kill().await;
        }
    }

    /// As a restart of the service: [`kill`](Self::kill) and [`start_again`](Self::start_again).
    pub async fn restart(&self) -> Result<(), StartError> {
        self.kill().await;
        self.start_again().await
    }

    /// Deletes `device-plugins` with all that is in it, checkpoint and sockets, under a kubelet that runs or not.
    pub fn remove_directory(&self) -> io::Result<()> {
        // Out of the way first: a plugin may be making a socket in it at this moment.
        let aside = self.node.device_plugins().with_extension("removed");
        fs::rename(self.node.device_plugins(), &aside)?;
        fs::remove_dir_all(aside)
    }

    /// Makes `device-plugins` again, empty: without a kubelet.sock until the next start.
    pub fn recreate_directory(&self) -> io::Result<()> {
        fs::create_dir_all(self.node.device_plugins())
    }

    /// Lets go of a resource's plugin and hangs up on it, as when another one has registered the name. False if none is
    /// connected.
    pub fn hang_up(&self, resource: &str) -> bool {
        let mut state = self.node.lock();
        let client = state.clients.get(resource).cloned();
        client.is_some_and(|client| {
            registration::disconnect(&self.node, &mut state, resource, &client);
            true
        })
    }

    /// What plugins that register meet from now on.
    pub fn set_registration(&self, mode: RegistrationMode) {
        self.node.lock().registration = mode;
    }

    // === What it knows ===

    /// Every resource that a plugin has listed, unless it has been away for longer than the grace.
    pub fn resources(&self) -> BTreeMap<String, Resource> {
        let mut state = self.node.lock();
        self.node.expire(&mut state);
        state.resources()
    }

    /// Waits until the resources are as they should be. Looks at each change, not at intervals.
    pub async fn wait_for(
        &self,
        is_so: impl Fn(&BTreeMap<String, Resource>) -> bool,
        within: Duration,
    ) -> Result<BTreeMap<String, Resource>, NotInTime> {
        let deadline = Instant::now() + within;
        let mut changed = self.node.subscribe();
        loop {
            let (resources, wake) = {
                let mut state = self.node.lock();
                self.node.expire(&mut state);
                let grace = self.node.options.stop_grace;
                let wake = state.resources.values().filter_map(|known| known.expires(grace)).min();
                (state.resources(), wake.map_or(deadline, |expires| expires.min(deadline)))
            };
            if is_so(&resources) {
                return Ok(resources);
            }
            if Instant::now() >= deadline {
                return Err(NotInTime::new("the resources are not as expected", within, &resources, &self.events()));
            }
            // A millisecond past the grace, so that it is over by then.
            let wake = wake + Duration::from_millis(1);
            let _news_or_time = timeout_at(wake.into(), changed.changed()).await;
        }
    }

    /// Waits for an event, among those from number `since` on: 0, or the length of [`events`](Self::events) before.
    pub async fn wait_for_event(
        &self,
        since: usize,
        is_it: impl Fn(&What) -> bool,
        within: Duration,
    ) -> Result<Event, NotInTime> {
        let deadline = Instant::now() + within;
        let mut changed = self.node.subscribe();
        let mut seen = since;
        loop {
            let events = self.events_since(seen);
            if let Some(event) = events.iter().find(|event| is_it(&event.what)) {
                return Ok(event.clone());
            }
            seen += events.len();
            if timeout_at(deadline.into(), changed.changed()).await.is_err() {
                return Err(NotInTime::new("the event did not come", within, &self.resources(), &self.events()));
            }
        }
    }

    /// All that has happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.events_since(0)
    }

    /// What has happened after the first `seen` events.
    pub fn events_since(&self, seen: usize) -> Vec<Event> {
        self.node.lock().events.get(seen..).unwrap_or_default().to_vec()
    }

    /// Waits until there are more than `seen` events.
    pub async fn next_events(&self, seen: usize) -> Vec<Event> {
        let mut changed = self.node.subscribe();
        // The sender lives in the node, so the wait cannot fail.
        let _count = changed.wait_for(|count| *count > seen).await.is_ok();
        self.events_since(seen)
    }

    /// What plugins have done that would harm a real kubelet.
    pub fn violations(&self) -> Vec<Violation> {
        self.node.lock().violations.clone()
    }

    /// The same, and forgets them: for tests that provoke them.
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut self.node.lock().violations)
    }

    // === Pods ===

    /// Gives a new pod its devices. A pod of a name that is there already is admitted again, as after a restart of the
    /// node: it keeps its devices if they are all healthy, and fails otherwise.
    pub async fn admit(&self, pod: Pod) -> Result<PodAllocation, AdmissionError> {
        let _turn = self.turn.lock().await;
        if self.life.lock().await.is_none() {
            return Err(AdmissionError::NotRunning);
        }
        self.node.lock().deleted.remove(&pod.name);
        admission::admit(&self.node, pod).await
    }

    /// Admits a pod again that is there.
    pub async fn readmit(&self, pod: &str) -> Result<PodAllocation, AdmissionError> {
        let known = self.node.lock().pods.get(pod).cloned();
        let missing = || AdmissionError::NoSuchContainer { pod: pod.to_owned(), container: "any".to_owned() };
        self.admit(known.ok_or_else(missing)?).await
    }

    /// What a container gets when it starts again in its pod: the answers of the pod's admission, whatever has become of
    /// the devices since. The plugin is not asked, unless it wants PreStartContainer.
    pub async fn restart_container(&self, pod: &str, container: &str) -> Result<ContainerAllocation, AdmissionError> {
        if self.life.lock().await.is_none() {
            return Err(AdmissionError::NotRunning);
        }
        let known = self.node.lock().pods.get(pod).cloned();
        let of = known.and_then(|pod| {
            let of = pod.all_containers().find(|known| known.name == container).cloned()?;
            Some((pod, of))
        });
        let missing = || AdmissionError::NoSuchContainer { pod: pod.to_owned(), container: container.to_owned() };
        let (pod, container) = of.ok_or_else(missing)?;
        admission::start_container(&self.node, &pod, &container).await
    }

    /// Names of the pods that are there.
    pub fn pods(&self) -> Vec<String> {
        self.node.lock().pods.keys().cloned().collect()
    }

    /// The pod ends, and its devices are free. The plugin is not told. False if there is no such pod.
    pub async fn delete(&self, pod: &str) -> bool {
        let running = self.life.lock().await;
        let mut state = self.node.lock();
        let found = state.remove_pod(pod);
        if found {
            state.deleted.insert(pod.to_owned());
            if running.is_some() {
                self.node.write_checkpoint(&mut state);
            }
            self.node.note(&mut state, What::PodDeleted { pod: pod.to_owned() });
        }
        found
    }

    // === Calls that no kubelet makes ===

    /// One Allocate with a container request for each list of ids, right or wrong. Nothing is recorded as allocated.
    pub async fn allocate_raw(
        &self,
        resource: &str,
        requests: Vec<Vec<String>>,
    ) -> Result<AllocateResponse, AdmissionError> {
        admission::allocate_call(&self.node, resource, requests).await
    }

    /// One GetPreferredAllocation, whether the plugin offers it or not. The answer is not judged.
    pub async fn preferred_raw(
        &self,
        resource: &str,
        available: Vec<String>,
        must_include: Vec<String>,
        size: usize,
    ) -> Result<PreferredAllocationResponse, AdmissionError> {
        admission::preferred_allocation(&self.node, resource, available, must_include, size).await
    }

    // === Podresources ===

    /// How podresources answers from now on.
    pub fn set_podresources(&self, mode: PodResourcesMode) {
        self.node.lock().podresources = mode;
    }

    /// Takes no new connections of podresources any more, and removes its socket.
    pub async fn remove_podresources(&self) {
        if let Some(life) = self.life.lock().await.as_mut() {
            life.refuse_podresources();
        }
        let _gone = fs::remove_file(life::podresources_socket(self.root()));
    }

    /// Serves podresources again.
    pub async fn restore_podresources(&self) -> io::Result<()> {
        self.life.lock().await.as_mut().map_or(Ok(()), Life::serve_podresources)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        let violations = self.violations();
        if !violations.is_empty() && !std::thread::panicking() {
            let list = violations.iter().fold(String::new(), |list, violation| format!("{list}\n  {violation}"));
            #[expect(clippy::panic, reason = "a test must not pass over a violation by not asking for it")]
            {
                panic!("a device plugin did what would harm a real kubelet:{list}");
            }
        }
    }
}

/// What was waited for has not come. Shows what is there instead.
#[derive(Clone)]
pub struct NotInTime {
    message: String,
}

impl NotInTime {
    fn new(what: &str, within: Duration, resources: &BTreeMap<String, Resource>, events: &[Event]) -> Self {
        let mut message = format!("{what} after {within:?}. Resources:\n");
        // Writing to a string cannot fail.
        for (name, resource) in resources {
            let Resource { capacity, allocatable, registered, .. } = resource;
            let plugin = if *registered { "registered" } else { "its plugin is away" };
            let _ = writeln!(message, "  {name}: {allocatable} allocatable of {capacity}, {plugin}");
        }
        if resources.is_empty() {
            message.push_str("  none\n");
        }
        message.push_str("Last events:\n");
        for event in events.iter().rev().take(12).rev() {
            let _ = writeln!(message, "  {}", event.what);
        }
        Self { message }
    }
}

impl fmt::Display for NotInTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

// So that `unwrap` in a test shows the message as it is meant to be read.
impl fmt::Debug for NotInTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for NotInTime {}
