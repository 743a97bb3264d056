//! The thread that owns NVML.
//!
//! NVML can hang, and a thread in it can't be stopped. So nothing waits for this one: it publishes what it saw, and
//! `supervise` tells everybody when a pass takes too long.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mig_model::{Driver, Fault, Gpu, NodeInventory, XidEvent};
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};
use tokio::time::timeout_at;

use crate::details::{Describer, Details};
use crate::error::DriverError;
use crate::events::Watcher;
use crate::library::{Library, Loaded};
use crate::metrics::Metrics;
use crate::pulse::{Beat, Phase, Pulse};
use crate::read::Reader;
use crate::session::Session;

/// Where the driver is and how often to ask it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This library and no other.
    pub library: Option<PathBuf>,
    /// Where the driver's files are, if not in `/`.
    pub driver_root: PathBuf,
    /// Usually `/sys`.
    pub sys_root: PathBuf,
    /// From the end of one pass to the start of the next.
    pub poll_interval: Duration,
    /// How long a pass may take before others are told.
    pub deadline: Duration,
    /// Where calls and passes are counted and timed.
    pub metrics: Metrics,
}

/// What is known of the driver and its GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The last reading; with faults where the last pass failed.
    pub inventory: Option<Arc<NodeInventory>>,
    /// Whether it can be believed to be current.
    pub driver: DriverState,
}

/// How the driver does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DriverState {
    /// The first pass is not over.
    #[default]
    Starting,
    /// The last pass succeeded.
    Ready,
    /// The last pass, or NVML's start, failed; it is tried again at every poll.
    Failed(Fault),
    /// A pass has been under way for longer than its deadline.
    Stalled,
}

/// How often it is looked whether a driver that has hung goes on.
const STUCK: Duration = Duration::from_secs(1);

/// Lets the rest of the agent watch over the thread.
pub struct Supervision {
    pulse: Arc<Pulse>,
    /// Ends with the thread.
    thread: oneshot::Receiver<()>,
    view: watch::Sender<View>,
    details: Details,
    deadline: Duration,
}

impl Supervision {
    /// Where to ask for more than a [`View`] has.
    pub fn details(&self) -> Details {
        self.details.clone()
    }
}

/// What the thread tells.
pub struct Feed {
    /// What was read last.
    pub views: watch::Receiver<View>,
    /// Errors that the driver reports, in the order in which it does.
    pub xids: tokio_mpsc::UnboundedReceiver<XidEvent>,
    /// For [`supervise`].
    pub supervision: Supervision,
}

/// The thread's end of everything that leads out of it.
struct Channels {
    view: watch::Sender<View>,
    pulse: Arc<Pulse>,
    details: Details,
    wake: mpsc::Receiver<()>,
    xids: tokio_mpsc::UnboundedSender<XidEvent>,
}

/// Starts the thread. It runs until the process ends or nobody listens any more.
pub fn start(settings: Settings) -> std::io::Result<Feed> {
    let (view, views) = watch::channel(View::default());
    let pulse = Arc::new(Pulse::new());
    let (details, wake) = Details::new();
    let (lives, thread) = oneshot::channel();
    let supervision = Supervision {
        pulse: Arc::clone(&pulse),
        thread,
        view: view.clone(),
        details: details.clone(),
        deadline: settings.deadline,
    };
    let (told, xids) = tokio_mpsc::unbounded_channel();
    let channels = Channels { view, pulse, details, wake, xids: told };
    thread::Builder::new().name("nvml".to_owned()).spawn(move || {
        own(&settings, &channels);
        drop(lives);
    })?;
    Ok(Feed { views, xids, supervision })
}

/// Marks the view as stalled while a pass is late. Runs for as long as the thread does.
pub async fn supervise(mut supervision: Supervision) {
    let Supervision { pulse, thread, view, deadline, .. } = &mut supervision;
    let mut stuck: Option<Beat> = None;
    loop {
        let now = Instant::now();
        // What begins later cannot be due earlier.
        let next = now + *deadline;
        let beat = pulse.get();
        // It goes on, and reads at once how the driver does.
        stuck = stuck.filter(|stuck| *stuck == beat);
        let due = beat.due(*deadline).unwrap_or(next);
        let look = match stuck {
            Some(_) => now + STUCK.min(*deadline),
            None if due <= now => {
                stuck = Some(beat);
                let seconds = deadline.as_secs();
                tracing::error!(
                    "the driver has not answered for {seconds} s: serving goes on with what was last known (see the kernel's log; a hung driver needs a reset or a reboot)"
                );
                pulse.mark_late();
                view.send_if_modified(|view| {
                    // It may have answered in this moment, and said so.
                    let is_late = pulse.get() == beat;
                    if is_late {
                        view.driver = DriverState::Stalled;
                    }
                    is_late
                });
                continue;
            }
            None => due.min(next),
        };
        if timeout_at(look.into(), &mut *thread).await.is_ok() {
            return;
        }
    }
}

/// Why the driver is not asked any more.
enum End {
    /// Nobody listens.
    Unheard,
    /// It has failed as a whole, and said this.
    Failed(DriverError),
    /// It is to be started anew, which is nothing to speak of.
    Anew,
}

/// A GPU that is lost stays so for this process, though it may be back: NVML looks for GPUs when it is started. It is,
/// from time to time, and ever more seldom, since the other GPUs are not asked meanwhile.
#[derive(Default)]
struct Renewal {
    next: Option<(Instant, Duration)>,
}

