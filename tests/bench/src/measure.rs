//! What is measured, in which order. The sides take turns, so that a machine that gets busy is unfair to none.

mod change;
mod soak;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::{
    Arguments,
    client::{AT_ONCE, Call, Client},
    kubelet::Kubelet,
    machine::Machine,
    plugin::{Plugin, Side},
    table::{Figures, Quantity, quantile},
};

/// How often and how long.
struct Effort {
    starts: usize,
    idle_runs: usize,
    idle: Duration,
    /// From all listed until a plugin counts as idle.
    settling: Duration,
    call_runs: usize,
    in_turn: usize,
    at_once: usize,
    restarts: usize,
    change_runs: usize,
    /// Slices taken away and put back, in each run.
    layouts: usize,
    /// Looks at 64 GPUs.
    looks: u32,
    /// How long the driver hangs.
    hanging: Duration,
    /// How long an hour is.
    soak: Duration,
}

const FULL: Effort = Effort {
    starts: 20,
    idle_runs: 3,
    idle: Duration::from_secs(60),
    settling: Duration::from_secs(10),
    call_runs: 7,
    in_turn: 3000,
    at_once: 32_000,
    restarts: 3,
    change_runs: 3,
    layouts: 20,
    looks: 60,
    hanging: Duration::from_secs(30),
    soak: Duration::from_secs(180),
};

const QUICK: Effort = Effort {
    starts: 5,
    idle_runs: 1,
    idle: Duration::from_secs(10),
    settling: Duration::from_secs(3),
    call_runs: 2,
    in_turn: 1000,
    at_once: 8000,
    restarts: 2,
    change_runs: 1,
    layouts: 5,
    looks: 10,
    hanging: Duration::from_secs(5),
    soak: Duration::from_secs(10),
};

/// Eight GPUs are the usual server; the others show how things grow.
const USUAL: usize = 8;
/// Where only ours is measured: no other follows a change of the layout, or says what it reads.
const OURS: usize = 0;

pub(crate) struct Measurement {
    sides: Vec<Side>,
    /// Why a side is measured no further.
    failures: Vec<Option<String>>,
    figures: Figures,
    effort: Effort,
    fake_nvml: PathBuf,
    driver_files: Option<PathBuf>,
    kubelet_root: PathBuf,
    scratch: PathBuf,
}

/// A plugin, and a kubelet that has its list.
struct Running {
    // Dropped first: a plugin that outlives its kubelet would look for the next.
    plugin: Plugin,
    kubelet: Kubelet,
    start: Duration,
    cpu: Duration,
}

impl Measurement {
    pub(crate) fn new(arguments: &Arguments, sides: Vec<Side>) -> Self {
        let effort = if arguments.quick { QUICK } else { FULL };
        Self {
            figures: Figures::new(sides.iter().map(|side| side.label).collect()),
            failures: sides.iter().map(|_| None).collect(),
            sides,
            effort: Effort { soak: arguments.soak.map_or(effort.soak, Duration::from_secs), ..effort },
            fake_nvml: arguments.fake_nvml.clone(),
            driver_files: arguments.driver_files.clone(),
            kubelet_root: arguments.kubelet_root.clone(),
            scratch: arguments.scratch.clone(),
        }
    }

    /// The figures, and what could not be measured.
    pub(crate) async fn run(mut self) -> anyhow::Result<(Figures, Vec<String>)> {
        for gpus in [1, USUAL, 64] {
            let machine = self.machine(gpus)?;
            // The first start of each finds nothing in the page cache and does not count.
            for run in 0..=self.effort.starts {
                for side in 0..self.sides.len() {
                    let outcome = self.start(side, &machine, false, run > 0).await;
                    self.note(side, outcome);
                }
            }
        }
        let machine = self.machine(USUAL)?;
        for _ in 0..self.effort.idle_runs {
            for side in 0..self.sides.len() {
                let outcome = self.idle(side, &machine).await;
                self.note(side, outcome);
            }
        }
        for _ in 0..self.effort.call_runs {
            for side in 0..self.sides.len() {
                let outcome = self.calls(side, &machine).await;
                self.note(side, outcome);
            }
        }
        for _ in 0..self.effort.change_runs {
            let outcome = self.layouts(&machine).await;
            self.note(OURS, outcome);
            for side in 0..self.sides.len() {
                let outcome = self.xids(side, &machine).await;
                self.note(side, outcome);
            }
        }
        let outcome = self.hanging(&machine).await;
        self.note(OURS, outcome);
        for run in 0..=self.effort.starts {
            let outcome = self.start(OURS, &machine, true, run > 0).await;
            self.note(OURS, outcome);
        }
        let outcome = self.soak(&machine).await;
        self.note(OURS, outcome);
        let many = self.machine(64)?;
        let outcome = self.looks(&many).await;
        self.note(OURS, outcome);
        for (number, side) in self.sides.iter().enumerate() {
            let size = std::fs::metadata(&side.program)?.len();
            self.figures.add(number, Quantity::new("binary", "size, MB", "8"), float(size) / 1e6);
        }
        Ok((self.figures, self.failures.into_iter().flatten().collect()))
    }

