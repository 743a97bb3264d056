use super::*;
use crate::details::GpuDetails;
use crate::geometry::Engines;
use crate::identity::{GpuUuid, MigUuid};
use crate::inventory::{ComputeInstance, Driver, GpuInstance};

fn labels(inventory: &NodeInventory, details: &NodeDetails, strategy: Strategy) -> Labels {
    super::labels(inventory, details, &Terms::plain(strategy, ResourceDomain::default()))
}

const A100: &str = "NVIDIA A100-SXM4-40GB";

/// A GPU with MIG on, cut into these.
fn cut(index: u32, name: &str, profiles: &[&str]) -> Gpu {
    let instances = profiles.iter().zip(0..).map(|(text, id)| {
        let profile: Profile = text.parse().unwrap();
        let uuid = MigUuid::new(format!("MIG-{index}-{id}")).unwrap();
        let compute =
            ComputeInstance { id: 0, profile: profile.clone(), uuid, index: None, placement: None, fault: None };
        GpuInstance { id, profile: profile.gpu_instance(), placement: None, compute_instances: vec![compute] }
    });
    Gpu {
        vitals: crate::Vitals::default(),
        unwatched: None,
        outdated: false,
        processes: None,
        index,
        uuid: GpuUuid::new(format!("GPU-{index}")).unwrap(),
        name: name.to_owned(),
        minor: None,
        pci_address: None,
        numa_node: None,
        mig: MigMode::Known { enabled: true, pending: true },
        instances: instances.collect(),
        fault: None,
    }
}

fn whole(index: u32, name: &str) -> Gpu {
    Gpu { mig: MigMode::Known { enabled: false, pending: false }, ..cut(index, name, &[]) }
}

fn plain(index: u32, name: &str) -> Gpu {
    Gpu { mig: MigMode::Unsupported, ..cut(index, name, &[]) }
}

fn node(gpus: Vec<Gpu>) -> NodeInventory {
    let driver = Driver { version: "580.159.04".to_owned(), nvml: String::new() };
    NodeInventory { driver, gpus, unreadable: Vec::new() }
}

/// What a driver tells of all of them: 40 GB GPUs of Ampere, and parts whose numbers can be told apart.
fn told(inventory: &NodeInventory) -> NodeDetails {
    let gpu = GpuDetails { memory_mib: Some(40_960), compute_capability: Some((8, 0)), pci_class: Some(COMPUTE) };
    let mut details = NodeDetails { cuda: Some((13, 0)), ..NodeDetails::default() };
    for known in &inventory.gpus {
        details.gpus.insert(known.uuid.clone(), gpu);
        for compute in known.instances.iter().flat_map(|instance| &instance.compute_instances) {
            let part = PartDetails {
                memory_mib: 4864,
                multiprocessors: 14,
                gpu_slices: compute.profile.slices().into(),
                compute_slices: compute.profile.compute_slices().into(),
                engines: Engines { copy: 1, decoder: 2, encoder: 3, jpeg: 4, ofa: 5 },
            };
            details.parts.insert((known.name.clone(), compute.profile.clone()), part);
        }
    }
    details
}

fn of(gpus: Vec<Gpu>, strategy: Strategy) -> Labels {
    let inventory = node(gpus);
    let labels = labels(&inventory, &told(&inventory), strategy);
    assert!(labels.values().all(|value| value.is_empty() || is_plain(value)), "{labels:?}");
    labels.into_iter().map(|(name, value)| (name.strip_prefix("nvidia.com/").unwrap().to_owned(), value)).collect()
}

#[track_caller]
fn expect(labels: &Labels, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(labels.get(*name).map(String::as_str), Some(*value), "{name} of {labels:#?}");
    }
}

/// Of the parts of one resource, by what follows its name.
fn parts<'l>(labels: &'l Labels, resource: &str) -> Vec<(&'l str, &'l str)> {
    let own = |(name, value): (&'l String, &'l String)| {
        Some((name.strip_prefix(resource)?.strip_prefix('.')?, value.as_str()))
    };
    // `mig-1g.5gb.me` is another's.
    labels.iter().filter_map(own).filter(|(name, _)| !name.starts_with("me.")).collect()
}

