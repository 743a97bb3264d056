//! What happens to the driver while the agent runs, until the kubelet knows.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::{Measurement, OURS, float, micros, millis, pause};
use crate::{
    client::{Call, Client},
    machine::{Machine, SLICES},
    plugin::Plugin,
    table::{Quantity, quantile},
};

/// Longer than the agent rests between two events, so that no change has to wait for the one before.
const BETWEEN: Duration = Duration::from_millis(250);
/// NVIDIA's plugin says nothing at all of the XIDs of most slices.
const PATIENCE: Duration = Duration::from_secs(1);
/// An error of memory that could not be corrected.
const XID: u64 = 48;
/// So many calls at a time, as pods come.
const BATCH: usize = 20;

/// Where the agent tells its metrics.
pub(super) struct Outlook {
    address: SocketAddr,
}

impl Outlook {
    /// A port that is free. Somebody else might take it before the agent does, which then ends and says so.
    pub(super) fn new() -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self { address })
    }

    /// Arguments for this and for how often the driver is looked at.
    pub(super) fn arguments(&self, poll: &str) -> Vec<String> {
        vec!["--listen".to_owned(), self.address.to_string(), "--poll-interval".to_owned(), poll.to_owned()]
    }

    pub(super) fn value(&self, name: &str) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("the agent's metrics have no {name}"))
    }
}

/// Looks at the driver so far: how many, how long, and what they and all else have cost.
struct Looks {
    count: f64,
    seconds: f64,
    cpu: Duration,
    calls: f64,
}

impl Looks {
    fn now(outlook: &Outlook, plugin: &Plugin, machine: &Machine) -> anyhow::Result<Self> {
        Ok(Self {
            count: outlook.value("mig_agent_driver_reading_duration_seconds_count")?,
            seconds: outlook.value("mig_agent_driver_reading_duration_seconds_sum")?,
            cpu: plugin.cpu()?,
            calls: machine.calls()?,
        })
    }
}

impl Measurement {
    /// Arguments that give containers their slices by CDI, below a driver root of the machine.
    pub(super) fn with_cdi(&self, machine: &Machine) -> anyhow::Result<Vec<String>> {
        let folder = self.scratch.join("cdi");
        fs::create_dir_all(&folder)?;
        fake_nvml::copy_library(&machine.root(), &self.fake_nvml.join("libnvidia-ml.so.1"))?;
        let root = machine.root().display().to_string();
        let proc_root = machine.root().join("proc").display().to_string();
        let folder = folder.display().to_string();
        let pairs = [
            ("--device-list-strategy", "cdi-cri"),
            ("--cdi-dir", &folder),
            ("--nvidia-driver-root", &root),
            ("--nvidia-dev-root", &root),
            ("--proc-root", &proc_root),
        ];
        Ok(pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect())
    }

    /// From a slice taken away, or put back, until the kubelet has a list that says so.
    pub(super) async fn layouts(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let Some(mut running) = self.up(OURS, machine).await? else { return Ok(()) };
        let driver = machine.driver()?;
        let all = machine.slices();
        for round in 0..self.effort.layouts {
            let gpu = round % machine.gpus;
            sleep(BETWEEN).await;
            let (since, began) = (running.kubelet.seen(), Instant::now());
            let slice = driver.take_slice(gpu)?;
            let at = running.plugin.meanwhile(running.kubelet.all_listed(since, all - 1)).await;
            let gone = at?.duration_since(began);
            sleep(BETWEEN).await;
            let (since, began) = (running.kubelet.seen(), Instant::now());
            driver.put_slice(gpu, slice)?;
            let at = running.plugin.meanwhile(running.kubelet.all_listed(since, all)).await;
            let back = at?.duration_since(began);
            let group = "layout changed to the kubelet's list, 8 x 7 slices";
            let mut add = |name, value| self.figures.add(OURS, Quantity::new(group, name, "1000"), millis(value));
            add("a slice is gone, ms", gone);
            add("a slice is new, ms", back);
        }
        running.plugin.stop().await
    }

