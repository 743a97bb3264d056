//! The node as it is at the moment of the scrape: driver, GPUs, slices, resources.
//!
//! Labels are dcgm-exporter's where it has one, with its meaning: `UUID` is the GPU's even on a MIG device, `GPU_I_ID` is
//! NVML's id of the GPU instance. A label that would be empty is left out, which is the same to Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::time::UNIX_EPOCH;

use mig_device_plugin::Listed;
use mig_model::{Gpu, MigMode, NodeInventory, ResourceName, UnreadableGpu, Watched};
use mig_nvml::DriverState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;

use crate::known::Known;
use crate::labels::Standing;
use crate::slices::{Slice, State};

#[derive(Debug)]
pub(super) struct Node(pub(super) Known);

type Labels = Vec<(&'static str, String)>;

impl Collector for Node {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let view = self.0.view();
        let mut page = Page(encoder);
        let version = labels([("version", env!("CARGO_PKG_VERSION"))]);
        page.gauge("build_info", "Version of the agent; always 1", [(version, 1)])?;
        let ready = i64::from(self.0.obstacles().is_empty());
        page.gauge("ready", "Whether the agent is ready: /readyz says why not", [(Vec::new(), ready)])?;
        let configured = self.0.is_configured().map(|is| (Vec::new(), i64::from(is)));
        let help = "Whether the configuration that is asked for is in force; if not, the last good one is";
        page.gauge("config_last_reload_successful", help, configured)?;
        page.driver(&view.driver, view.inventory.as_deref())?;
        if let Some(inventory) = &view.inventory {
            page.gpus(inventory, &self.0)?;
        }
        page.slices(&self.0.slices())?;
        page.faults(view.inventory.as_deref(), &self.0)?;
        page.resources(&self.0)?;
        page.labels(self.0.labels())
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A family of gauges; none if it has no series.
    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let help = format!("{help}.");
        let mut family = self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn driver(&mut self, state: &DriverState, inventory: Option<&NodeInventory>) -> fmt::Result {
        let states = [
            ("starting", *state == DriverState::Starting),
            ("ready", *state == DriverState::Ready),
            ("failed", matches!(state, DriverState::Failed(_))),
            ("stalled", *state == DriverState::Stalled),
        ];
        let series = states.map(|(word, is)| (labels([("state", word)]), i64::from(is)));
        self.gauge("driver_state", "How the driver does: 1 for its state, 0 for the others", series)?;
        let versions = inventory.map(|inventory| {
            labels([("driver_version", &*inventory.driver.version), ("nvml_version", &inventory.driver.nvml)])
        });
        self.gauge(
            "driver_info",
            "Versions of the driver that answered last; always 1",
            versions.map(|labels| (labels, 1)),
        )
    }

    fn gpus(&mut self, inventory: &NodeInventory, known: &Known) -> fmt::Result {
        let left_out = known.offers();
        let (gpus, unreadable) = (&inventory.gpus, &inventory.unreadable);
        let info = gpus.iter().map(|gpu| {
            let mut labels = of_gpu(gpu);
            labels.push(("modelName", gpu.name.clone()));
            (labels, 1)
        });
        self.gauge("gpu_info", "GPUs of the node; always 1", info)?;
        let health = gpus.iter().map(|gpu| (of_gpu(gpu), i64::from(gpu.fault.is_none())));
        let unknown = unreadable.iter().map(|gpu| (of_unreadable(gpu), 0));
        self.gauge("gpu_healthy", "Whether the GPU can be used: the log says why not", health.chain(unknown))?;
        let modes = gpus.iter().filter_map(|gpu| match gpu.mig {
            MigMode::Known { enabled, .. } => Some((of_gpu(gpu), i64::from(enabled))),
            MigMode::Unsupported => None,
        });
        self.gauge("gpu_mig_enabled", "Whether MIG mode is on; GPUs without MIG are left out", modes)?;
        let watched = gpus.iter().flat_map(|gpu| {
            let words = [("all", Watched::All), ("whole_gpu", Watched::WholeGpu), ("nothing", Watched::Nothing)];
            words.map(|(word, watched)| {
                let mut labels = of_gpu(gpu);
                push(&mut labels, "errors", word);
                (labels, i64::from(gpu.watched() == watched))
            })
        });
        let help = "Of which of the GPU's errors (XIDs) the driver tells: 1 for these, 0 for the others";
        self.gauge("gpu_watched", help, watched)?;
        let is_left_out = |index| i64::from(left_out.left_out.iter().any(|out| out.gpu == index));
        let whole = gpus.iter().map(|gpu| (of_gpu(gpu), is_left_out(gpu.index)));
        let is_out = |gpu: &UnreadableGpu| if gpu.uuid.is_some() { 1 } else { is_left_out(gpu.index) };
        let unknown = unreadable.iter().map(|gpu| (of_unreadable(gpu), is_out(gpu)));
        let help = "Whether something of the GPU is not offered: the log says why";
        self.gauge("gpu_left_out", help, whole.chain(unknown))
    }

    fn slices(&mut self, slices: &[Slice]) -> fmt::Result {
        let info = slices.iter().map(|slice| {
            let mut labels = of_slice(slice);
            push(&mut labels, "profile", &slice.profile);
            (labels, 1)
        });
        self.gauge(
            "slice_info",
            "MIG devices, and GPUs that are offered whole; always 1. Joins with dcgm-exporter on UUID and GPU_I_ID",
            info,
        )?;
        let states = slices.iter().flat_map(|slice| {
            State::ALL.map(|state| {
                let mut labels = of_slice(slice);
                push(&mut labels, "state", state.word());
                (labels, i64::from(slice.state == state))
            })
        });
        self.gauge("slice_state", "State of each slice: 1 for its state, 0 for the others", states)?;
        let mut counts: BTreeMap<Vec<(&'static str, String)>, u32> = BTreeMap::new();
        for slice in slices {
            for state in State::ALL {
                let mut labels = of_kind(slice);
                push(&mut labels, "state", state.word());
                *counts.entry(labels).or_default() += u32::from(slice.state == state);
            }
        }
        self.gauge("slices", "Slices by GPU, profile, resource and state", counts)
    }

    /// One series for each fault that there is: who is well has none.
    fn faults(&mut self, inventory: Option<&NodeInventory>, known: &Known) -> fmt::Result {
        let gpus = inventory.into_iter().flat_map(|inventory| &inventory.gpus).filter_map(|gpu| {
            let mut labels = of_gpu(gpu);
            push(&mut labels, "reason", gpu.fault.as_ref()?.kind);
            Some((labels, 1))
        });
        let unreadable = inventory.into_iter().flat_map(|inventory| &inventory.unreadable).map(|gpu| {
            let mut labels = of_unreadable(gpu);
            push(&mut labels, "reason", gpu.fault.kind);
            (labels, 1)
        });
        self.gauge("gpu_fault", "GPUs that cannot be used, and why; always 1", gpus.chain(unreadable))?;
        let mut reasons: BTreeMap<(ResourceName, String), &str> = BTreeMap::new();
        for resource in known.status.resources() {
            for Listed { device, vanished, .. } in resource.devices {
                let reason = match device.fault {
                    _ if vanished => "Vanished",
                    Some(fault) => fault.kind,
                    None => continue,
                };
                reasons.insert((resource.resource.clone(), device.id), reason);
            }
        }
        let slices = known.slices().into_iter().filter_map(|slice| {
            let mut labels = of_slice(&slice);
            push(&mut labels, "reason", reasons.get(&(slice.resource?, slice.id))?);
            Some((labels, 1))
        });
        self.gauge("slice_fault", "Slices that no pod is given, and why; always 1", slices)
    }

    fn labels(&mut self, standing: Option<Standing>) -> fmt::Result {
        let Some(standing) = standing else { return Ok(()) };
        let states = [
            ("waiting", standing == Standing::Waiting),
            ("no_folder", standing == Standing::NoFolder),
            ("others", standing == Standing::Others),
            ("written", matches!(standing, Standing::Written(_))),
            ("failing", matches!(standing, Standing::Failing(_))),
        ];
        let series = states.map(|(word, is)| (labels([("state", word)]), i64::from(is)));
        self.gauge("labels_state", "How the node's labels do: 1 for their state, 0 for the others", series)
    }

    fn resources(&mut self, known: &Known) -> fmt::Result {
        let resources = known.status.resources();
        let name =
            |resource: &mig_device_plugin::ResourceStatus| labels([("resource", &*resource.resource.to_string())]);
        let registered = resources.iter().map(|resource| (name(resource), i64::from(resource.obstacle.is_none())));
        self.gauge("registered", "Whether the kubelet knows the resource and reads its list", registered)?;
        let since = resources.iter().filter_map(|resource| {
            let at = resource.registered?.duration_since(UNIX_EPOCH).ok()?;
            Some((name(resource), at.as_secs_f64()))
        });
        let help = "When the resource was last registered with success, in Unix time";
        self.gauge("registration_timestamp_seconds", help, since)
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    let mut labels = Vec::with_capacity(N);
    for (name, value) in pairs {
        push(&mut labels, name, value);
    }
    labels
}

fn push(labels: &mut Labels, name: &'static str, value: &str) {
    if !value.is_empty() {
        labels.push((name, value.to_owned()));
    }
}

fn of_gpu(gpu: &Gpu) -> Labels {
    labels([("gpu", &*gpu.index.to_string()), ("UUID", gpu.uuid.as_str())])
}

fn of_unreadable(gpu: &UnreadableGpu) -> Labels {
    let uuid = gpu.uuid.as_ref().map_or("", |uuid| uuid.as_str());
    labels([("gpu", &*gpu.index.to_string()), ("UUID", uuid)])
}

/// What slices have in common that are counted as one kind.
fn of_kind(slice: &Slice) -> Labels {
    let text = |value: Option<String>| value.unwrap_or_default();
    labels([
        ("gpu", &*text(slice.gpu.map(|index| index.to_string()))),
        ("UUID", &slice.gpu_uuid),
        ("GPU_I_PROFILE", &slice.instance_profile),
        ("resource", &text(slice.resource.as_ref().map(ToString::to_string))),
    ])
}

fn of_slice(slice: &Slice) -> Labels {
    let mut labels = of_kind(slice);
    push(&mut labels, "GPU_I_ID", &slice.instance.map(|id| id.to_string()).unwrap_or_default());
    // A whole GPU's id is its UUID, which is there already.
    if slice.id != slice.gpu_uuid {
        push(&mut labels, "mig_uuid", &slice.id);
    }
    labels
}
