//! The status page: what the agent knows, for people. One answer without scripts and without anything from elsewhere;
//! maud escapes every text, since names come from drivers.

mod gpu;

use std::time::SystemTime;

use humantime::format_duration;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use mig_device_plugin::ResourceStatus;
use mig_model::{NodeInventory, Offers};
use mig_nvml::DriverState;

use crate::known::Known;
use crate::labels::Standing;
use crate::slices::{self, Slice, State};

/// Nothing may be loaded, and nothing may run, whatever gets into the page.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page/style.css");

const STATES: [State; 6] =
    [State::Free, State::Allocated, State::Outside, State::Unhealthy, State::Vanished, State::Unknown];

pub(crate) fn render(known: &Known, host: &str) -> String {
    let view = known.view();
    let inventory = view.inventory.as_deref();
    let slices = known.slices();
    let obstacles = known.obstacles();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content="10";
                title { "mig-agent on " (host) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "mig-agent" span.quiet { " " (env!("CARGO_PKG_VERSION")) " on " (host) } }
                    (driver(&view.driver, inventory))
                }
                main {
                    (readiness(&obstacles, known.status.served()))
                    @for remark in known.remarks() { p.banner.bad { (remark) } }
                    (gpus(inventory, &slices, &known.offers()))
                    (vanished(&slices))
                    (resources(&known.status.resources(), &slices))
                    @if let Some(standing) = known.labels() { p.quiet { "Labels of the node: " (labels(standing)) } }
                }
                // Relative, so that they lead on through a proxy's path too.
                footer {
                    a href="metrics" { "metrics" } a href="readyz" { "readyz" } a href="healthz" { "healthz" }
                    a href="api/v1/inventory" { "inventory (JSON)" }
                }
            }
        }
    };
    page.into_string()
}

fn driver(state: &DriverState, inventory: Option<&NodeInventory>) -> Markup {
    let word = match state {
        DriverState::Starting => "is being read",
        DriverState::Ready => "answers",
        DriverState::Failed(_) => "has failed",
        DriverState::Stalled => "does not answer",
    };
    html! {
        p.quiet {
            "driver "
            @if let Some(inventory) = inventory { b { (inventory.driver.version) } " (NVML " (inventory.driver.nvml) ") " }
            (word)
            @if *state != DriverState::Ready && inventory.is_some() { "; what follows is what was last known" }
        }
    }
}

fn readiness(obstacles: &[String], served: usize) -> Markup {
    html! {
        @if obstacles.is_empty() {
            p.banner.good { b { "Ready: " } (served) @if served == 1 { " resource" } @else { " resources" } " registered" }
        } @else {
            div.banner.bad {
                b { "Not ready" }
                ul { @for reason in obstacles { li { (reason) } } }
            }
        }
    }
}

fn gpus(inventory: Option<&NodeInventory>, slices: &[Slice], offers: &Offers) -> Markup {
    let Some(inventory) = inventory else { return html! {} };
    let reasons =
        |index: u32| offers.left_out.iter().filter(move |out| out.gpu == index).map(|out| out.reason.as_str());
    html! {
        h2 { "GPUs" }
        @if inventory.gpus.is_empty() && inventory.unreadable.is_empty() { p.quiet { "The driver shows none." } }
        @for gpu in &inventory.gpus { (gpu::section(gpu, slices, reasons(gpu.index))) }
        @for gpu in &inventory.unreadable {
            section {
                h3 { @if let Some(uuid) = &gpu.uuid { (uuid.as_str()) } @else { "GPU " (gpu.index) } }
                p.bad { (gpu.fault.message) }
            }
        }
    }
}

/// What pods still hold of GPUs that have it no more.
fn vanished(slices: &[Slice]) -> Markup {
    let gone: Vec<&Slice> =
        slices.iter().filter(|slice| slice.instance.is_none() && slice.id != slice.gpu_uuid).collect();
    html! {
        @if !gone.is_empty() {
            h2 { "No longer on a GPU" }
            p.quiet { "Listed as Unhealthy for as long as a pod may hold them." }
            ul { @for slice in gone { li {
                code { (slice.id) }
                @if let Some(resource) = &slice.resource { " of " (resource) }
                @if let Some(gpu) = slice.gpu { ", from GPU " (gpu) }
            } } }
        }
    }
}

fn resources(resources: &[ResourceStatus], slices: &[Slice]) -> Markup {
    let rows = resources.iter().map(|resource| (resource, slices::states(resource, slices)));
    let count = |states: &[State], state: State| states.iter().filter(|own| **own == state).count();
    html! {
        h2 { "Resources" }
        @if resources.is_empty() {
            p.quiet { "None is offered." }
        } @else {
            div.wide { table {
                thead { tr {
                    th { "resource" } th { "registration" } th.number { "devices" }
                    @for state in STATES { th.number { (state.word()) } }
                } }
                tbody { @for (resource, states) in rows { tr {
                    th scope="row" { (resource.resource) }
                    td { (registration(resource)) }
                    td.number { (resource.devices.len()) }
                    @for state in STATES { td.number.quiet[count(&states, state) == 0] { (count(&states, state)) } }
                } } }
            } }
        }
    }
}

fn labels(standing: Standing) -> String {
    match standing {
        Standing::Waiting => "not yet".to_owned(),
        Standing::NoFolder => "none, since there is no folder for node-feature-discovery".to_owned(),
        Standing::Others => "left to NVIDIA's gpu-feature-discovery".to_owned(),
        Standing::Written(count) => format!("{count} written"),
        Standing::Failing(why) => format!("failing ({why}); the log says more"),
    }
}

fn registration(resource: &ResourceStatus) -> Markup {
    let ago = resource.registered.and_then(|at| SystemTime::now().duration_since(at).ok());
    html! {
        @match (&resource.obstacle, ago) {
            (Some(why), _) => span.bad { (why) },
            (None, Some(ago)) => { "for " (format_duration(std::time::Duration::from_secs(ago.as_secs()))) },
            (None, None) => "registered",
        }
    }
}
