//! The kubelet's questions about one resource.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kubelet::deviceplugin as wire;
use kubelet::deviceplugin::device_plugin_server::DevicePlugin;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::callers::Caller;
use crate::outlet::Outlet;
use crate::preference::{self, Manner};
use crate::roster::{Entry, Roster};

/// The server's side of one registration.
pub(crate) struct PluginService {
    outlet: Arc<Outlet>,
    contact: Arc<Contact>,
}

/// What the server and those who watch over its registration tell each other.
#[derive(Default)]
pub(crate) struct Contact {
    /// How many ListAndWatch streams are open.
    pub(crate) streams: watch::Sender<Streams>,
    /// The kubelet is being asked to register the resource: who asks for the options meanwhile is the kubelet.
    pub(crate) registering: AtomicBool,
    /// It has been asked.
    pub(crate) asked: AtomicBool,
    /// Another plugin has the resource: a list from here would replace that one's.
    pub(crate) silent: CancellationToken,
    /// Ends the streams, which never end by themselves.
    pub(crate) stop: CancellationToken,
}

/// Open ListAndWatch streams, by whose they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// The kubelet's, for certain.
    pub(crate) kubelet: usize,
    /// Of some program that came after the kubelet was asked to register: a kubelet's if it has no other. Those from
    /// before tell nothing of the registration.
    pub(crate) somebody: usize,
}

impl Streams {
    pub(crate) fn any(self) -> usize {
        self.kubelet + self.somebody
    }
}

impl PluginService {
    pub(crate) fn new(outlet: Arc<Outlet>, contact: Arc<Contact>) -> Self {
        Self { outlet, contact }
    }
}

/// Remembers that a connection is used for what it is there for.
pub(crate) fn note_caller(request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(caller) = caller(&request) {
        caller.asks();
    }
    Ok(request)
}

fn caller<T>(request: &Request<T>) -> Option<&Arc<Caller>> {
    request.extensions().get()
}

/// What the kubelet may call.
pub(crate) fn options() -> wire::DevicePluginOptions {
    // Without PreStartContainer: the kubelet would call it at each start of a container, and none could start while the
    // agent is down.
    wire::DevicePluginOptions { pre_start_required: false, preferred_allocation_available: true }
}

#[tonic::async_trait]
impl DevicePlugin for PluginService {
    async fn get_device_plugin_options(
        &self,
        request: Request<wire::Empty>,
    ) -> Result<Response<wire::DevicePluginOptions>, Status> {
        if let Some(caller) = caller(&request).filter(|_| self.contact.registering.load(Ordering::Relaxed)) {
            caller.is_recognised();
        }
        Ok(Response::new(options()))
    }

    type ListAndWatchStream = ReceiverStream<Result<wire::ListAndWatchResponse, Status>>;

