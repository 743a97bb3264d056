//! Between what the driver shows and everybody else: what is wrong, by `mig-health`, is marked in each view.
//!
//! ```text
//!   watch<View> ----> Monitor --> watch<View> with faults --> offers, status page, API, metrics
//!   XIDs ----------->    |  \---> the log: one line when something becomes unhealthy, and one when it is well again
//!   health.json ---->    +-----> health.json
//!   watch<Chosen> ---^    \----> watch<Chosen>, when its rules hold
//! ```
//! Which rules hold is known with the configuration. It reaches those who offer devices by way of here, so that nothing is
//! offered as well that the rules, or an earlier agent's faults, say is not.
//! An XID is acted on when it comes; nothing waits for the next reading of the GPUs.

mod args;
mod store;
mod tally;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use mig_health::{Moment, Monitor, Policy, Record, Told, changes};
use mig_model::{NodeInventory, XidEvent};
use mig_nvml::{DriverState, View};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

pub(crate) use args::{HealthArgs, Rules};
pub(crate) use store::Store;
pub(crate) use tally::Tally;

use crate::config::Chosen;
use tell::Teller;

/// Of a storm, so many are taken at a time.
const BATCH: usize = 4096;
/// A driver that is late for so many deadlines more than the first hangs.
const LATE: u32 = 3;

/// What decides, and where it is kept.
pub(crate) struct Settings {
    /// What holds before there is a configuration.
    pub(crate) policy: Policy,
    /// How long one reading may take.
    pub(crate) deadline: Duration,
    /// What an earlier agent wrote.
    pub(crate) before: Option<Record>,
    /// Takes what the next one will have to know.
    pub(crate) records: watch::Sender<Record>,
    pub(crate) tally: Tally,
    /// Knows when the GPUs were read.
    pub(crate) readings: mig_nvml::Metrics,
}

/// Marks each view for as long as there are any.
pub(crate) async fn watch_over(
    settings: Settings,
    mut views: watch::Receiver<View>,
    mut xids: mpsc::UnboundedReceiver<XidEvent>,
    mut chosen: watch::Receiver<Option<Arc<Chosen>>>,
    marked: watch::Sender<View>,
    in_force: watch::Sender<Option<Arc<Chosen>>>,
) {
    let Settings { policy, deadline, mut before, records, tally, readings } = settings;
    let mut monitor = Monitor::new(policy, deadline.saturating_mul(LATE));
    let mut teller = Teller::default();
    let mut batch = Vec::new();
    let mut early = Vec::new();
    loop {
        let moment = now();
        let view = views.borrow_and_update().clone();
        let rules = chosen.borrow_and_update().clone();
        if let Some(chosen) = &rules {
            if chosen.health != *monitor.policy() {
                monitor.adopt(chosen.health.clone(), moment);
                tracing::info!("these XIDs make nothing Unhealthy now: {:?}", monitor.policy().ignored());
            }
            if let Some(before) = before.take() {
                monitor.restore(&before, moment);
            }
            for event in early.drain(..) {
                monitor.xid(&event, moment);
            }
        }
        for event in batch.drain(..) {
            let told = monitor.xid(&event, moment);
            tally.xid(&event, view.inventory.as_deref());
            if told == Told::Ignored {
                teller.ignored(&event, monitor.policy(), moment);
                // The configuration may say that it counts.
                if rules.is_none() && early.len() < BATCH {
                    early.push(event);
                }
            }
        }
        monitor.late(view.driver == DriverState::Stalled, moment);
        if let Some(inventory) = &view.inventory {
            if matches!(view.driver, DriverState::Ready | DriverState::Failed(_)) {
                let read = readings.last_success().map_or(Duration::ZERO, |at| moment.saturating_sub(at.elapsed()));
                monitor.read(inventory, read, moment);
            }
            let now = monitor.mark(inventory, moment);
            publish(&marked, inventory, now, &view.driver, &mut teller, &tally);
        } else {
            marked.send_if_modified(|marked| std::mem::replace(&mut marked.driver, view.driver.clone()) != view.driver);
        }
        keep(&records, &monitor, before.as_ref());
        in_force.send_if_modified(|in_force| {
            let changed = *in_force != rules;
            *in_force = rules;
            changed
        });
        let next = monitor.next(moment).map(|at| Instant::now() + at.saturating_sub(moment));
        let time = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What an XID names is looked for in the view that was there when it came.
            biased;
            count = xids.recv_many(&mut batch, BATCH), if !xids.is_closed() || !xids.is_empty() => if count == 0 {
                continue;
            },
            changed = views.changed() => if changed.is_err() {
                break;
            },
            changed = chosen.changed() => if changed.is_err() {
                break;
            },
            () = time => {}
        }
    }
}

/// Since the machine's start, sleep included: the same for an agent that is started anew.
fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn publish(
    marked: &watch::Sender<View>,
    read: &Arc<NodeInventory>,
    now: NodeInventory,
    driver: &DriverState,
    teller: &mut Teller,
    tally: &Tally,
) {
    let before = marked.borrow().inventory.clone();
    let inventory = match &before {
        Some(before) if **before == now => Arc::clone(before),
        _ if **read == now => Arc::clone(read),
        _ => Arc::new(now),
    };
    let changes = changes(before.as_deref(), &inventory);
    let view = View { inventory: Some(Arc::clone(&inventory)), driver: driver.clone() };
    marked.send_if_modified(|marked| {
        let changed = *marked != view;
        *marked = view;
        changed
    });
    // Afterwards: whoever reads the log may be slow.
    tally.count(&changes);
    teller.tell(&changes, &inventory, driver);
}

/// `before` is what an earlier agent wrote down, until it is taken up.
fn keep(records: &watch::Sender<Record>, monitor: &Monitor, before: Option<&Record>) {
    let record = match before {
        None => monitor.record(),
        Some(before) => monitor.record().beside(before),
    };
    records.send_if_modified(|kept| {
        let changed = *kept != record;
        *kept = record;
        changed
    });
}

/// Why no GPU can be watched for errors, if none can and that keeps them from being offered.
pub(crate) fn unwatchable(inventory: &NodeInventory) -> Option<&str> {
    let first = inventory.gpus.first()?.unwatched.as_ref()?;
    let all = inventory.gpus.iter().all(|gpu| gpu.unwatched.is_some() && gpu.fault.is_some());
    all.then_some(first.message.as_str())
}
