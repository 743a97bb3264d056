use super::*;
use crate::ResourceDomain;
use crate::identity::{GpuUuid, MigUuid};
use crate::inventory::{ComputeInstance, GpuInstance, MigMode, Placement, UnreadableGpu};

/// A GPU with MIG on, cut into compute instances of these profiles, each in a GPU instance of its own.
fn cut(index: u32, profiles: &[&str]) -> Gpu {
    let instances = profiles.iter().zip(0..).map(|(text, n)| {
        let profile: Profile = text.parse().unwrap();
        let uuid = MigUuid::new(format!("MIG-{index}-{n}")).unwrap();
        GpuInstance {
            id: n,
            profile: profile.gpu_instance(),
            placement: Some(Placement { start: n, size: 1 }),
            compute_instances: vec![ComputeInstance {
                id: 0,
                profile,
                uuid,
                index: None,
                placement: None,
                fault: None,
            }],
        }
    });
    Gpu {
        vitals: crate::Vitals::default(),
        unwatched: None,
        outdated: false,
        processes: None,
        index,
        uuid: GpuUuid::new(format!("GPU-{index}")).unwrap(),
        name: "NVIDIA A100-SXM4-40GB".to_owned(),
        minor: Some(index),
        pci_address: Some(format!("0000:0{index}:00.0")),
        numa_node: Some(index % 2),
        mig: MigMode::Known { enabled: true, pending: true },
        instances: instances.collect(),
        fault: None,
    }
}

fn whole(index: u32) -> Gpu {
    Gpu { mig: MigMode::Known { enabled: false, pending: false }, ..cut(index, &[]) }
}

fn offered(gpus: Vec<Gpu>, strategy: Strategy) -> (Vec<(String, Vec<String>)>, Vec<LeftOut>) {
    let inventory = NodeInventory { gpus, ..NodeInventory::default() };
    let offers = assign(&inventory, &Terms::plain(strategy, ResourceDomain::default()));
    let names = |devices: Vec<Device>| devices.into_iter().map(|device| device.id).collect();
    (offers.resources.into_iter().map(|(name, devices)| (name.to_string(), names(devices))).collect(), offers.left_out)
}