    fn machine(&self, gpus: usize) -> anyhow::Result<Machine> {
        let machine = Machine::lay_out(&self.fake_nvml, &self.scratch, gpus)?;
        if let Some(driver_files) = &self.driver_files {
            machine.show_at(driver_files).context("unable to lay out /proc/driver")?;
        }
        Ok(machine)
    }

    /// A side that fails is left alone from then on, and the other goes on.
    fn note(&mut self, side: usize, outcome: anyhow::Result<()>) {
        if let (Err(error), Some(failure), Some(side)) = (outcome, self.failures.get_mut(side), self.sides.get(side)) {
            *failure = Some(format!("{}: {error:#}", side.label));
        }
    }

    /// Starts one that has not failed yet, and waits until all its devices are listed.
    async fn up(&self, side: usize, machine: &Machine) -> anyhow::Result<Option<Running>> {
        self.up_with(side, machine, &[]).await
    }

    /// The same, with more arguments.
    async fn up_with(&self, side: usize, machine: &Machine, more: &[String]) -> anyhow::Result<Option<Running>> {
        let (Some(side), Some(None)) = (self.sides.get(side), self.failures.get(side)) else { return Ok(None) };
        let kubelet = Kubelet::start(&self.kubelet_root).await?;
        let mut plugin = side.start(machine, &self.scratch, more)?;
        let listed = plugin.meanwhile(kubelet.all_listed(0, machine.slices())).await?;
        let cpu = plugin.cpu()?;
        let start = listed.duration_since(plugin.started);
        Ok(Some(Running { plugin, kubelet, start, cpu }))
    }

    async fn start(&mut self, side: usize, machine: &Machine, cdi: bool, counts: bool) -> anyhow::Result<()> {
        machine.forget_calls()?;
        let more = if cdi { self.with_cdi(machine)? } else { Vec::new() };
        let Some(Running { plugin, start, cpu, .. }) = self.up_with(side, machine, &more).await? else {
            return Ok(());
        };
        let calls = machine.calls()?;
        plugin.stop().await?;
        if counts {
            let gpus = machine.gpus;
            let (time_aim, calls_aim) = match gpus {
                USUAL if cdi => ("12", "400"),
                USUAL => ("6", "400"),
                64 => ("12", ""),
                _ => ("", ""),
            };
            let how = if cdi { ", with CDI" } else { "" };
            let group = format!("process start to all listed, {gpus} x 7 slices{how}");
            let mut add = |name, aim, value| self.figures.add(side, Quantity::new(&group, name, aim), value);
            add("time, ms", time_aim, millis(start));
            add("time for each slice, us", "", micros(start) / float(machine.slices()));
            add("CPU until then, ms", "", millis(cpu));
            add("NVML calls until then", calls_aim, calls);
        }
        Ok(())
    }

    async fn idle(&mut self, side: usize, machine: &Machine) -> anyhow::Result<()> {
        let Some(mut running) = self.up(side, machine).await? else { return Ok(()) };
        let Effort { idle, settling, .. } = self.effort;
        let plugin = &mut running.plugin;
        plugin.meanwhile(pause(settling)).await?;
        let (before, began) = (plugin.cpu()?, Instant::now());
        plugin.meanwhile(pause(idle)).await?;
        let used = plugin.cpu()?.saturating_sub(before);
        let minute = millis(used) * 60.0 / began.elapsed().as_secs_f64();
        let (memory, threads) = (plugin.memory()?, plugin.threads()?);
        running.plugin.stop().await?;
        let mut add = |name, aim, value| self.figures.add(side, Quantity::new("idle, 8 GPUs", name, aim), value);
        add("resident memory, MiB", "5", memory.resident);
        add("proportional memory, MiB", "", memory.proportional);
        add("threads", "", threads);
        add("CPU in a minute, ms", "3", minute);
        Ok(())
    }

