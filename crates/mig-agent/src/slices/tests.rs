use mig_model::{
    ComputeInstance, Fault, Gpu, GpuInstance, GpuUuid, Holder, MigMode, MigUuid, Placement, Process, Replica,
    ResourceDomain,
};

use super::*;

fn gpu(index: u32, instances: Vec<GpuInstance>) -> Gpu {
    Gpu {
        vitals: mig_model::Vitals::default(),
        unwatched: None,
        outdated: false,
        processes: Some(Vec::new()),
        index,
        uuid: GpuUuid::new(format!("GPU-{index}")).unwrap(),
        name: "NVIDIA A100-SXM4-40GB".to_owned(),
        minor: None,
        pci_address: None,
        numa_node: None,
        mig: MigMode::Known { enabled: !instances.is_empty(), pending: !instances.is_empty() },
        instances,
        fault: None,
    }
}

fn instance(id: u32, profile: &str, devices: &[(&str, &str)]) -> GpuInstance {
    let compute = |(place, (uuid, profile)): (u32, &(&str, &str))| ComputeInstance {
        id: place,
        profile: profile.parse().unwrap(),
        uuid: MigUuid::new(*uuid).unwrap(),
        index: None,
        placement: None,
        fault: None,
    };
    GpuInstance {
        id,
        profile: profile.parse().unwrap(),
        placement: Some(Placement { start: 0, size: 1 }),
        compute_instances: (0..).zip(devices).map(compute).collect(),
    }
}

/// How the kubelet's list has a device.
#[derive(Clone, Copy)]
enum Condition {
    Well,
    Faulty,
    Gone,
}
use Condition::{Faulty, Gone, Well};

fn listed(resource: &str, devices: &[(&str, &str, Condition)]) -> ResourceStatus {
    let device = |(id, gpu, condition): &(&str, &str, Condition)| {
        let fault = Fault { kind: "Xid", message: "XID 79".to_owned() };
        let device = Device {
            id: (*id).to_owned(),
            uuid: mig_model::uuid_of(id).to_owned(),
            replica: id.split_once("::").map(|(_, n)| Replica { number: n.parse().unwrap(), alone: false }),
            gpu: (*gpu).to_owned(),
            profile: id.starts_with("MIG-").then(|| "1c.3g.20gb".parse().unwrap()),
            fault: matches!(condition, Faulty).then_some(fault),
            ..Device::default()
        };
        Listed { device, vanished: matches!(condition, Gone), pods: pods(id) }
    };
    ResourceStatus {
        resource: ResourceName::recognise(resource, &ResourceDomain::default()).unwrap(),
        obstacle: None,
        registered: None,
        devices: devices.iter().map(device).collect(),
    }
}

fn holder() -> Holder {
    let text = str::to_owned;
    Holder { namespace: text("default"), pod: text("train"), container: text("main") }
}

/// A pod holds the slice `a`, of which it has the first share.
fn pods(id: &str) -> Pods {
    if ["MIG-a", "MIG-a::0"].contains(&id) { Pods::Hold(vec![holder()]) } else { Pods::None }
}

fn nobody(_: &str) -> Pods {
    Pods::None
}

type Told<'a> = (&'a str, Option<u32>, Option<u32>, String, &'a str);

fn told(slices: &[Slice]) -> Vec<Told<'_>> {
    let resource = |slice: &Slice| slice.resource.as_ref().map(ToString::to_string).unwrap_or_default();
    slices.iter().map(|s| (&*s.id, s.gpu, s.instance, resource(s), s.state.word())).collect()
}

const PART: &str = "nvidia.com/mig-1c.3g.20gb";
const WHOLE: &str = "nvidia.com/gpu";

#[test]
fn every_slice_has_its_gpu_its_resource_and_its_state() {
    let parts = [("MIG-a", "1c.3g.20gb"), ("MIG-b", "1c.3g.20gb")];
    let inventory = NodeInventory {
        gpus: vec![gpu(0, vec![instance(2, "3g.20gb", &parts)]), gpu(1, vec![])],
        ..NodeInventory::default()
    };
    let resources = [
        listed(WHOLE, &[("GPU-1", "GPU-1", Well)]),
        listed(PART, &[("MIG-a", "GPU-0", Well), ("MIG-gone", "GPU-0", Gone), ("MIG-old", "", Gone)]),
    ];
    let slices = of(Some(&inventory), &resources, &pods);
    let expected = [
        ("MIG-a", Some(0), Some(2), PART.to_owned(), "allocated"),
        ("MIG-b", Some(0), Some(2), String::new(), "left_out"),
        ("GPU-1", Some(1), None, WHOLE.to_owned(), "free"),
        ("MIG-gone", Some(0), None, PART.to_owned(), "vanished"),
        ("MIG-old", None, None, PART.to_owned(), "vanished"),
    ];
    assert_eq!(told(&slices), expected);
    assert_eq!((&*slices[0].profile, &*slices[0].instance_profile), ("1c.3g.20gb", "3g.20gb"));
    assert_eq!((&*slices[3].profile, &*slices[3].instance_profile), ("1c.3g.20gb", "3g.20gb"));
    assert!(slices[2].profile.is_empty());
}

