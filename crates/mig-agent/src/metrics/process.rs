//! The agent as a process, under the names that every Prometheus client uses.

use std::fmt;

use procfs::process::{LimitValue, Process as Files};
use procfs::{boot_time_secs, page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    /// Leaves out what the kernel does not tell.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(files) = Files::myself() else { return Ok(()) };
        if let Ok(stat) = files.stat() {
            let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
            let cpu = ConstCounter::new(seconds(stat.utime + stat.stime));
            let help = "User and system CPU time of the agent in seconds.";
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?)?;
            let resident = stat.rss.saturating_mul(page_size());
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory of the agent in bytes.", resident)?;
            gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory of the agent in bytes.", stat.vsize)?;
            let threads = u64::try_from(stat.num_threads).unwrap_or_default();
            gauge(&mut encoder, "process_threads", "Threads of the agent.", threads)?;
            if let Ok(boot) = boot_time_secs() {
                let start = boot as f64 + seconds(stat.starttime);
                let help = "When the agent was started, in Unix time in seconds.";
                encoder
                    .encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?
                    .encode_gauge(&start)?;
            }
        }
        if let Ok(open) = files.fd_count() {
            gauge(&mut encoder, "process_open_fds", "Open file descriptors of the agent.", open as u64)?;
        }
        if let Ok(limits) = files.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            gauge(&mut encoder, "process_max_fds", "How many file descriptors the agent may open.", most)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}