#[test]
fn a_node_without_gpus_has_no_labels() {
    assert_eq!(of(Vec::new(), Strategy::Mixed), Labels::new());
}

#[test]
fn a_whole_gpu_has_all_its_labels_and_no_others() {
    let labels = of(vec![whole(0, A100), whole(1, A100)], Strategy::None);
    let expected = [
        ("cuda.driver-version.full", "580.159.04"),
        ("cuda.driver-version.major", "580"),
        ("cuda.driver-version.minor", "159"),
        ("cuda.driver-version.revision", "04"),
        ("cuda.driver.major", "580"),
        ("cuda.driver.minor", "159"),
        ("cuda.driver.rev", "04"),
        ("cuda.runtime-version.full", "13.0"),
        ("cuda.runtime-version.major", "13"),
        ("cuda.runtime-version.minor", "0"),
        ("cuda.runtime.major", "13"),
        ("cuda.runtime.minor", "0"),
        ("gpu.compute.major", "8"),
        ("gpu.compute.minor", "0"),
        ("gpu.count", "2"),
        ("gpu.family", "ampere"),
        ("gpu.memory", "40960"),
        ("gpu.mode", "compute"),
        ("gpu.product", "NVIDIA-A100-SXM4-40GB"),
        ("gpu.replicas", "1"),
        ("gpu.sharing-strategy", "none"),
        ("mig.capable", "true"),
        ("mps.capable", "false"),
    ];
    let expected: Labels = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(labels, expected);
}