#[test]
fn an_id_has_one_line_for_each_resource_that_lists_it() {
    let devices = [("MIG-a", "3g.20gb"), ("MIG-a", "3g.20gb"), ("MIG-a", "3g.20gb")];
    let inventory =
        NodeInventory { gpus: vec![gpu(0, vec![instance(2, "3g.20gb", &devices)])], ..NodeInventory::default() };
    let resources = [listed(WHOLE, &[("MIG-a", "GPU-0", Faulty)]), listed(PART, &[("MIG-a", "GPU-0", Gone)])];
    let expected = [
        ("MIG-a", Some(0), Some(2), WHOLE.to_owned(), "unhealthy"),
        ("MIG-a", Some(0), Some(2), PART.to_owned(), "vanished"),
        ("MIG-a", Some(0), Some(2), String::new(), "left_out"),
    ];
    assert_eq!(told(&of(Some(&inventory), &resources, &pods)), expected);
}

#[test]
fn what_is_listed_is_known_without_a_driver() {
    let resources = [listed(PART, &[("MIG-a", "GPU-0", Faulty)])];
    assert_eq!(told(&of(None, &resources, &pods)), [("MIG-a", None, None, PART.to_owned(), "unhealthy")]);
}

#[test]
fn whoever_has_a_gpu_has_its_slices_and_the_other_way_round() {
    let inventory = NodeInventory {
        gpus: vec![gpu(0, vec![instance(2, "3g.20gb", &[("MIG-a", "3g.20gb")])])],
        ..NodeInventory::default()
    };
    let whole = |uuid: &str| if uuid == "GPU-0" { Pods::Hold(vec![holder()]) } else { Pods::None };
    let slices = of(Some(&inventory), &[], &whole);
    assert_eq!(slices[0].usage, Use::Allocated { containers: vec![holder()] });
    let resources = [listed(WHOLE, &[("GPU-0", "GPU-0", Well)])];
    assert_eq!(of(Some(&inventory), &resources, &pods)[0].state, State::Allocated);
    assert_eq!(of(Some(&inventory), &resources, &nobody)[0].state, State::Free);
}

#[test]
fn a_process_on_a_slice_that_no_pod_holds_is_told() {
    let parts = [("MIG-a", "3g.20gb"), ("MIG-b", "3g.20gb")];
    let mut cut = gpu(0, vec![instance(2, "3g.20gb", &parts)]);
    let process = |compute| Process {
        pid: 7,
        gpu_instance: Some(2),
        compute_instance: Some(compute),
        memory_bytes: None,
        name: None,
    };
    cut.processes = Some(vec![process(0), process(1)]);
    let inventory = NodeInventory { gpus: vec![cut], ..NodeInventory::default() };
    let resources = [listed(PART, &[("MIG-a", "GPU-0", Well), ("MIG-b", "GPU-0", Well)])];
    let slices = of(Some(&inventory), &resources, &pods);
    assert_eq!((slices[0].state, slices[1].state), (State::Allocated, State::Outside));
    assert_eq!(slices[1].usage, Use::Outside { processes: vec![process(1)] });
}

#[test]
fn a_shared_slice_is_in_use_and_its_other_share_is_free() {
    let inventory = NodeInventory {
        gpus: vec![gpu(0, vec![instance(2, "3g.20gb", &[("MIG-a", "3g.20gb")])])],
        ..NodeInventory::default()
    };
    let shares = listed(PART, &[("MIG-a::0", "GPU-0", Well), ("MIG-a::1", "GPU-0", Well)]);
    let slices = of(Some(&inventory), std::slice::from_ref(&shares), &pods);
    assert_eq!((slices.len(), slices[0].state), (1, State::Allocated));
    assert_eq!(states(&shares, &slices), [State::Allocated, State::Free]);
}