/// In readings.
const FIRST_RENEWAL: u32 = 12;
const RENEWALS: u32 = 10;

impl Renewal {
    fn is_due(&mut self, inventory: &NodeInventory, poll_interval: Duration) -> bool {
        if inventory.unreadable.is_empty() && inventory.gpus.iter().all(|gpu| gpu.fault.is_none()) {
            self.next = None;
            return false;
        }
        let first = poll_interval.saturating_mul(FIRST_RENEWAL);
        let (at, pause) = *self.next.get_or_insert_with(|| (Instant::now() + first, first));
        if Instant::now() < at {
            return false;
        }
        let pause = pause.saturating_mul(2).min(first.saturating_mul(RENEWALS));
        self.next = Some((Instant::now() + pause, pause));
        true
    }
}

fn own(settings: &Settings, channels: &Channels) {
    let mut before = None;
    let mut told = None;
    let mut renewal = Renewal::default();
    // The supervisor holds a sender too, so listeners are counted, not senders.
    while channels.view.receiver_count() > 0 {
        let end = match open(settings, &mut told) {
            Ok((session, loaded)) => poll(&session, &loaded, settings, &mut before, &mut renewal, channels),
            Err(error) => End::Failed(error),
        };
        let error = match end {
            End::Unheard => return,
            End::Anew => continue,
            End::Failed(error) => error,
        };
        settings.metrics.failed();
        let fault = error.fault();
        before = before.map(|inventory| marked(&inventory, &fault));
        publish(&channels.view, View { inventory: before.clone(), driver: DriverState::Failed(fault) });
        // Cut short by those who want details; it can't be disconnected, since our own `details` holds a sender.
        channels.pulse.set(Phase::Resting);
        let _ = channels.wake.recv_timeout(settings.poll_interval);
        channels.pulse.set(Phase::Asking);
    }
}

fn open(settings: &Settings, told: &mut Option<Library>) -> Result<(Session, Loaded), DriverError> {
    let library = Library::find(settings.library.as_deref(), &settings.driver_root)?;
    // Before it is loaded: a library that ends the process should not do so without a trace.
    if told.as_ref() != Some(&library) {
        tracing::info!("loading {library}");
        *told = Some(library.clone());
    }
    let loaded = library.file();
    Ok((Session::start(&library, &settings.driver_root, settings.metrics.clone())?, loaded))
}

/// Reads until the driver fails as a whole, has to be started anew, or nobody listens.
fn poll(
    session: &Session,
    loaded: &Loaded,
    settings: &Settings,
    before: &mut Option<Arc<NodeInventory>>,
    renewal: &mut Renewal,
    channels: &Channels,
) -> End {
    let mut reader = match Reader::new(session, &settings.sys_root) {
        Ok(reader) => reader,
        Err(error) => return End::Failed(error),
    };
    let mut watcher = Watcher::new(session);
    watcher.begin();
    let mut describer = Describer::new(session, &settings.sys_root);
    while channels.view.receiver_count() > 0 {
        let began = Instant::now();
        let old;
        let pass = reader.pass(before.as_deref());
        settings.metrics.took(began.elapsed());
        match pass {
            Ok(mut inventory) => {
                old = watcher.watch(&mut inventory, &channels.xids);
                let same = before.take().filter(|before| **before == inventory);
                let inventory = same.unwrap_or_else(|| Arc::new(inventory));
                *before = Some(Arc::clone(&inventory));
                publish(&channels.view, View { inventory: before.clone(), driver: DriverState::Ready });
                // Not before it can be seen: what happened since then is not in the view before.
                settings.metrics.read(began);
                channels.details.publish(&mut describer, &inventory);
            }
            Err(error) => return End::Failed(error),
        }
        // A moment, for what has happened is to be told all the same.
        let pause = if old { Duration::ZERO } else { settings.poll_interval };
        watcher.rest(pause, &channels.wake, &channels.xids, &channels.pulse);
        channels.pulse.set(Phase::Asking);
        // After everything was told.
        if before.as_ref().is_some_and(|inventory| renewal.is_due(inventory, settings.poll_interval)) {
            tracing::debug!("NVML is started anew, to see whether GPUs are back");
            return End::Anew;
        }
        if loaded.was_replaced(settings.library.as_deref(), &settings.driver_root) {
            tracing::info!("the driver's library was replaced: it is loaded anew");
            return End::Anew;
        }
    }
    End::Unheard
}

/// Wakes listeners only if there is something new.
fn publish(view: &watch::Sender<View>, new: View) {
    let tidings = (view.borrow().driver != new.driver).then(|| (new.driver.clone(), new.inventory.clone()));
    view.send_if_modified(|view| {
        let changed = *view != new;
        *view = new;
        changed
    });
    // Not while the view is locked: whoever reads the log may be slow.
    match tidings {
        Some((DriverState::Failed(fault), _)) => tracing::error!(kind = fault.kind, "{}", fault.message),
        Some((_, Some(inventory))) => {
            let Driver { version, nvml } = &inventory.driver;
            tracing::info!(driver = version, nvml, "the driver answers");
        }
        _ => {}
    }
}

/// Everything that was known, with the fault that has befallen all of it.
fn marked(inventory: &NodeInventory, fault: &Fault) -> Arc<NodeInventory> {
    let gpus =
        inventory.gpus.iter().map(|gpu| Gpu { fault: Some(fault.clone()), outdated: true, ..gpu.clone() }).collect();
    Arc::new(NodeInventory { gpus, ..inventory.clone() })
}
