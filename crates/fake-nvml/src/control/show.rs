//! The machine in words and as JSON.

use std::io::Write;

use fake_nvml::{Code, Delay, Fault, Gpu, GpuInstance, NAMES, World};
use serde_json::{Value, json};

use super::{Done, process};

pub(crate) fn text(world: &World, out: &mut impl Write) -> Done {
    writeln!(out, "driver {}, NVML {}, CUDA {}", world.driver, world.nvml, world.cuda)?;
    for (index, gpu) in world.gpus.iter().enumerate() {
        let name = world.models.get(gpu.model).map_or("", |model| &model.name);
        let mode = match (
            world.models.get(gpu.model).is_some_and(|model| model.mig.is_some()),
            gpu.mig_current,
            gpu.mig_pending,
        ) {
            (false, _, _) => "no MIG",
            (true, true, true) => "MIG on",
            (true, false, false) => "MIG off",
            (true, true, false) => "MIG on, off after a reset",
            (true, false, true) => "MIG off, on after a reset",
        };
        let lost = if gpu.lost { ", lost" } else { "" };
        writeln!(out, "GPU {index}: {name}  {}  {}  minor {}  {mode}{lost}", gpu.uuid, gpu.pci.short(), gpu.minor)?;
        for process in &gpu.processes {
            writeln!(out, "  {}", process::in_words(process))?;
        }
        for instance in &gpu.instances {
            let Some(profile) = profile(world, gpu, instance) else { continue };
            let (start, size) = (instance.start, profile.placements.size);
            writeln!(out, "  GPU instance {:>2}  {:<14} at {start}:{size}", instance.id, profile.name)?;
            for compute in &instance.compute {
                let name = profile.compute_profiles.get(compute.profile).map_or("", |profile| &profile.name);
                writeln!(out, "    MIG device {}  {name:<14} {}", compute.mig_index, compute.uuid)?;
            }
        }
    }
    for fault in &world.faults {
        writeln!(out, "fault: {}", in_words(fault))?;
    }
    Ok(())
}

fn in_words(fault: &Fault) -> String {
    let mut words = NAMES.get(fault.function).map(|name| (*name).to_owned()).unwrap_or_default();
    if let Some(gpu) = fault.gpu {
        words.push_str(&format!(" on GPU {gpu}"));
    }
    if let Some(nth) = fault.nth {
        words.push_str(&format!(", call {nth}"));
    }
    match fault.delay {
        Some(Delay::Never) => words.push_str(", never returns"),
        Some(Delay::For(milliseconds)) => words.push_str(&format!(", takes {milliseconds} ms")),
        None => {}
    }
    if let Some(code) = fault.returns {
        words.push_str(&format!(", returns {}", Code(code).name()));
    }
    words
}

pub(crate) fn json(world: &World, out: &mut impl Write) -> Done {
    let gpus: Vec<Value> = world.gpus.iter().enumerate().map(|(index, gpu)| gpu_json(world, index, gpu)).collect();
    let machine = json!({ "driver": world.driver, "nvml": world.nvml, "cuda": world.cuda, "gpus": gpus });
    writeln!(out, "{machine:#}")?;
    Ok(())
}

fn gpu_json(world: &World, index: usize, gpu: &Gpu) -> Value {
    let model = world.models.get(gpu.model);
    json!({
        "index": index,
        "uuid": gpu.uuid,
        "name": model.map(|model| &model.name),
        "minor": gpu.minor,
        "pci": gpu.pci.short(),
        "numa": gpu.numa,
        "serial": gpu.board_serial,
        "memory": model.map(|model| model.memory.total),
        "lost": gpu.lost,
        "mig": model.and_then(|model| model.mig.as_ref()).map(|_| json!({ "current": gpu.mig_current, "pending": gpu.mig_pending })),
        "processes": gpu.processes.iter().map(process::of).collect::<Vec<_>>(),
        "instances": gpu.instances.iter().map(|instance| instance_json(world, gpu, instance)).collect::<Vec<_>>(),
    })
}

fn instance_json(world: &World, gpu: &Gpu, instance: &GpuInstance) -> Value {
    let Some(profile) = profile(world, gpu, instance) else { return Value::Null };
    let compute: Vec<Value> = instance
        .compute
        .iter()
        .filter_map(|compute| {
            let own = profile.compute_profiles.get(compute.profile)?;
            Some(json!({
                "id": compute.id,
                "index": compute.mig_index,
                "uuid": compute.uuid,
                "profile": own.name,
                "profile_id": own.id,
                "placement": { "start": compute.start, "size": own.placements.size },
            }))
        })
        .collect();
    json!({
        "id": instance.id,
        "profile": profile.name,
        "profile_id": profile.id,
        "memory_mb": profile.memory_mb,
        "placement": { "start": instance.start, "size": profile.placements.size },
        "compute": compute,
    })
}

fn profile<'a>(world: &'a World, gpu: &Gpu, instance: &GpuInstance) -> Option<&'a fake_nvml::Profile> {
    world.models.get(gpu.model)?.mig.as_ref()?.profiles.get(instance.profile)
}