    async fn list_and_watch(
        &self,
        request: Request<wire::Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let rosters = self.outlet.subscribe();
        let outlet = Arc::clone(&self.outlet);
        let contact = Arc::clone(&self.contact);
        let is_kubelet = caller(&request).is_none_or(|caller| caller.is_kubelet());
        let is_late = contact.asked.load(Ordering::Relaxed);
        let own = Streams { kubelet: usize::from(is_kubelet), somebody: usize::from(!is_kubelet && is_late) };
        contact.streams.send_modify(|open| {
            open.kubelet += own.kubelet;
            open.somebody += own.somebody;
        });
        outlet.meter.streams.inc();
        tokio::spawn(async move {
            tokio::select! {
                () = contact.stop.cancelled() => {}
                () = sender.closed() => {}
                () = send_lists(rosters, &sender, &contact.silent, &outlet.meter.lists) => {}
            }
            outlet.meter.streams.dec();
            // Our end first. When the kubelet reads it is not known here: the server waits for its connections to close.
            drop(sender);
            contact.streams.send_modify(|open| {
                open.kubelet -= own.kubelet;
                open.somebody -= own.somebody;
            });
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<wire::PreferredAllocationRequest>,
    ) -> Result<Response<wire::PreferredAllocationResponse>, Status> {
        let roster = self.outlet.roster();
        let manner = Manner { preferred: roster.container.preferred, shared: roster.container.shared };
        let Outlet { resource, usage, .. } = &*self.outlet;
        let neighbours = usage.ground.neighbours(resource, |id| usage.is_held(id));
        let containers = request.into_inner().containers.into_iter().map(|ask| {
            let (available, must) = (&ask.available_ids, &ask.must_include_ids);
            let ids = preference::choose(&roster, manner, available, must, ask.size, &neighbours);
            wire::ContainerPreferredAllocationResponse { ids }
        });
        Ok(Response::new(wire::PreferredAllocationResponse { containers: containers.collect() }))
    }

    async fn allocate(
        &self,
        request: Request<wire::AllocateRequest>,
    ) -> Result<Response<wire::AllocateResponse>, Status> {
        let began = Instant::now();
        // From here on the list does not shrink under the kubelet's hands.
        let _call = self.outlet.begin();
        let containers = request.into_inner().containers;
        let roster = self.outlet.roster();
        let answer = self.answer(&roster, &containers);
        match &answer {
            Ok(_) => {
                let ids = || containers.iter().flat_map(|ask| ask.ids.iter().map(String::as_str));
                let devices = ids().filter_map(|id| Some(roster.find(id)?.1.device()));
                self.outlet.usage.record(&self.outlet.resource, devices);
                tracing::info!(resource = %self.outlet.resource, devices = ids().collect::<Vec<_>>().join(","), "allocated");
            }
            Err(status) => {
                tracing::warn!(resource = %self.outlet.resource, code = ?status.code(), "refused to allocate: {}", status.message());
            }
        }
        self.outlet.meter.answered(began.elapsed(), answer.as_ref().err().map(Status::code));
        answer.map(Response::new)
    }

    async fn pre_start_container(
        &self,
        _: Request<wire::PreStartContainerRequest>,
    ) -> Result<Response<wire::PreStartContainerResponse>, Status> {
        Ok(Response::new(wire::PreStartContainerResponse {}))
    }
}

// === impl PluginService ===

impl PluginService {
    /// One answer per container, or an error for all: the kubelet has no use for half an answer.
    fn answer(
        &self,
        roster: &Roster,
        containers: &[wire::ContainerAllocateRequest],
    ) -> Result<wire::AllocateResponse, Status> {
        if containers.is_empty() {
            return Err(Status::invalid_argument("the request names no container"));
        }
        let resource = &self.outlet.resource;
        let mut seen = HashSet::new();
        let mut answers = Vec::with_capacity(containers.len());
        for container in containers {
            if container.ids.is_empty() {
                return Err(Status::invalid_argument(format!("the request asks for no device of {resource}")));
            }
            let mut entries = Vec::with_capacity(container.ids.len());
            for id in &container.ids {
                if !seen.insert(id) {
                    return Err(Status::invalid_argument(format!("the request names {:?} twice", shown(id))));
                }
                entries.push(self.entry(roster, id)?);
            }
            let alone = |entry: &Entry| entry.device().replica.is_some_and(|replica| replica.alone);
            if entries.len() > 1 && entries.iter().any(|(_, entry)| alone(entry)) {
                return Err(Status::invalid_argument(format!(
                    "a container asks for {} of {resource}, which is shared in time: two shares of a slice are no more than one, \
                     so the configuration (sharing.timeSlicing.failRequestsGreaterThanOne) allows one",
                    entries.len()
                )));
            }
            // In the list's order, by GPU and placement, and not in the kubelet's, which is random.
            entries.sort_unstable_by_key(|(place, _)| *place);
            let offered: Vec<_> = entries.iter().map(|(_, entry)| &entry.offered).collect();
            answers.push(roster.container.answer(resource, &offered));
        }
        Ok(wire::AllocateResponse { containers: answers })
    }

    fn entry<'r>(&self, roster: &'r Roster, id: &str) -> Result<(usize, &'r Entry), Status> {
        let resource = &self.outlet.resource;
        let Some((place, entry)) = roster.find(id) else {
            return Err(Status::not_found(format!("{resource} has no device {:?}", shown(id))));
        };
        if entry.gone {
            return Err(Status::failed_precondition(format!(
                "{id} of {resource} is offered no more: it is gone from the GPU, or goes by another name now"
            )));
        }
        if let Some(fault) = &entry.device().fault {
            return Err(Status::failed_precondition(format!("{id} of {resource} is unhealthy: {}", fault.message)));
        }
        Ok((place, entry))
    }
}

/// As much of an id as a message has room for: what is unknown may be of any length.
fn shown(id: &str) -> String {
    id.chars().take(64).collect()
}

/// The list now and after each change; changes that come faster than the kubelet reads are sent as one.
async fn send_lists(
    mut rosters: watch::Receiver<Arc<Roster>>,
    sender: &mpsc::Sender<Result<wire::ListAndWatchResponse, Status>>,
    silent: &CancellationToken,
    sent: &Counter,
) {
    let mut last = None;
    loop {
        let list = rosters.borrow_and_update().to_wire();
        // Settings may have changed, which are nothing to the kubelet.
        if last.as_ref() != Some(&list) {
            if sender.send(Ok(list.clone())).await.is_err() {
                return;
            }
            sent.inc();
            last = Some(list);
        }
        tokio::select! {
            // The stream stays open: its end would take the other plugin's registration with it.
            () = silent.cancelled() => return std::future::pending().await,
            changed = rosters.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests;
