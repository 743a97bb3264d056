//! From what the driver shows to what is offered, with a line in the log for each change that a person would ask about.

use std::collections::BTreeSet;
use std::sync::Arc;

use mig_device_plugin::Wanted;
use mig_model::{Device, Gpu, MigMode, NodeInventory, Offers, Profile, assign};
use mig_nvml::{DriverState, View};
use tokio::sync::watch;

use crate::config::Chosen;

/// Translates each new view of the GPUs for as long as there are any.
pub(crate) async fn follow(
    mut views: watch::Receiver<View>,
    mut chosen: watch::Receiver<Option<Arc<Chosen>>>,
    offers: watch::Sender<Option<Arc<Wanted>>>,
    read: watch::Sender<Option<Arc<NodeInventory>>>,
) {
    let mut told = Vec::new();
    let mut missed = Vec::new();
    let mut mixed = Vec::new();
    loop {
        let view = views.borrow_and_update().clone();
        let terms = chosen.borrow_and_update().clone();
        // First: what is dropped from an offer is looked for in the reading that lacks it.
        read.send_replace(view.inventory.clone());
        // Without a reading nothing is known, which is not the same as that there is nothing.
        if let (Some(inventory), Some(chosen)) = (view.inventory, terms) {
            let now = assign(&inventory, &chosen.terms);
            tell(&mut told, &view.driver, &inventory, &now);
            tell_of_names(&mut mixed, misleading(&now));
            tell_of_unmatched(&mut missed, chosen.terms.unmatched(&now.resources));
            let now = Wanted { offers: now, container: Arc::clone(&chosen.container) };
            offers.send_if_modified(|offers| {
                let changed = offers.as_deref() != Some(&now);
                if changed {
                    *offers = Some(Arc::new(now));
                }
                changed
            });
        }
        let goes_on = tokio::select! {
            changed = views.changed() => changed.is_ok(),
            changed = chosen.changed() => changed.is_ok(),
        };
        if !goes_on {
            return;
        }
    }
}

/// Names by which a pod may get something else than it thinks.
fn misleading(offers: &Offers) -> Vec<String> {
    let mut lines = Vec::new();
    for (resource, devices) in &offers.resources {
        let kind =
            |device: &Device| device.profile.as_ref().map_or_else(|| "whole GPUs".to_owned(), Profile::to_string);
        let kinds: BTreeSet<String> = devices.iter().map(kind).collect();
        let usual = resource.name().strip_prefix("mig-").map(|name| name.trim_end_matches(".shared"));
        let usual = usual.filter(|name| name.starts_with(|first: char| first.is_ascii_digit()) && name.contains("gb"));
        let is_another = |kind: &String| usual.is_some_and(|usual| kind.replace('+', ".") != usual);
        if kinds.len() > 1 {
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
            lines.push(format!(
                "{resource} has devices of several kinds ({kinds}): a pod that asks for it gets any of them"
            ));
        } else if let Some(kind) = kinds.iter().find(|kind| is_another(kind)) {
            lines.push(format!("{resource} has a name by which pods expect another profile: its devices are {kind}"));
        }
    }
    lines
}

fn tell_of_names(told: &mut Vec<String>, now: Vec<String>) {
    now.iter().filter(|line| !told.contains(line)).for_each(|line| tracing::warn!("{line}"));
    *told = now;
}

/// A name that is mistyped would share nothing, and say nothing.
fn tell_of_unmatched(told: &mut Vec<String>, now: Vec<String>) {
    if *told != now && !now.is_empty() {
        tracing::warn!("sharing.timeSlicing names what this node does not have at present: {}", now.join(", "));
    }
    *told = now;
}

/// Logs what is new since the last time. Faults have their own lines already.
fn tell(told: &mut Vec<(u32, bool, String)>, driver: &DriverState, inventory: &NodeInventory, offers: &Offers) {
    if matches!(driver, DriverState::Failed(_)) {
        return;
    }
    let gpus = &inventory.gpus;
    let gone = inventory.unreadable.iter().filter(|gpu| gpu.uuid.is_some());
    let mut lines: Vec<(u32, bool, String)> = gpus.iter().map(|gpu| (gpu.index, false, describe(gpu))).collect();
    lines.extend(offers.left_out.iter().map(|out| (out.gpu, true, format!("not offered: {}", out.reason))));
    lines.extend(gone.map(|gpu| (gpu.index, true, gpu.fault.message.clone())));
    for line in lines.iter().filter(|line| !told.contains(line)) {
        match line {
            (gpu, true, text) => tracing::warn!(gpu, "{text}"),
            (gpu, false, text) => tracing::info!(gpu, "{text}"),
        }
    }
    if gpus.is_empty() && offers.left_out.is_empty() {
        let none = (u32::MAX, true, String::new());
        if !told.contains(&none) {
            tracing::warn!("the driver shows no GPU: this node offers nothing");
        }
        lines.push(none);
    }
    *told = lines;
}

fn describe(gpu: &Gpu) -> String {
    let name = &gpu.name;
    match gpu.mig {
        MigMode::Unsupported => format!("{name} cannot be cut (no MIG): offered whole"),
        MigMode::Known { enabled: false, pending: true } => format!("{name}: MIG will be on after a reset of the GPU"),
        MigMode::Known { enabled: false, .. } => format!("{name}: MIG is off"),
        MigMode::Known { enabled: true, pending } => {
            let parts = gpu.instances.iter().flat_map(|instance| {
                let at = instance.placement.map(|placement| format!("@{}", placement.start)).unwrap_or_default();
                instance.compute_instances.iter().map(move |compute| format!(" {}{at}", compute.profile))
            });
            let leaving = if pending { "" } else { " (it will be off after a reset of the GPU)" };
            format!("{name}: MIG is on{leaving}:{}", parts.collect::<String>())
        }
    }
}
