use mig_model::{ComputeInstance, Gpu, GpuInstance, GpuUuid, MigMode, MigUuid, Placement, ResourceDomain};

use super::*;

fn gpu(index: u32, instances: Vec<GpuInstance>) -> Gpu {
    Gpu {
        vitals: mig_model::Vitals::default(),
        unwatched: None,
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

fn listed(resource: &str, devices: &[(&str, &str, DeviceState)]) -> ResourceStatus {
    let device = |(id, gpu, state): &(&str, &str, DeviceState)| {
        let device = Device {
            id: (*id).to_owned(),
            uuid: (*id).to_owned(),
            gpu: (*gpu).to_owned(),
            profile: id.starts_with("MIG-").then(|| "1c.3g.20gb".parse().unwrap()),
            ..Device::default()
        };
        (device, *state)
    };
    ResourceStatus {
        resource: ResourceName::recognise(resource, &ResourceDomain::default()).unwrap(),
        obstacle: None,
        registered: None,
        devices: devices.iter().map(device).collect(),
    }
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
        listed(WHOLE, &[("GPU-1", "GPU-1", DeviceState::Free)]),
        listed(
            PART,
            &[
                ("MIG-a", "GPU-0", DeviceState::Allocated),
                ("MIG-gone", "GPU-0", DeviceState::Vanished),
                ("MIG-old", "", DeviceState::Vanished),
            ],
        ),
    ];
    let slices = of(Some(&inventory), &resources);
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
    let resources = [
        listed(WHOLE, &[("MIG-a", "GPU-0", DeviceState::Unhealthy)]),
        listed(PART, &[("MIG-a", "GPU-0", DeviceState::Vanished)]),
    ];
    let expected = [
        ("MIG-a", Some(0), Some(2), WHOLE.to_owned(), "unhealthy"),
        ("MIG-a", Some(0), Some(2), PART.to_owned(), "vanished"),
        ("MIG-a", Some(0), Some(2), String::new(), "left_out"),
    ];
    assert_eq!(told(&of(Some(&inventory), &resources)), expected);
}

#[test]
fn what_is_listed_is_known_without_a_driver() {
    let resources = [listed(PART, &[("MIG-a", "GPU-0", DeviceState::Unhealthy)])];
    assert_eq!(told(&of(None, &resources)), [("MIG-a", None, None, PART.to_owned(), "unhealthy")]);
}