    async fn calls(&mut self, side: usize, machine: &Machine) -> anyhow::Result<()> {
        let Some(mut running) = self.up(side, machine).await? else { return Ok(()) };
        let (socket, ids) = running.kubelet.offered()?;
        let mut client = Client::connect(&socket, ids).await?;
        for call in Call::ALL {
            client.in_turn(call, self.effort.in_turn / 5).await?;
        }
        for call in Call::ALL {
            let (before, began) = (running.plugin.cpu()?, Instant::now());
            let times = client.in_turn(call, self.effort.in_turn).await?;
            let figures =
                Calls { call, times, took: began.elapsed(), cpu: running.plugin.cpu()?.saturating_sub(before) };
            self.add_calls(side, false, &figures);
        }
        for call in Call::ALL {
            client.at_once(call, self.effort.at_once / 5).await?;
            let (before, began) = (running.plugin.cpu()?, Instant::now());
            let times = client.at_once(call, self.effort.at_once).await?;
            let figures =
                Calls { call, times, took: began.elapsed(), cpu: running.plugin.cpu()?.saturating_sub(before) };
            self.add_calls(side, true, &figures);
        }
        let gpus = machine.gpus_by_device()?;
        for _ in 0..20 {
            let (_, chosen) = client.prefer().await?;
            let spanned: BTreeSet<u64> = chosen.iter().filter_map(|id| gpus.get(id).copied()).collect();
            let what = Quantity::new("GetPreferredAllocation 7 of 56: the choice", "GPUs that it spans", "1");
            self.figures.add(side, what, float(spanned.len()));
        }
        drop(client);
        for _ in 0..self.effort.restarts {
            let took = running.plugin.meanwhile(running.kubelet.restart(machine.slices())).await?;
            let what = Quantity::new("new kubelet socket to all 56 listed again", "time, ms", "5");
            self.figures.add(side, what, millis(took));
        }
        for (kind, count) in running.kubelet.violations() {
            let what = Quantity::new("done to the kubelet that it does not bear", kind, "0");
            self.figures.add(side, what, float(count));
        }
        running.plugin.stop().await
    }

    fn add_calls(&mut self, side: usize, at_once: bool, calls: &Calls) {
        let Calls { call, times, took, cpu } = calls;
        let how = if at_once { format!("{AT_ONCE} at once") } else { "one after the other".to_owned() };
        let of = if *call == Call::Preferred { " 7 of 56" } else { "" };
        let group = format!("{}{of}, {how}", call.name());
        let [p50, p99, own, rate] = match (call, at_once) {
            (Call::Allocate, false) => ["110", "260", "45", ""],
            (Call::Allocate, true) => ["", "", "10", "50000"],
            (Call::Preferred, false) => ["120", "250", "", ""],
            _ => [""; 4],
        };
        let micros: Vec<f64> = times.iter().copied().map(micros).collect();
        let count = float(times.len());
        let mut add = |name, aim, value| self.figures.add(side, Quantity::new(&group, name, aim), value);
        add("p50, us", p50, quantile(&micros, 50, 100).unwrap_or_default());
        add("p99, us", p99, quantile(&micros, 99, 100).unwrap_or_default());
        add("plugin's CPU for one, us", own, cpu.as_secs_f64() * 1e6 / count);
        if at_once {
            add("calls per second", rate, count / took.as_secs_f64());
        }
    }
}

/// Many calls of one kind.
struct Calls {
    call: Call,
    times: Vec<Duration>,
    took: Duration,
    /// The plugin's.
    cpu: Duration,
}

async fn pause(time: Duration) -> anyhow::Result<()> {
    sleep(time).await;
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// For counts, which are small.
fn float(count: impl TryInto<u32>) -> f64 {
    count.try_into().map_or(f64::NAN, f64::from)
}
