use proptest::prelude::*;

use super::*;
use crate::identity::{GpuUuid, MigUuid};
use crate::inventory::{ComputeInstance, Fault, GpuInstance, MigMode};
use crate::strategy::{Address, MigAddress};
use crate::vitals::Vitals;

fn process(pid: u32, gpu_instance: Option<u32>, compute_instance: Option<u32>) -> Process {
    Process { pid, gpu_instance, compute_instance, memory_bytes: None, name: None }
}

fn gpu(processes: Option<Vec<Process>>) -> Gpu {
    Gpu {
        index: 0,
        uuid: GpuUuid::new("GPU-0").unwrap(),
        name: "NVIDIA A100-SXM4-40GB".to_owned(),
        minor: None,
        pci_address: None,
        numa_node: None,
        mig: MigMode::Known { enabled: true, pending: true },
        instances: Vec::new(),
        vitals: Vitals::default(),
        unwatched: None,
        outdated: false,
        processes,
        fault: None,
    }
}

/// The GPU instance 1, with these compute instances.
fn instance(parts: &[(&str, u32)]) -> GpuInstance {
    let profile: crate::Profile = "1g.5gb".parse().unwrap();
    let compute = |&(uuid, id): &(&str, u32)| ComputeInstance {
        id,
        index: Some(0),
        placement: None,
        uuid: MigUuid::new(uuid).unwrap(),
        profile: profile.clone(),
        fault: None,
    };
    GpuInstance { id: 1, compute_instances: parts.iter().map(compute).collect(), profile, placement: None }
}

fn holder(pod: &str) -> Holder {
    Holder { namespace: "default".to_owned(), pod: pod.to_owned(), container: "main".to_owned() }
}

#[test]
fn a_process_uses_the_slice_that_it_is_on() {
    let gpu = gpu(Some(vec![process(10, Some(1), Some(0)), process(11, Some(2), Some(1))]));
    let used = |part| Use::of(Pods::None, gpu.running(part));
    assert_eq!(used(Some((1, 0))), Use::Outside { processes: vec![process(10, Some(1), Some(0))] });
    assert_eq!(used(Some((2, 0))), Use::Free, "it is on the other compute instance");
    assert_eq!(used(Some((3, 0))), Use::Free);
    let Use::Outside { processes } = used(None) else { panic!("whatever is on a part is on the whole") };
    assert_eq!(processes.len(), 2);
}

#[test]
fn a_process_that_may_be_on_any_slice_leaves_none_free() {
    let anywhere = gpu(Some(vec![process(10, None, None)]));
    let part = gpu(Some(vec![process(10, Some(1), None)]));
    let used = |gpu: &Gpu, part| Use::of(Pods::None, gpu.running(part));
    assert!(matches!(used(&anywhere, Some((1, 0))), Use::Unknown { .. }));
    assert!(matches!(used(&part, Some((1, 0))), Use::Unknown { .. }));
    assert_eq!(used(&part, Some((2, 0))), Use::Free);
    assert!(matches!(used(&anywhere, None), Use::Outside { .. }));
}

#[test]
fn a_process_in_an_instance_of_one_part_is_on_that_part() {
    let part = process(10, Some(1), None);
    let mut gpu = gpu(Some(vec![part.clone()]));
    gpu.instances = vec![instance(&[("MIG-0", 0)])];
    let used = |gpu: &Gpu, compute| Use::of(Pods::None, gpu.running(Some((1, compute))));
    assert_eq!(used(&gpu, 0), Use::Outside { processes: vec![part] });
    gpu.instances = vec![instance(&[("MIG-0", 0), ("MIG-1", 1)])];
    assert!(matches!(used(&gpu, 0), Use::Unknown { .. }), "it may be on the other");
    assert!(matches!(used(&gpu, 1), Use::Unknown { .. }));
}

#[test]
fn what_runs_on_a_slice_that_a_pod_holds_is_the_pods() {
    let gpu = gpu(Some(vec![process(10, Some(1), Some(0))]));
    let containers = vec![holder("train")];
    let used = Use::of(Pods::Hold(containers.clone()), gpu.running(Some((1, 0))));
    assert_eq!(used, Use::Allocated { containers });
}

#[test]
fn a_gpu_that_cannot_be_read_says_nothing_of_its_processes() {
    let mut gpu = gpu(Some(vec![]));
    gpu.fault = Some(Fault { kind: "Xid", message: "XID 79".to_owned() });
    assert_eq!(Use::of(Pods::None, gpu.running(Some((1, 0)))), Use::Free, "it is ill, and can be read");
    gpu.outdated = true;
    assert!(matches!(Use::of(Pods::None, gpu.running(Some((1, 0)))), Use::Unknown { .. }));
}

