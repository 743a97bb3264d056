//! Gives devices to the containers of a pod: which ones, and what the plugin says they need.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use kubelet::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerPreferredAllocationRequest,
    PreStartContainerRequest, PreferredAllocationRequest, PreferredAllocationResponse,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    allocations::Held,
    connection::Plugin,
    event::{What, nanoseconds},
    merge::ContainerAllocation,
    node::{InFlight, Node, State},
    pod::{Container, Pod},
    violation::{Violation, ViolationKind},
};

type Ids = HashSet<String>;

/// Why a pod has failed (`UnexpectedAdmissionError`), or a container cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// No kubelet runs.
    #[error("the kubelet is not running")]
    NotRunning,
    /// Nobody offers the resource. The real kubelet starts such a container without it: it leaves the check to the
    /// scheduler, which there is none of here.
    #[error("no device plugin offers {0}")]
    UnknownResource(String),
    /// The plugin is away, or all its devices are unhealthy.
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    NoneHealthy(String),
    /// A container that has its devices already cannot be admitted again while one of them is unhealthy.
    #[error("previously allocated devices are no longer healthy; cannot allocate unhealthy devices {0}")]
    NoLongerHealthy(String),
    /// Too few are free.
    #[error("requested number of devices unavailable for {resource}. Requested: {requested}, Available: {available}")]
    TooFew {
        /// The resource.
        resource: String,
        /// Still wanted.
        requested: usize,
        /// Healthy and free.
        available: usize,
    },
    /// A pod's limits cannot change while it lives.
    #[error("container {container} changed its request for {resource} from {from} to {to}")]
    ChangedRequest {
        /// The container.
        container: String,
        /// The resource.
        resource: String,
        /// What it holds.
        from: usize,
        /// What it asks for now.
        to: usize,
    },
    /// The plugin is disconnected.
    #[error("the endpoint of {0} has been stopped")]
    Stopped(String),
    /// The plugin's GetPreferredAllocation failed.
    #[error("device plugin GetPreferredAllocation rpc failed with err: {0}")]
    Preferred(#[source] Status),
    /// The plugin's Allocate failed.
    #[error("Allocate failed: {0}")]
    Allocate(#[source] Status),
    /// The plugin's PreStartContainer failed.
    #[error("device plugin PreStartContainer rpc failed with err: {0}")]
    PreStart(#[source] Status),
    /// The answer had nothing in it.
    #[error("no containers return in allocation response")]
    NoAnswer,
    /// The device had left the list when Allocate was answered.
    #[error("the kubelet would have panicked here: {id} of {resource} is not in its list any more")]
    Panic {
        /// The resource.
        resource: String,
        /// The device.
        id: String,
    },
    /// There is no such pod or container.
    #[error("there is no pod {pod} with a container {container}")]
    NoSuchContainer {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
}

/// Gives one container all that it asks for. A container that has it already is only checked.
pub(crate) async fn allocate_container(node: &Node, pod: &Pod, container: &Container) -> Result<(), AdmissionError> {
    let reusable = {
        let mut state = node.lock();
        if state.reusable.0 != pod.name {
            state.reusable = (pod.name.clone(), HashMap::new());
        }
        state.reusable.1.clone()
    };
    let none = Ids::new();
    let mut given = false;
    for (resource, count) in container.limits.iter().collect::<HashMap<_, _>>() {
        let reusable = reusable.get(resource).unwrap_or(&none);
        let ids = devices_to_allocate(node, pod, container, resource, *count, reusable).await?;
        if !ids.is_empty() {
            let held = allocate(node, resource, ids).await?;
            node.lock().allocations.insert(&pod.name, &container.name, resource, held);
            given = true;
        }
    }
    let mut state = node.lock();
    let is_init = pod.init_containers.iter().any(|init| init.name == container.name);
    for (resource, held) in state.allocations.of(&pod.name, &container.name).cloned().into_iter().flatten() {
        let reusable = state.reusable.1.entry(resource).or_default();
        if is_init {
            reusable.extend(held.ids());
        } else {
            reusable.retain(|id| !held.ids().contains(id));
        }
    }
    if given {
        node.write_checkpoint(&mut state);
    }
    Ok(())
}

/// Chooses devices and marks them as allocated. Empty if the container has what it asks for.
async fn devices_to_allocate(
    node: &Node,
    pod: &Pod,
    container: &Container,
    resource: &str,
    required: usize,
    reusable: &Ids,
) -> Result<Ids, AdmissionError> {
    let mut chosen = Ids::new();
    let available = {
        let mut state = node.lock();
        node.expire(&mut state);
        let held = state.allocations.ids(&pod.name, &container.name, resource);
        if let Some(held) = &held
            && held.len() != required
        {
            let (container, resource) = (container.name.clone(), resource.to_owned());
            return Err(AdmissionError::ChangedRequest { container, resource, from: held.len(), to: required });
        }
        let lists = state.resources.get(resource).and_then(|known| known.lists.as_ref());
        let Some(lists) = lists else { return Err(AdmissionError::UnknownResource(resource.to_owned())) };
        if lists.healthy.is_empty() {
            return Err(AdmissionError::NoneHealthy(resource.to_owned()));
        }
        if let Some(held) = &held {
            let healthy = held.iter().all(|id| lists.healthy.contains(id));
            let error = AdmissionError::NoLongerHealthy(resource.to_owned());
            return if healthy { Ok(chosen) } else { Err(error) };
        }
        let healthy = lists.healthy.clone();
        if take(&mut state, resource, reusable.iter(), required, &mut chosen) {
            return Ok(chosen);
        }
        let in_use = state.allocated.entry(resource.to_owned()).or_default();
        let available = healthy.difference(in_use).cloned().collect::<Ids>();
        let requested = required - chosen.len();
        if available.len() < requested {
            let (resource, available) = (resource.to_owned(), available.len());
            return Err(AdmissionError::TooFew { resource, requested, available });
        }
        available
    };
    let preferred = prefer(node, resource, &available, &chosen, required).await?;
    let mut state = node.lock();
    // Advice only: what was not offered is passed over, and what is missing is taken from the rest.
    let advised = preferred.intersection(&available);
    if !take(&mut state, resource, advised, required, &mut chosen) {
        take(&mut state, resource, available.iter(), required, &mut chosen);
    }
    Ok(chosen)
}

/// True once enough are chosen.
fn take<'a>(
    state: &mut State,
    resource: &str,
    from: impl Iterator<Item = &'a String>,
    required: usize,
    chosen: &mut Ids,
) -> bool {
    let allocated = state.allocated.entry(resource.to_owned()).or_default();
    for id in from {
        if chosen.len() == required {
            break;
        }
        chosen.insert(id.clone());
        allocated.insert(id.clone());
    }
    chosen.len() == required
}

/// Asks the plugin which devices it would take, if it has said that it knows.
async fn prefer(
    node: &Node,
    resource: &str,
    available: &Ids,
    chosen: &Ids,
    required: usize,
) -> Result<Ids, AdmissionError> {
    let offers = {
        let state = node.lock();
        let endpoint = state.resources.get(resource).and_then(|known| known.endpoint.as_ref());
        endpoint.is_some_and(|endpoint| endpoint.options.preferred_allocation_available)
    };
    if !offers {
        return Ok(Ids::new());
    }
    let offered = available.union(chosen).cloned().collect::<Vec<_>>();
    let required_ids = chosen.iter().cloned().collect::<Vec<_>>();
    let life = node.lock().life;
    let outcome = preferred_allocation(node, resource, offered.clone(), required_ids, required).await;
    let mut state = node.lock();
    match outcome {
        Ok(response) => {
            let ids = response.containers.first().map(|first| first.ids.clone()).unwrap_or_default();
            let answers = response.containers.len();
            if let Some(detail) = judge_preferred(&ids, answers, &offered, chosen, required) {
                let kind = ViolationKind::BadPreferredAllocation;
                node.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
            }
            let (resource, available, chosen) = (resource.to_owned(), offered.len(), ids.clone());
            node.note(&mut state, What::Preferred { resource, available, size: required, chosen });
            Ok(ids.into_iter().collect())
        }
        Err(error) => {
            if let AdmissionError::Preferred(status) = &error
                && is_from_plugin(status)
                && state.lasts(life)
            {
                let kind = ViolationKind::PreferredAllocationFailed;
                let detail = format!("{status}");
                node.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
            }
            Err(error)
        }
    }
}

fn judge_preferred(ids: &[String], answers: usize, offered: &[String], must: &Ids, size: usize) -> Option<String> {
    let unique = ids.iter().collect::<BTreeSet<_>>();
    if answers != 1 {
        Some(format!("{answers} answers for one container"))
    } else if let Some(id) = ids.iter().find(|id| !offered.contains(id)) {
        Some(format!("{id} was not among the {} that were offered", offered.len()))
    } else if let Some(id) = must.iter().find(|id| !ids.contains(id)) {
        Some(format!("{id} had to be included"))
    } else if unique.len() != size || ids.len() != size {
        Some(format!("{size} were asked for, {} ({} different ones) were chosen", ids.len(), unique.len()))
    } else {
        None
    }
}

/// A broken connection is no fault of an answer.
fn is_from_plugin(status: &Status) -> bool {
    std::error::Error::source(status).is_none() && !matches!(status.code(), Code::Unavailable | Code::Cancelled)
}

/// Has the plugin prepare the chosen devices.
async fn allocate(node: &Node, resource: &str, ids: Ids) -> Result<Held, AdmissionError> {
    let request = ids.iter().cloned().collect();
    let life = node.lock().life;
    let response = match allocate_call(node, resource, vec![request]).await {
        Ok(response) => response,
        Err(error) => {
            node.lock().restore_allocated();
            return Err(error);
        }
    };
    // As in the real kubelet, without an answer the devices stay taken until a pod of the node ends.
    let Some(answer) = response.containers.into_iter().next() else { return Err(AdmissionError::NoAnswer) };
    let mut held = Held { answer, ..Held::default() };
    let state = node.lock();
    // Who asked is dead, and what its successor knows is nothing to judge by.
    if !state.lasts(life) {
        return Err(AdmissionError::NotRunning);
    }
    let lists = state.resources.get(resource).and_then(|known| known.lists.as_ref());
    for id in ids {
        let Some(lists) = lists.filter(|lists| lists.all.contains_key(&id)) else {
            return Err(AdmissionError::Panic { resource: resource.to_owned(), id });
        };
        for numa in lists.numa(&id) {
            held.by_numa.entry(numa).or_default().push(id.clone());
        }
    }
    Ok(held)
}

/// One call of Allocate, with as many container requests as given; the kubelet itself sends one.
pub(crate) async fn allocate_call(
    node: &Node,
    resource: &str,
    requests: Vec<Vec<String>>,
) -> Result<AllocateResponse, AdmissionError> {
    let (mut plugin, closed) = endpoint(&node.lock(), resource)?;
    let asked = requests.len();
    let ids = requests.concat();
    let containers = requests.into_iter().map(|ids| ContainerAllocateRequest { ids }).collect();
    let open = Open::new(node, resource);
    let started = Instant::now();
    let outcome = tokio::select! {
        outcome = plugin.allocate(AllocateRequest { containers }) => outcome,
        () = closed.cancelled() => Err(Status::cancelled("the kubelet closed the connection")),
    };
    let took = nanoseconds(started.elapsed());
    drop(open);
    let mut state = node.lock();
    match outcome {
        Ok(response) => {
            let response = response.into_inner();
            let answers = response.containers.len();
            if answers != asked {
                let detail = format!("{answers} answers for {asked} container requests");
                let kind = ViolationKind::WrongResponseCount;
                node.accuse(&mut state, Violation { kind, resource: resource.to_owned(), detail });
            }
            node.note(&mut state, What::Allocated { resource: resource.to_owned(), ids, nanoseconds: took });
            Ok(response)
        }
        Err(status) => {
            let (resource, reason) = (resource.to_owned(), status.to_string());
            node.note(&mut state, What::AllocateFailed { resource, ids, reason });
            Err(AdmissionError::Allocate(status))
        }
    }
}

/// One call of GetPreferredAllocation.
pub(crate) async fn preferred_allocation(
    node: &Node,
    resource: &str,
    available_ids: Vec<String>,
    must_include_ids: Vec<String>,
    size: usize,
) -> Result<PreferredAllocationResponse, AdmissionError> {
    let (mut plugin, closed) = endpoint(&node.lock(), resource)?;
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    let containers = vec![ContainerPreferredAllocationRequest { available_ids, must_include_ids, size }];
    let outcome = tokio::select! {
        outcome = plugin.get_preferred_allocation(PreferredAllocationRequest { containers }) => outcome,
        () = closed.cancelled() => Err(Status::cancelled("the kubelet closed the connection")),
    };
    outcome.map(tonic::Response::into_inner).map_err(AdmissionError::Preferred)
}

/// What a container gets when it starts, for the first time or again: the answers of its admission.
pub(crate) async fn start_container(
    node: &Node,
    pod: &Pod,
    container: &Container,
) -> Result<ContainerAllocation, AdmissionError> {
    for (resource, count) in &container.limits {
        if *count > 0 {
            pre_start(node, pod, container, resource).await?;
        }
    }
    let mut state = node.lock();
    let held = state.allocations.of(&pod.name, &container.name).cloned().unwrap_or_default();
    let merged = ContainerAllocation::new(&held);
    for conflict in merged.conflicts.clone() {
        let (pod, container) = (pod.name.clone(), container.name.clone());
        let crate::Conflict { kind, key, kept, dropped } = conflict;
        node.note(&mut state, What::Conflict { pod, container, kind, key, kept, dropped });
    }
    Ok(merged)
}

/// Tells the plugin before a container starts, if it has asked for that.
async fn pre_start(node: &Node, pod: &Pod, container: &Container, resource: &str) -> Result<(), AdmissionError> {
    let (ids, plugin) = {
        let state = node.lock();
        let known = state.resources.get(resource).and_then(|known| known.endpoint.as_ref());
        // Once the resource is forgotten, not even a restart of a container that holds its devices succeeds.
        let Some(known) = known else { return Err(AdmissionError::UnknownResource(resource.to_owned())) };
        if !known.options.pre_start_required {
            return Ok(());
        }
        (state.allocations.ids(&pod.name, &container.name, resource).unwrap_or_default(), endpoint(&state, resource))
    };
    let ids = ids.into_iter().collect();
    let (mut plugin, _) = plugin?;
    plugin.pre_start_container(PreStartContainerRequest { ids }).await.map_err(AdmissionError::PreStart)?;
    Ok(())
}

fn endpoint(state: &State, resource: &str) -> Result<(Plugin, CancellationToken), AdmissionError> {
    let known = state.resources.get(resource).and_then(|known| known.endpoint.as_ref());
    let Some(known) = known else { return Err(AdmissionError::UnknownResource(resource.to_owned())) };
    let stopped = || AdmissionError::Stopped(resource.to_owned());
    Ok((known.plugin.clone().ok_or_else(stopped)?, known.closed.clone()))
}

/// Stands in the list of open calls until it is dropped.
struct Open<'a> {
    node: &'a Node,
    number: u64,
}

impl<'a> Open<'a> {
    fn new(node: &'a Node, resource: &str) -> Self {
        let mut state = node.lock();
        state.calls += 1;
        let number = state.calls;
        state.in_flight.push(InFlight { number, resource: resource.to_owned() });
        Self { node, number }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.node.lock().in_flight.retain(|call| call.number != self.number);
    }
}

/// All containers of a pod, one after the other, init containers first.
pub(crate) async fn admit(node: &Arc<Node>, pod: Pod) -> Result<crate::PodAllocation, AdmissionError> {
    let name = pod.name.clone();
    node.lock().pods.insert(name.clone(), pod.clone());
    let outcome = give_all(node, &pod).await;
    let mut state = node.lock();
    let what = match &outcome {
        Ok(_) => What::PodAdmitted { pod: name },
        Err(error) => {
            // A failed pod is not active any more: what it holds, or held before a re-admission, is free.
            state.remove_pod(&name);
            node.write_checkpoint(&mut state);
            What::PodRejected { pod: name, reason: error.to_string() }
        }
    };
    node.note(&mut state, what);
    outcome
}

async fn give_all(node: &Node, pod: &Pod) -> Result<crate::PodAllocation, AdmissionError> {
    for container in pod.all_containers() {
        allocate_container(node, pod, container).await?;
    }
    let mut given = crate::PodAllocation::default();
    for container in pod.all_containers() {
        given.containers.insert(container.name.clone(), start_container(node, pod, container).await?);
    }
    Ok(given)
}