#[test]
fn mixed_describes_each_profile_beside_the_gpus() {
    let labels = of(
        vec![cut(0, A100, &["3g.20gb", "1g.5gb+me", "1g.5gb"]), cut(1, A100, &["1g.5gb", "1c.3g.20gb"])],
        Strategy::Mixed,
    );
    expect(&labels, &[("mig.strategy", "mixed"), ("gpu.count", "2"), ("gpu.product", "NVIDIA-A100-SXM4-40GB")]);
    expect(&labels, &[("gpu.replicas", "0"), ("gpu.memory", "40960")]);
    assert_eq!(
        parts(&labels, "mig-1g.5gb"),
        [
            ("count", "2"),
            ("engines.copy", "1"),
            ("engines.decoder", "2"),
            ("engines.encoder", "3"),
            ("engines.jpeg", "4"),
            ("engines.ofa", "5"),
            ("memory", "4864"),
            ("multiprocessors", "14"),
            ("product", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"),
            ("replicas", "1"),
            ("sharing-strategy", "none"),
            ("slices.ci", "1"),
            ("slices.gi", "1"),
        ]
    );
    expect(&labels, &[("mig-1g.5gb.me.count", "1"), ("mig-1g.5gb.me.product", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb.me")]);
    expect(&labels, &[("mig-1c.3g.20gb.slices.ci", "1"), ("mig-1c.3g.20gb.slices.gi", "3")]);
    expect(&labels, &[("mig-3g.20gb.count", "1"), ("mig-3g.20gb.slices.ci", "3")]);
}

#[test]
fn one_gpu_that_is_not_cut_can_be_shared() {
    let labels = of(vec![cut(0, A100, &["1g.5gb"]), whole(1, A100)], Strategy::Mixed);
    expect(&labels, &[("gpu.count", "2"), ("gpu.replicas", "1"), ("mig-1g.5gb.count", "1")]);
}

#[test]
fn single_describes_the_only_profile_in_the_gpus_place() {
    let labels = of(vec![cut(0, A100, &["1g.5gb", "1g.5gb"]), cut(1, A100, &["1g.5gb"])], Strategy::Single);
    expect(&labels, &[("mig.strategy", "single"), ("gpu.product", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb")]);
    expect(&labels, &[("gpu.count", "3"), ("gpu.replicas", "1"), ("gpu.memory", "4864"), ("gpu.family", "ampere")]);
    expect(&labels, &[("gpu.multiprocessors", "14"), ("gpu.slices.gi", "1"), ("gpu.engines.ofa", "5")]);
    assert!(!labels.keys().any(|name| name.starts_with("mig-")), "{labels:?}");
}

#[test]
fn single_says_so_where_a_node_does_not_fit() {
    for gpus in [
        vec![cut(0, A100, &["1g.5gb", "3g.20gb"])],
        vec![cut(0, A100, &["1g.5gb"]), whole(1, A100)],
        vec![cut(0, A100, &["1g.5gb"]), cut(1, A100, &[])],
        vec![plain(0, "Tesla T4"), cut(1, A100, &["1g.5gb"])],
    ] {
        let labels = of(gpus, Strategy::Single);
        expect(&labels, &[("gpu.product", "NVIDIA-A100-SXM4-40GB-MIG-INVALID"), ("mig.strategy", "single")]);
        expect(&labels, &[("gpu.count", "0"), ("gpu.replicas", "0"), ("gpu.memory", "0")]);
        assert_eq!(labels.get("gpu.slices.gi"), None);
    }
}

#[test]
fn single_without_a_gpu_that_is_cut_is_none() {
    let mut labels = of(vec![whole(0, A100)], Strategy::Single);
    assert_eq!(labels.remove("mig.strategy").as_deref(), Some("single"));
    assert_eq!(labels, of(vec![whole(0, A100)], Strategy::None));
}

#[test]
fn of_several_products_the_first_that_is_not_cut_is_labelled() {
    let gpus = vec![cut(0, A100, &["1g.5gb"]), plain(1, "Tesla T4"), plain(2, "Tesla T4")];
    let labels = of(gpus, Strategy::Mixed);
    expect(&labels, &[("gpu.product", "Tesla-T4"), ("gpu.count", "2"), ("mig.capable", "true")]);
    expect(&labels, &[("mig-1g.5gb.product", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb")]);
    expect(&of(vec![plain(0, "Tesla T4")], Strategy::Mixed), &[("mig.capable", "false")]);
}

#[test]
fn what_the_driver_keeps_to_itself_is_left_out() {
    let inventory = NodeInventory { driver: Driver::default(), ..node(vec![cut(0, A100, &["2g.10gb"])]) };
    let labels = |strategy| labels(&inventory, &NodeDetails::default(), strategy);
    for strategy in [Strategy::Single, Strategy::Mixed] {
        let labels = labels(strategy);
        for absent in ["cuda.", "memory", "family", "compute.", "engines", "multiprocessors", "gpu.mode"] {
            assert!(!labels.keys().any(|name| name.contains(absent)), "{absent}: {labels:?}");
        }
    }
    assert_eq!(labels(Strategy::Single)["nvidia.com/gpu.slices.gi"], "2");
    assert_eq!(labels(Strategy::Mixed)["nvidia.com/mig-2g.10gb.slices.ci"], "2");
}

/// With MIG on, memory is told only to those who may look; a GPU like it that is not cut gives it away.
#[test]
fn memory_is_that_of_any_gpu_like_it() {
    let inventory = node(vec![cut(0, A100, &["1g.5gb"]), whole(1, A100)]);
    let mut details = told(&inventory);
    details.gpus.values_mut().next().unwrap().memory_mib = None;
    assert_eq!(labels(&inventory, &details, Strategy::Mixed)["nvidia.com/gpu.memory"], "40960");
    details.gpus.values_mut().for_each(|gpu| gpu.memory_mib = None);
    assert_eq!(labels(&inventory, &details, Strategy::Mixed).get("nvidia.com/gpu.memory"), None);
}

#[test]
fn a_fault_changes_no_label() {
    let fault = crate::Fault { kind: "GpuIsLost", message: "GPU is lost".to_owned() };
    let bad = Gpu { fault: Some(fault), ..cut(0, A100, &["1g.5gb"]) };
    let healthy = cut(0, A100, &["1g.5gb"]);
    assert_eq!(of(vec![bad], Strategy::Mixed), of(vec![healthy], Strategy::Mixed));
}

#[test]
fn versions_are_taken_apart_as_nvidia_does() {
    let of = |version: &str| {
        let mut inventory = node(vec![whole(0, A100)]);
        version.clone_into(&mut inventory.driver.version);
        labels(&inventory, &NodeDetails::default(), Strategy::None)
    };
    let two = of("470.82");
    assert_eq!(two["nvidia.com/cuda.driver-version.minor"], "82");
    assert_eq!(two["nvidia.com/cuda.driver-version.revision"], "");
    assert_eq!(of("535.129.03")["nvidia.com/cuda.driver.rev"], "03");
    for odd in ["", "580", "1.2.3.4", "580.1.\u{fffd}"] {
        assert!(!of(odd).contains_key("nvidia.com/cuda.driver-version.full"), "{odd}");
    }
}

#[test]
fn any_products_name_becomes_a_value() {
    for (name, rest, value) in [
        ("NVIDIA H100 80GB HBM3", "", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA  RTX (TM)\tA6000 ", "", "NVIDIA-RTX-TMA6000"),
        ("GRID A100X-4-40C", "-MIG-1g.5gb", "GRID-A100X-4-40C-MIG-1g.5gb"),
        (
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "-MIG-1g.24gb.me.all",
            "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition-MIG-1g.24gb.me.all",
        ),
        (
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
            "-MIG-1g.24gb",
            "NVIDIA-RTX-PRO-6000-Blackwell-Max-Q-Workstation-Edi-MIG-1g.24gb",
        ),
        ("\u{e9}\u{fffd}", "-MIG-1g.5gb", "MIG-1g.5gb"),
        ("-_.", "", ""),
    ] {
        assert_eq!(product(name, rest), value);
        assert!(value.is_empty() || is_plain(value), "{value}");
    }
}

#[test]
fn families_are_nvidias() {
    for (capability, name) in [
        ((7, 0), "volta"),
        ((7, 5), "turing"),
        ((8, 0), "ampere"),
        ((8, 6), "ampere"),
        ((8, 9), "ada-lovelace"),
        ((9, 0), "hopper"),
        ((10, 3), "blackwell"),
        ((12, 0), "blackwell"),
        ((11, 0), "undefined"),
        ((99, 9), "undefined"),
    ] {
        assert_eq!(family(capability.0, capability.1), name);
    }
}

#[test]
fn what_is_shared_says_so() {
    use crate::sharing::{SharedDevices, SharedResource, TimeSlicing};
    let inventory = node(vec![cut(0, A100, &["1g.5gb"])]);
    let name = ResourceName::parse("mig-1g.5gb", &ResourceDomain::default()).unwrap();
    let shared = SharedResource { name, replicas: 4, rename: None, devices: SharedDevices::All };
    let time_slicing = TimeSlicing { resources: vec![shared], ..TimeSlicing::default() };
    let terms = Terms { time_slicing, ..Terms::default() };
    let told = super::labels(&inventory, &NodeDetails::default(), &terms);
    assert_eq!(told["nvidia.com/mig-1g.5gb.replicas"], "4");
    assert_eq!(told["nvidia.com/mig-1g.5gb.sharing-strategy"], "time-slicing");
    assert!(told["nvidia.com/mig-1g.5gb.product"].ends_with("-MIG-1g.5gb-SHARED"), "{told:?}");
    let terms = Terms { time_slicing: TimeSlicing { rename_by_default: true, ..terms.time_slicing }, ..terms };
    let told = super::labels(&inventory, &NodeDetails::default(), &terms);
    assert!(told["nvidia.com/mig-1g.5gb.product"].ends_with("-MIG-1g.5gb"), "the name says it: {told:?}");
}