/// The slice at the ids 1 and 0 of the GPU.
fn slice(uuid: &str) -> Device {
    let mig = MigAddress { index: None, gpu_instance: 1, compute_instance: 0 };
    Device {
        id: uuid.to_owned(),
        uuid: uuid.to_owned(),
        gpu: "GPU-0".to_owned(),
        address: Address { mig: Some(mig), ..Address::default() },
        ..Device::default()
    }
}

fn node(gpu: Gpu) -> NodeInventory {
    NodeInventory { gpus: vec![gpu], ..NodeInventory::default() }
}

#[test]
fn what_is_gone_is_used_by_what_the_driver_still_lists_there() {
    let used = |gpu: &Gpu| Use::of(Pods::None, node(gpu.clone()).running_on(&slice("MIG-gone")));
    let on_it = process(10, Some(1), Some(0));
    assert_eq!(used(&gpu(Some(vec![on_it.clone()]))), Use::Outside { processes: vec![on_it.clone()] });
    assert_eq!(used(&gpu(Some(vec![process(10, Some(2), Some(0)), process(11, None, None)]))), Use::Free);
    assert!(matches!(used(&gpu(Some(vec![process(10, Some(1), None)]))), Use::Unknown { .. }));
    assert_eq!(used(&gpu(None)), Use::Free, "it was destroyed, so nothing ran on it");
    // Its ids were given to a new one, which has the process.
    let mut again = gpu(Some(vec![on_it.clone()]));
    again.instances = vec![instance(&[("MIG-new", 0)])];
    assert_eq!(used(&again), Use::Free);
    assert_eq!(node(again.clone()).running_on(&slice("MIG-new")).unwrap().on_it, [on_it]);
    again.outdated = true;
    assert!(matches!(used(&again), Use::Unknown { .. }));
    assert_eq!(NodeInventory::default().running_on(&slice("MIG-gone")), Some(Running::default()));
}

#[test]
fn a_gpu_that_was_offered_whole_is_not_used_by_what_runs_on_its_slices() {
    let whole = Device { uuid: "GPU-0".to_owned(), gpu: "GPU-0".to_owned(), ..Device::default() };
    let running = |processes| node(gpu(processes)).running_on(&whole);
    assert_eq!(running(Some(vec![process(10, Some(1), Some(0))])), Some(Running::default()));
    assert_eq!(running(Some(vec![process(10, None, None)])).unwrap().on_it.len(), 1);
    assert_eq!(running(None), None);
}

fn pods() -> impl Strategy<Value = Pods> {
    prop_oneof![
        Just(Pods::Unknown),
        Just(Pods::None),
        proptest::collection::vec("[a-c]".prop_map(|pod| holder(&pod)), 0..3).prop_map(Pods::Hold),
    ]
}

fn processes() -> impl Strategy<Value = Option<Vec<Process>>> {
    let place = (proptest::option::of(1..4_u32), proptest::option::of(0..2_u32));
    let one = (1..9_u32, place).prop_map(|(pid, (instance, compute))| process(pid, instance, instance.and(compute)));
    proptest::option::of(proptest::collection::vec(one, 0..4))
}

proptest! {
    #[test]
    fn only_what_nobody_can_be_using_is_free(pods in pods(), processes in processes(), instance in 1..4_u32, compute in 0..2_u32) {
        let gpu = gpu(processes.clone());
        let used = Use::of(pods.clone(), gpu.running(Some((instance, compute))));
        let may_be_on_it = |p: &Process| {
            p.gpu_instance.is_none_or(|i| i == instance) && p.compute_instance.is_none_or(|c| c == compute)
        };
        let nobody = pods == Pods::None && processes.is_some_and(|all| !all.iter().any(may_be_on_it));
        prop_assert_eq!(used.is_free(), nobody);
    }

    /// What is learnt besides makes nothing free that was in use.
    #[test]
    fn another_process_frees_nothing(pods in pods(), processes in processes(), pid in 1..9_u32, instance in 1..4_u32, compute in 0..2_u32) {
        let before = Use::of(pods.clone(), gpu(processes.clone()).running(Some((instance, compute))));
        let more = processes.map(|mut all| {
            all.push(process(pid, Some(instance), Some(compute)));
            all
        });
        let after = Use::of(pods, gpu(more).running(Some((instance, compute))));
        prop_assert!(before.is_free() || !after.is_free());
        prop_assert!(!matches!(after, Use::Free));
    }
}
