//! What an agent takes of the machine: descriptors, sockets, memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::node::{Agent, DEADLINE};

/// An agent that has done its work once keeps some memory that it need not have asked for again: of an allocator with a heap for each
/// thread, so much may come and go. What leaks a little with each restart or pod is more after hundreds.
const MEMORY: usize = 6 << 10;
/// A connection or two may be under way when it is looked at.
const DESCRIPTORS: usize = 2;

#[derive(Debug)]
pub(crate) struct Footprint {
    /// By kind: `socket`, `anon_inode`, `pipe`, or a file's path.
    descriptors: BTreeMap<String, usize>,
    /// KiB.
    resident: usize,
    tasks: usize,
}

impl Footprint {
    pub(crate) fn of(agent: &Agent) -> Self {
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(agent.in_proc("fd")).unwrap().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy();
            let kind = target.split(":[").next().unwrap_or_default().to_owned();
            *descriptors.entry(kind).or_default() += 1;
        }
        let status = fs::read_to_string(agent.in_proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = line.trim().trim_end_matches(" kB").parse().unwrap();
        let tasks = fs::read_dir(agent.in_proc("task")).unwrap().count();
        Self { descriptors, resident, tasks }
    }

    fn count(&self) -> usize {
        self.descriptors.values().sum()
    }

    /// Whether this is no more than it was.
    fn is_within(&self, before: &Self) -> bool {
        self.count() <= before.count() + DESCRIPTORS
            && self.resident <= before.resident + MEMORY
            && self.tasks <= before.tasks + DESCRIPTORS
    }

    /// Waits until the agent takes no more than before: what has ended may take a moment to be gone.
    pub(crate) async fn is_kept_by(&self, agent: &Agent) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = Self::of(agent);
            if now.is_within(self) {
                println!("before {self:?}\nafter  {now:?}");
                return;
            }
            assert!(Instant::now() < deadline, "it took {self:?}, and takes {now:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The sockets in the kubelet's directory, but for its own.
pub(crate) fn sockets(kubelet_root: &Path) -> Vec<String> {
    let entries = fs::read_dir(kubelet_root.join("device-plugins")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".sock") && name != "kubelet.sock").collect();
    names.sort();
    names
}