fn expect(name: &str, ids: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn mixed_offers_each_profile_and_whole_gpus() {
    let (resources, left_out) =
        offered(vec![cut(0, &["3g.20gb", "1g.5gb", "1g.10gb+me"]), whole(1), cut(2, &["1c.3g.20gb"])], Strategy::Mixed);
    assert_eq!(
        resources,
        [
            expect("nvidia.com/gpu", &["GPU-1"]),
            expect("nvidia.com/mig-1c.3g.20gb", &["MIG-2-0"]),
            expect("nvidia.com/mig-1g.10gb.me", &["MIG-0-2"]),
            expect("nvidia.com/mig-1g.5gb", &["MIG-0-1"]),
            expect("nvidia.com/mig-3g.20gb", &["MIG-0-0"]),
        ]
    );
    assert_eq!(left_out, []);
}

#[test]
fn mixed_names_a_gpu_on_which_nothing_is_cut() {
    let (resources, left_out) = offered(vec![cut(0, &[]), cut(1, &["1g.5gb"])], Strategy::Mixed);
    assert_eq!(resources, [expect("nvidia.com/mig-1g.5gb", &["MIG-1-0"])]);
    assert_eq!(left_out[0].gpu, 0);
    assert!(left_out[0].reason.contains("nothing is cut"));
}

#[test]
fn none_ignores_mig_even_where_it_is_on() {
    let (resources, _) = offered(vec![cut(0, &["1g.5gb"]), whole(1)], Strategy::None);
    assert_eq!(resources, [expect("nvidia.com/gpu", &["GPU-0", "GPU-1"])]);
}

/// Whoever has a whole GPU has its slices.
#[test]
fn a_fault_of_a_slice_is_one_of_the_gpu_that_is_offered_whole() {
    let mut gpu = cut(0, &["2g.10gb", "1g.5gb"]);
    gpu.instances[1].compute_instances[0].fault = Some(Fault { kind: "Xid", message: "XID 48".to_owned() });
    let inventory = NodeInventory { gpus: vec![gpu.clone(), cut(1, &["1g.5gb"])], ..NodeInventory::default() };
    let offers = assign(&inventory, &Terms::plain(Strategy::None, ResourceDomain::default()));
    let [first, second] = offers.resources.values().next().unwrap().as_slice() else { panic!("{offers:?}") };
    let fault = first.fault.clone().unwrap();
    assert_eq!((fault.kind, fault.message.as_str()), ("Xid", "MIG-0-1 (1g.5gb): XID 48"));
    assert_eq!(second.fault, None);
}

#[test]
fn single_names_what_is_not_alike() {
    let (resources, left_out) = offered(vec![cut(0, &["3g.20gb", "1g.5gb", "1g.5gb"]), cut(1, &[])], Strategy::Single);
    assert_eq!(resources, []);
    assert!(left_out[0].reason.starts_with("has 1g.5gb, 3g.20gb, but"), "{left_out:?}");
    assert!(left_out[1].reason.contains("nothing is cut"), "{left_out:?}");
}

#[test]
fn single_offers_alike_devices_as_gpus() {
    let (resources, left_out) = offered(vec![cut(0, &["1g.5gb", "1g.5gb"]), cut(1, &["1g.5gb"])], Strategy::Single);
    assert_eq!(resources, [expect("nvidia.com/gpu", &["MIG-0-0", "MIG-0-1", "MIG-1-0"])]);
    assert_eq!(left_out, []);
}

#[test]
fn single_leaves_out_only_the_gpus_that_do_not_fit() {
    let gpus = vec![
        cut(0, &["3g.20gb"]),
        cut(1, &["1g.5gb"]),
        cut(2, &["1g.5gb"]),
        cut(3, &["1g.5gb", "2g.10gb"]),
        whole(4),
        cut(5, &[]),
    ];
    let (resources, left_out) = offered(gpus, Strategy::Single);
    assert_eq!(resources, [expect("nvidia.com/gpu", &["MIG-1-0", "MIG-2-0"])]);
    let reasons: Vec<(u32, &str)> = left_out.iter().map(|out| (out.gpu, out.reason.as_str())).collect();
    assert!(reasons[0].0 == 0 && reasons[0].1.contains("has 3g.20gb"), "{reasons:?}");
    assert!(reasons[1].0 == 3 && reasons[1].1.contains("has 2g.10gb"), "{reasons:?}");
    assert!(reasons[2].0 == 4 && reasons[2].1.contains("MIG is off"), "{reasons:?}");
    assert!(reasons[3].0 == 5 && reasons[3].1.contains("nothing is cut"), "{reasons:?}");
}

#[test]
fn single_takes_the_first_gpus_profile_if_it_is_a_draw() {
    let (resources, _) = offered(vec![cut(0, &["3g.20gb"]), cut(1, &["1g.5gb"])], Strategy::Single);
    assert_eq!(resources, [expect("nvidia.com/gpu", &["MIG-0-0"])]);
}

#[test]
fn single_offers_whole_gpus_where_nothing_is_cut() {
    let (resources, left_out) = offered(vec![whole(0), whole(1)], Strategy::Single);
    assert_eq!(resources, [expect("nvidia.com/gpu", &["GPU-0", "GPU-1"])]);
    assert_eq!(left_out, []);
}

#[test]
fn a_fault_stays_with_its_gpu() {
    let fault = Fault { kind: "GpuIsLost", message: "GPU is lost".to_owned() };
    let bad = Gpu { fault: Some(fault.clone()), ..cut(0, &["1g.5gb"]) };
    let inventory = NodeInventory {
        gpus: vec![bad, cut(1, &["1g.5gb"])],
        unreadable: vec![UnreadableGpu { index: 2, uuid: None, fault: fault.clone() }],
        ..NodeInventory::default()
    };
    let offers = assign(&inventory, &Terms::default());
    let faults: Vec<_> = offers.resources.values().flatten().map(|device| device.fault.clone()).collect();
    assert_eq!(faults, [Some(fault), None]);
    assert_eq!(offers.left_out, [LeftOut { gpu: 2, reason: "GPU is lost".to_owned() }]);
}

/// NVIDIA's plugin reads `resources` and ignores it.
#[test]
fn patterns_give_names_and_what_none_fits_keeps_its_own() {
    let named = |pattern: &str, name: &str| crate::NamePattern {
        pattern: pattern.to_owned(),
        name: ResourceName::parse(name, &ResourceDomain::default()).unwrap(),
    };
    let terms = Terms {
        mig_names: vec![named("1g.*", "small"), named("1g.5gb", "never")],
        gpu_names: vec![named("NVIDIA A100*", "a100")],
        ..Terms::default()
    };
    let gpus = vec![cut(0, &["1g.5gb", "1g.10gb+me", "3g.20gb"]), whole(1)];
    let inventory = NodeInventory { gpus, ..NodeInventory::default() };
    let names: Vec<String> = assign(&inventory, &terms).resources.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["nvidia.com/a100", "nvidia.com/mig-3g.20gb", "nvidia.com/small"]);
}
