//! One GPU as a row of memory slices.

use maud::{Markup, html};
use mig_model::{Gpu, GpuInstance, MigMode, Placement, Use};

use crate::slices::{Slice, State};

/// Of most GPUs. The row is drawn this wide though only what is cut is known: nothing is claimed of what lies behind.
const USUAL: u32 = 8;
/// A driver that says more is not believed.
const MOST: u32 = 32;

/// A stretch of the row.
enum Cell<'a> {
    Instance(&'a GpuInstance),
    /// Nothing is cut here.
    Gap,
}

pub(super) fn section<'a>(gpu: &Gpu, slices: &[Slice], reasons: impl Iterator<Item = &'a str>) -> Markup {
    let whole: Vec<&Slice> = slices.iter().filter(|slice| slice.id == gpu.uuid.as_str()).collect();
    let row = row(&gpu.instances);
    let width = row.iter().map(|(at, _)| at.end()).max().unwrap_or_default().max(USUAL);
    html! {
        section {
            h3 { "GPU " (gpu.index) span.quiet { " " (gpu.name) ", " (mode(gpu.mig)) ", " code { (gpu.uuid) } } }
            @if let Some(fault) = &gpu.fault { p.bad { (fault.message) } }
            @if !gpu.instances.is_empty() || !whole.is_empty() {
                div.row style={ "grid-template-columns: repeat(" (width) ", minmax(0, 1fr))" } {
                    @for (at, cell) in &row {
                        div style={ "grid-column: " (at.start + 1) " / span " (at.size) } {
                            @match cell {
                                Cell::Instance(instance) => (parts(instance, slices)),
                                Cell::Gap => div.gap { "not cut" },
                            }
                        }
                    }
                    @for slice in &whole {
                        div style={ "grid-column: 1 / span " (width) } { (block("whole GPU", slice)) }
                    }
                }
                @if gpu.instances.iter().any(|instance| instance.placement.is_none()) {
                    p.quiet { "The driver does not tell where these lie." }
                }
            }
            @for reason in reasons { p.quiet { "Not offered: " (reason) } }
        }
    }
}

fn mode(mode: MigMode) -> &'static str {
    match mode {
        MigMode::Unsupported => "no MIG",
        MigMode::Known { enabled: true, pending: true } => "MIG is on",
        MigMode::Known { enabled: true, pending: false } => "MIG is on, and off after a reset",
        MigMode::Known { enabled: false, pending: true } => "MIG is off, and on after a reset",
        MigMode::Known { enabled: false, pending: false } => "MIG is off",
    }
}

/// The instances with what lies between them. Where the driver does not say where they lie, one after the other.
fn row(instances: &[GpuInstance]) -> Vec<(Placement, Cell<'_>)> {
    let believable = |at: &Placement| at.size > 0 && at.end() <= MOST;
    if !instances.iter().all(|instance| instance.placement.as_ref().is_some_and(believable)) {
        let places = (0..MOST).map(|start| Placement { start, size: 1 });
        return places.zip(instances.iter().map(Cell::Instance)).collect();
    }
    let mut cells = Vec::new();
    let mut end = 0;
    for instance in instances {
        let Some(at) = instance.placement else { continue };
        if at.start > end {
            cells.push((Placement { start: end, size: at.start - end }, Cell::Gap));
        }
        cells.push((at, Cell::Instance(instance)));
        end = end.max(at.end());
    }
    cells
}

/// The compute instances of a GPU instance.
fn parts(instance: &GpuInstance, slices: &[Slice]) -> Markup {
    html! {
        @for compute in &instance.compute_instances {
            @for slice in slices.iter().filter(|slice| slice.id == compute.uuid.as_str()) {
                (block(&slice.profile, slice))
            }
        }
    }
}

/// Who they are.
fn users(usage: &Use) -> Option<String> {
    let names: Vec<String> = match usage {
        Use::Allocated { containers } => {
            containers.iter().map(|c| format!("{}/{}/{}", c.namespace, c.pod, c.container)).collect()
        }
        Use::Outside { processes } => processes.iter().map(|process| format!("process {}", process.pid)).collect(),
        Use::Unknown { reason } => vec![(*reason).to_owned()],
        Use::Free => Vec::new(),
    };
    (!names.is_empty()).then(|| names.join(", "))
}

fn block(name: &str, slice: &Slice) -> Markup {
    let state = slice.state.word();
    let users = users(&slice.usage);
    // The end of a UUID is cut off where there is no room: pointing at it shows all.
    html! {
        div class={ "slice " (state) } title={ (slice.id) @if let Some(r) = &slice.resource { " as " (r) } } {
            b { (name) }
            span title=[users.as_deref()] {
                @match slice.state {
                    State::LeftOut => "not offered",
                    State::Outside => "used by no pod",
                    _ => (state),
                }
                @if let Some(users) = &users { ": " (users) }
            }
            code { (slice.id) }
        }
    }
}