    /// From an XID until the kubelet has a list in which the slice is Unhealthy, for each slice of the machine.
    pub(super) async fn xids(&mut self, side: usize, machine: &Machine) -> anyhow::Result<()> {
        let Some(running) = self.up(side, machine).await? else { return Ok(()) };
        let driver = machine.driver()?;
        sleep(BETWEEN).await;
        let group = "XID of one slice to Unhealthy in the kubelet's list, 8 x 7 slices";
        let mut reached = 0;
        for place in 0..machine.slices() {
            let (since, began) = (running.kubelet.seen(), Instant::now());
            driver.xid(place / SLICES, place % SLICES, XID)?;
            let left = machine.slices() - reached - 1;
            if let Some(at) = running.kubelet.listed_within(since, left, PATIENCE).await {
                reached += 1;
                let what = Quantity::new(group, "time, ms", "1");
                self.figures.add(side, what, millis(at.duration_since(began)));
                sleep(BETWEEN).await;
            }
        }
        self.figures.add(side, Quantity::new(group, "slices of which it was seen", "56"), float(reached));
        running.plugin.stop().await
    }

    /// Allocate while the driver answers, and while it does not.
    pub(super) async fn hanging(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let outlook = Outlook::new()?;
        let more = outlook.arguments("1s");
        let Some(running) = self.up_with(OURS, machine, &more).await? else { return Ok(()) };
        let driver = machine.driver()?;
        let (socket, ids) = running.kubelet.offered()?;
        let mut client = Client::connect(&socket, ids).await?;
        client.in_turn(Call::Allocate, 10 * BATCH).await?;
        for hangs in [false, true] {
            if hangs {
                driver.break_function("nvmlDeviceGetCount_v2", None, Some("never"))?;
                // By now it hangs in the look that has begun meanwhile.
                pause(Duration::from_secs(2)).await?;
            }
            let before = outlook.value("mig_agent_driver_reading_duration_seconds_count")?;
            let began = Instant::now();
            let mut times = Vec::new();
            while began.elapsed() < self.effort.hanging {
                times.extend(client.in_turn(Call::Allocate, BATCH).await?.into_iter().map(micros));
                sleep(Duration::from_millis(100)).await;
            }
            let looks = outlook.value("mig_agent_driver_reading_duration_seconds_count")? - before;
            ensure!((looks == 0.0) == hangs, "the driver was looked at {looks} times while it hangs: {hangs}");
            let seconds = self.effort.hanging.as_secs();
            let group = format!("Allocate, {BATCH} each 100 ms for {seconds} s");
            let how = if hangs { "the driver hangs" } else { "the driver answers" };
            for (part, name) in [(50, "p50"), (99, "p99")] {
                let what = Quantity::new(&group, format!("{how}: {name}, us"), "");
                self.figures.add(OURS, what, quantile(&times, part, 100).unwrap_or_default());
            }
        }
        driver.mend()?;
        running.plugin.stop().await
    }

    /// What a look at very many GPUs costs, when nothing has changed.
    pub(super) async fn looks(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let outlook = Outlook::new()?;
        let more = outlook.arguments("250ms");
        let Some(mut running) = self.up_with(OURS, machine, &more).await? else { return Ok(()) };
        running.plugin.meanwhile(pause(self.effort.settling)).await?;
        machine.forget_calls()?;
        for _ in 0..5 {
            let before = Looks::now(&outlook, &running.plugin, machine)?;
            let enough = Duration::from_millis(280) * self.effort.looks / 5;
            running.plugin.meanwhile(pause(enough)).await?;
            let after = Looks::now(&outlook, &running.plugin, machine)?;
            let count = after.count - before.count;
            ensure!(count >= 1.0, "the driver was not looked at");
            let group = "one look at 64 x 7 slices, nothing has changed";
            let mut add = |name, value| self.figures.add(OURS, Quantity::new(group, name, ""), value);
            add("time, ms", (after.seconds - before.seconds) * 1e3 / count);
            add("the agent's CPU, ms", millis(after.cpu.saturating_sub(before.cpu)) / count);
            add("NVML calls, waits included", (after.calls - before.calls) / count);
        }
        running.plugin.stop().await
    }
}
