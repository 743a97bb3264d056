//! What is printed: lines for people, or JSON.

use std::{
    io::{self, Write},
    time::Instant,
};

use kubelet_sim::{ContainerAllocation, Event};
use serde_json::{Value, json};

use crate::command::Outcome;

pub(crate) struct Report {
    json: bool,
    seen: usize,
    started: Instant,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, seen: 0, started: Instant::now() }
    }

    /// How many events have been printed.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    pub(crate) fn events(&mut self, events: &[Event]) {
        self.seen += events.len();
        for event in events {
            if self.json {
                print(&json!(event).to_string());
            } else {
                let since = event.at.saturating_duration_since(self.started).as_secs_f64();
                print(&format!("{since:>9.4}  {}", event.what));
            }
        }
    }

    pub(crate) fn outcome(&self, outcome: Result<Outcome, String>) {
        match (outcome, self.json) {
            (Ok(Outcome::Nothing), _) => {}
            (Err(error), true) => print(&json!({ "reply": "error", "error": error }).to_string()),
            (Err(error), false) => eprintln!("kubelet-sim: {error}"),
            (Ok(outcome), true) => print(&to_json(&outcome).to_string()),
            (Ok(outcome), false) => to_text(&outcome).iter().for_each(|line| print(&format!("           {line}"))),
        }
    }
}

fn to_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Nothing => Value::Null,
        Outcome::Admitted { pod, allocation } => {
            let containers = allocation.containers.iter().map(|(name, of)| (name.clone(), container(of)));
            json!({ "reply": "admit", "pod": pod, "containers": containers.collect::<serde_json::Map<_, _>>() })
        }
        Outcome::Started { container: name, allocation } => {
            json!({ "reply": "start", "container": name, "allocation": container(allocation) })
        }
        Outcome::Shown { resources, pods } => {
            let resources = resources.iter().map(|(name, of)| {
                let devices = of.devices.iter().map(|of| json!({ "id": of.id, "health": of.health, "numa": of.numa }));
                let of = json!({
                    "capacity": of.capacity,
                    "allocatable": of.allocatable,
                    "registered": of.registered,
                    "allocated": of.allocated,
                    "devices": devices.collect::<Vec<_>>(),
                });
                (name.clone(), of)
            });
            json!({ "reply": "show", "resources": resources.collect::<serde_json::Map<_, _>>(), "pods": pods })
        }
    }
}

fn container(of: &ContainerAllocation) -> Value {
    let mounts = of.mounts.iter().map(|mount| {
        json!({ "container_path": mount.container_path, "host_path": mount.host_path, "read_only": mount.read_only })
    });
    let devices = of.devices.iter().map(|device| {
        let (inside, outside) = (&device.container_path, &device.host_path);
        json!({ "container_path": inside, "host_path": outside, "permissions": device.permissions })
    });
    json!({
        "envs": of.envs,
        "mounts": mounts.collect::<Vec<_>>(),
        "devices": devices.collect::<Vec<_>>(),
        "annotations": of.annotations,
        "cdi_devices": of.cdi_devices,
        "device_ids": of.device_ids,
    })
}

fn to_text(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Nothing => Vec::new(),
        Outcome::Admitted { allocation, .. } => {
            allocation.containers.iter().flat_map(|(name, of)| container_text(name, of)).collect()
        }
        Outcome::Started { container, allocation } => container_text(container, allocation),
        Outcome::Shown { resources, pods } => {
            let resources = resources.iter().map(|(name, of)| {
                let away = if of.registered { "" } else { ", its plugin is away" };
                format!(
                    "{name}  {} allocatable of {}, {} in use{away}",
                    of.allocatable,
                    of.capacity,
                    of.allocated.len()
                )
            });
            let pods = pods.iter().map(|pod| format!("pod {pod}"));
            let lines = resources.chain(pods).collect::<Vec<_>>();
            if lines.is_empty() { vec!["no resources, no pods".to_owned()] } else { lines }
        }
    }
}

fn container_text(name: &str, of: &ContainerAllocation) -> Vec<String> {
    let mut lines = vec![format!("container {name}")];
    lines.extend(of.envs.iter().map(|(name, value)| format!("  env         {name}={value}")));
    lines
        .extend(of.mounts.iter().map(|mount| format!("  mount       {} -> {}", mount.container_path, mount.host_path)));
    let devices = of.devices.iter();
    lines.extend(devices.map(|device| format!("  device      {} ({})", device.container_path, device.permissions)));
    lines.extend(of.annotations.iter().map(|(name, value)| format!("  annotation  {name}={value}")));
    lines.extend(of.cdi_devices.iter().map(|name| format!("  cdi         {name}")));
    lines
}

/// An error and what it came from.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A reader that has gone is no reason to stop being a kubelet.
fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _gone = writeln!(out, "{line}");
}
