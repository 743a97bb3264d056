//! An hour in some minutes: what the agent has at its end that it had not at its start.

use std::{
    collections::VecDeque,
    fs,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Measurement, OURS, change::Outlook, float, pause};
use crate::{
    kubelet::Admission,
    machine::{Machine, PretendedDriver, SLICES},
    plugin::Plugin,
    table::Quantity,
};

const HOUR: Duration = Duration::from_secs(3600);
/// Pods at a time; the ninth ends the first.
const PODS: usize = 8;
/// Of a program, and of the hardware.
const XIDS: [u64; 2] = [39, 48];

/// What has happened.
#[derive(Default)]
struct Doings {
    pods: usize,
    refused: usize,
    failed: usize,
    restarts: usize,
    xids: usize,
    layouts: usize,
    errors: usize,
}

impl Measurement {
    /// Pods come and go, the kubelet starts anew, slices fail and recover, are cut and cut back, and NVML errs. All times
    /// of the agent are as much shorter as the hour is.
    pub(super) async fn soak(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let outlook = Outlook::new()?;
        let more = self.shortened(&outlook)?;
        let Some(mut running) = self.up_with(OURS, machine, &more).await? else { return Ok(()) };
        // One of each is done before the first count: what is made once and kept does not grow.
        let driver = machine.driver()?;
        let mut doings = Doings::default();
        let mut pods = VecDeque::new();
        let short = self.effort.soak / 20;
        for (length, when) in [(short, "before"), (self.effort.soak, "after")] {
            let began = Instant::now();
            doings = Doings::default();
            let mut turn = 0_usize;
            while began.elapsed() < length {
                self.churn(&running.kubelet, &mut pods, &mut doings).await;
                disturb(turn, machine, &driver, &mut doings).await?;
                if turn % 200 == 199 {
                    // Whatever its list is, it has to come; some slices may be unwell.
                    let since = running.kubelet.seen();
                    running.plugin.meanwhile(running.kubelet.restart_to_any(since)).await?;
                    doings.restarts += 1;
                }
                turn += 1;
                running.plugin.meanwhile(pause(Duration::from_millis(10))).await?;
            }
            for name in pods.drain(..) {
                running.kubelet.delete(&name).await;
            }
            driver.mend()?;
            self.rest(&mut running, machine).await?;
            self.note_size(&running.plugin, when)?;
        }
        let mut add = |name, value| self.figures.add(OURS, Quantity::new(GROUP, name, ""), float(value));
        add("pods admitted", doings.pods);
        add("pods refused, for want of healthy slices", doings.refused);
        add("pods that failed for another reason", doings.failed);
        add("kubelets started anew", doings.restarts);
        add("XIDs", doings.xids);
        add("changes of the layout", doings.layouts);
        add("times that NVML failed", doings.errors);
        for (kind, count) in running.kubelet.violations() {
            let what = Quantity::new("done to the kubelet that it does not bear", kind, "0");
            self.figures.add(OURS, what, float(count));
        }
        running.plugin.stop().await
    }

    /// Until every slice is well and listed again.
    async fn rest(&self, running: &mut super::Running, machine: &Machine) -> anyhow::Result<()> {
        // Longer than a slice is Unhealthy at most, which is a twelfth of the hour.
        let patience = self.effort.soak / 6 + Duration::from_secs(30);
        running.plugin.meanwhile(running.kubelet.all_listed_now(machine.slices(), patience)).await?;
        // As many times its rests as an idle minute has.
        sleep(self.effort.soak / 60).await;
        Ok(())
    }

    fn note_size(&mut self, plugin: &Plugin, when: &str) -> anyhow::Result<()> {
        let memory = plugin.memory()?;
        let mut add = |name: &str, value| {
            self.figures.add(OURS, Quantity::new(GROUP, format!("{name}, {when}"), ""), value);
        };
        add("resident memory, MiB", memory.resident);
        add("proportional memory, MiB", memory.proportional);
        add("file descriptors", float(plugin.descriptors()?));
        add("threads", plugin.threads()?);
        Ok(())
    }

    /// The agent's own times, shortened.
    fn shortened(&self, outlook: &Outlook) -> anyhow::Result<Vec<String>> {
        let soak = self.effort.soak;
        let short = |seconds: u64| {
            let milliseconds = soak.as_millis() * u128::from(seconds) / HOUR.as_secs().max(1) as u128;
            format!("{}ms", milliseconds.max(20))
        };
        let policy = self.scratch.join("soak-policy.yaml");
        let times = [("application", 30), ("hardware", 60), ("unconfirmed", 300), ("state", 5), ("longest", 300)];
        let lines: String = times.iter().map(|(name, seconds)| format!("  {name}: {}\n", short(*seconds))).collect();
        fs::write(&policy, format!("recovery:\n{lines}"))?;
        let mut arguments = outlook.arguments(&short(5));
        arguments.extend(["--settle-time".to_owned(), short(5)]);
        arguments.extend(["--health-policy".to_owned(), policy.display().to_string()]);
        Ok(arguments)
    }

    /// One pod comes, and the oldest goes.
    async fn churn(&self, kubelet: &crate::kubelet::Kubelet, pods: &mut VecDeque<String>, doings: &mut Doings) {
        let name = format!("pod-{}", kubelet.seen());
        match kubelet.admit(&name).await {
            Admission::Admitted => doings.pods += 1,
            Admission::NoneLeft => doings.refused += 1,
            Admission::Failed => doings.failed += 1,
        }
        pods.push_back(name);
        if pods.len() > PODS
            && let Some(oldest) = pods.pop_front()
        {
            kubelet.delete(&oldest).await;
        }
    }
}

const GROUP: &str = "an hour's soak in minutes, 8 x 7 slices";

/// What happens besides, by turns.
async fn disturb(turn: usize, machine: &Machine, driver: &PretendedDriver, doings: &mut Doings) -> anyhow::Result<()> {
    let place = turn * 31 % machine.slices();
    match turn % 50 {
        10 | 30 => {
            let xid = XIDS.get(turn / 10 % XIDS.len()).copied().unwrap_or_default();
            driver.xid(place / SLICES, place % SLICES, xid)?;
            doings.xids += 1;
        }
        20 => {
            let slice = driver.take_slice(place / SLICES)?;
            sleep(Duration::from_millis(50)).await;
            driver.put_slice(place / SLICES, slice)?;
            doings.layouts += 2;
        }
        40 => {
            driver.break_function("nvmlDeviceGetMigMode", Some("UNKNOWN"), None)?;
            doings.errors += 1;
        }
        45 => driver.mend()?,
        _ => {}
    }
    Ok(())
}
