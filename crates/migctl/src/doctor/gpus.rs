//! The GPUs: whether they answer, and whether how they are cut is of use.

use mig_model::{Fault, Gpu, MigMode};

use super::{Finding, Places, Told, listed};
use crate::misfit::instance_name;
use crate::users::User;

/// Programs that keep a GPU open: as the kernel cuts their names, in full, and how to stop them.
const CLIENTS: [(&str, &str, &str); 4] = [
    ("nv-hostengine", "nv-hostengine", "systemctl stop nvidia-dcgm"),
    ("dcgm-exporter", "dcgm-exporter", "take DCGM's exporter off this node"),
    ("nvidia-persiste", "nvidia-persistenced", "systemctl stop nvidia-persistenced"),
    ("nvsm_core", "nvsm_core", "systemctl stop nvsm"),
];

/// GPUs that are lost or otherwise fail.
pub(super) fn health(told: Option<&Told<'_>>) -> Vec<Finding> {
    const CHECK: &str = "gpus";
    let Some(told) = told else { return vec![Finding::needs_driver(CHECK)] };
    let faulty = told.gpus.iter().filter_map(|gpu| Some((gpu.gpu.index, gpu.gpu.fault.as_ref()?)));
    let mut faults: Vec<(u32, &Fault)> = faulty.collect();
    faults.extend(told.survey.unreadable.iter().map(|gpu| (gpu.index, &gpu.fault)));
    faults.sort_by_key(|(index, _)| *index);
    if !faults.is_empty() {
        return faults.into_iter().map(|(index, fault)| unwell(CHECK, index, fault)).collect();
    }
    match told.gpus.len() {
        0 => vec![Finding::problem(CHECK, "the driver knows no GPU on this machine").advice(
            "lspci -d 10de: lists those on the bus; if they are there, dmesg says why the driver left them out",
        )],
        1 => vec![Finding::ok(CHECK, "1 GPU answers")],
        count => vec![Finding::ok(CHECK, format!("{count} GPUs answer"))],
    }
}

fn unwell(check: &'static str, index: u32, fault: &Fault) -> Finding {
    let advice = match fault.kind {
        "GpuIsLost" => format!(
            "dmesg | grep Xid says why; end what uses it, then nvidia-smi --gpu-reset -i {index}; if it stays lost, reboot, and check its seating and power"
        ),
        "ResetRequired" => format!("end what uses it, then nvidia-smi --gpu-reset -i {index}"),
        "NoPermission" => "see permissions below".to_owned(),
        _ => "the kernel's log may say more: dmesg | grep -e NVRM -e Xid".to_owned(),
    };
    Finding::problem(check, format!("GPU {index}: {}", fault.message)).advice(advice)
}

/// MIG modes that wait for something.
pub(super) fn mode(places: &Places<'_>, told: Option<&Told<'_>>) -> Vec<Finding> {
    const CHECK: &str = "mig-mode";
    let Some(told) = told else { return vec![Finding::needs_driver(CHECK)] };
    let waits = |gpu: &Gpu| matches!(gpu.mig, MigMode::Known { enabled, pending } if enabled != pending);
    let waiting: Vec<_> = told.gpus.iter().filter(|gpu| waits(&gpu.gpu)).collect();
    if waiting.is_empty() {
        return vec![match told.gpus.iter().filter(|gpu| gpu.gpu.mig.is_enabled()).count() {
            0 => Finding::ok(CHECK, "off for all GPUs; none waits for a reset"),
            on => Finding::ok(CHECK, format!("on for {on} of {} GPUs; none waits for a reset", told.gpus.len())),
        }];
    }
    let clients = clients(places);
    let finding = |gpu: &&&mig_model::GpuSurvey| {
        let index = gpu.gpu.index;
        let (verb, word) = if gpu.gpu.mig.is_enabled() { ("disable", "off") } else { ("enable", "on") };
        let message = format!("GPU {index}: it is to be {word}, and waits for a reset of the GPU");
        let mut finding = Finding::warning(CHECK, message);
        let users: Vec<String> = gpu.processes.iter().map(|process| User::from(process).to_string()).collect();
        if !users.is_empty() {
            finding = finding.advice(format!("stop what uses it: {}", listed(&users)));
        }
        for client in &clients {
            finding = finding.advice(client.clone());
        }
        finding.advice(format!("nvidia-smi --gpu-reset -i {index}; what else it needs: migctl --gpuid {index} {verb}"))
    };
    waiting.iter().map(finding).collect()
}

/// The driver does not list those that only watch, and no GPU is reset while they do.
fn clients(places: &Places<'_>) -> Vec<String> {
    let told = |(pid, name): (u32, String)| {
        let (_, name, stop) = CLIENTS.iter().find(|(short, ..)| *short == name)?;
        Some(format!("{name} (process {pid}) may keep it open: {stop}"))
    };
    places.processes().into_iter().filter_map(told).collect()
}

/// Memory that is set aside and cannot be used.
pub(super) fn instances(told: Option<&Told<'_>>) -> Vec<Finding> {
    const CHECK: &str = "instances";
    let Some(told) = told else { return vec![Finding::needs_driver(CHECK)] };
    let mut findings = Vec::new();
    let mut count = 0;
    for gpu in told.gpus.iter().map(|survey| &survey.gpu).filter(|gpu| gpu.mig.is_enabled() && gpu.fault.is_none()) {
        let index = gpu.index;
        count += gpu.instances.len();
        if gpu.instances.is_empty() {
            let message = format!("GPU {index}: MIG is on and nothing is cut: nobody can use it");
            findings.push(
                Finding::warning(CHECK, message)
                    .advice(format!("cut it (what it offers: migctl --gpuid {index} list instance)"))
                    .advice(format!("or turn MIG off: migctl --gpuid {index} disable")),
            );
        }
        for instance in gpu.instances.iter().filter(|instance| instance.compute_instances.is_empty()) {
            let (id, profile) = (instance.id, &instance.profile);
            let name = instance_name(instance);
            let message = format!("GPU {index}: {name} has no compute instance: nobody can use its memory");
            findings.push(
                Finding::warning(CHECK, message)
                    .advice(format!("use it: migctl --gpuid {index} create instance --type {profile} --in {id}"))
                    .advice(format!("or destroy it: migctl --gpuid {index} destroy instance --instanceid {id}")),
            );
        }
    }
    if findings.is_empty() {
        findings.push(match count {
            0 => Finding::ok(CHECK, "there are none"),
            1 => Finding::ok(CHECK, "1, with its compute instances"),
            count => Finding::ok(CHECK, format!("{count}, each with its compute instances")),
        });
    }
    findings
}
