use proptest::prelude::*;

use super::*;
use crate::strategy::{Address, MigAddress};

fn name(text: &str) -> ResourceName {
    ResourceName::parse(text, &ResourceDomain::default()).unwrap()
}

/// Slices of two GPUs, all of one resource.
fn slices(count: u32) -> BTreeMap<ResourceName, Vec<Device>> {
    let slice = |n: u32| Device {
        id: format!("MIG-{n}"),
        uuid: format!("MIG-{n}"),
        gpu: format!("GPU-{}", n % 2),
        address: Address {
            gpu_index: n % 2,
            gpu_minor: None,
            mig: Some(MigAddress { index: Some(n / 2), gpu_instance: n, compute_instance: 0 }),
        },
        ..Device::default()
    };
    BTreeMap::from([(name("mig-1g.5gb"), (0..count).map(slice).collect())])
}

fn shared(replicas: u32, devices: SharedDevices) -> TimeSlicing {
    let resource = SharedResource { name: name("mig-1g.5gb"), replicas, rename: None, devices };
    TimeSlicing { resources: vec![resource], ..TimeSlicing::default() }
}

fn ids(offered: &BTreeMap<ResourceName, Vec<Device>>, resource: &str) -> Vec<String> {
    offered.get(&name(resource)).into_iter().flatten().map(|device| device.id.clone()).collect()
}

#[test]
fn each_replica_has_an_id_of_its_own_and_the_uuid_of_the_slice() {
    let offered = shared(2, SharedDevices::All).share(slices(2));
    assert_eq!(ids(&offered, "mig-1g.5gb"), ["MIG-0::0", "MIG-0::1", "MIG-1::0", "MIG-1::1"]);
    let devices = &offered[&name("mig-1g.5gb")];
    assert!(devices.iter().all(|device| uuid_of(&device.id) == device.uuid && device.replica.is_some()));
    assert_eq!(uuid_of("MIG-GPU-a/1/0"), "MIG-GPU-a/1/0");
}

#[test]
fn what_is_shared_is_renamed_as_told() {
    let by_default = TimeSlicing { rename_by_default: true, ..shared(2, SharedDevices::All) };
    assert_eq!(ids(&by_default.share(slices(1)), "mig-1g.5gb.shared"), ["MIG-0::0", "MIG-0::1"]);
    let mut renamed = by_default;
    renamed.resources[0].rename = Some(name("small"));
    let offered = renamed.share(slices(1));
    assert_eq!(offered.keys().map(ToString::to_string).collect::<Vec<_>>(), ["nvidia.com/small"]);
}

#[test]
fn only_the_devices_that_are_named_are_shared() {
    let rename = |devices| TimeSlicing { rename_by_default: true, ..shared(2, devices) }.share(slices(4));
    let whole = |devices| ids(&rename(devices), "mig-1g.5gb");
    assert_eq!(whole(SharedDevices::Count(3)), ["MIG-3"]);
    assert_eq!(whole(SharedDevices::Count(9)), Vec::<String>::new());
    let list = |texts: &[&str]| SharedDevices::List(texts.iter().map(|text| text.parse().unwrap()).collect());
    assert_eq!(whole(list(&["0"])), ["MIG-1", "MIG-3"], "a GPU stands for its slices");
    assert_eq!(whole(list(&["GPU-1", "MIG-0"])), ["MIG-2"]);
    assert_eq!(whole(list(&["1:1"])), ["MIG-0", "MIG-1", "MIG-2"]);
    assert_eq!(whole(list(&["MIG-GPU-1/3/0", "MIG-GPU-0/3/0", "MIG-GPU-1/1/1"])), ["MIG-0", "MIG-1", "MIG-2"]);
    for bad in ["", "0:", ":1", "a", "-1", "0:1:2", "MIG-GPU-1/3", "MIG-GPU-1/a/0", "MIG-1/3/0", "MIG-GPU-1/1/0/0"] {
        assert!(bad.parse::<DeviceReference>().is_err(), "{bad:?}");
    }
}

#[test]
fn what_names_nothing_is_told() {
    let unmatched = |devices, resource: &str| {
        let mut time_slicing = TimeSlicing { rename_by_default: true, ..shared(2, devices) };
        time_slicing.resources[0].name = name(resource);
        let terms = Terms { time_slicing, ..Terms::default() };
        terms.unmatched(&terms.time_slicing.share(slices(4)))
    };
    let list = |texts: &[&str]| SharedDevices::List(texts.iter().map(|text| text.parse().unwrap()).collect());
    assert!(
        unmatched(SharedDevices::All, "mig-1g.5gb").is_empty()
            && unmatched(list(&["0", "1:1"]), "mig-1g.5gb").is_empty()
    );
    assert_eq!(unmatched(SharedDevices::All, "mig-1g.10gb"), ["nvidia.com/mig-1g.10gb"]);
    let strange = ["1", "2", "0:7", "MIG-9", "MIG-GPU-1/9/0"];
    let expected = strange[1..].iter().map(|text| format!("{text} of nvidia.com/mig-1g.5gb"));
    assert_eq!(unmatched(list(&strange), "mig-1g.5gb"), expected.collect::<Vec<_>>());
}

#[test]
fn of_two_that_name_a_device_the_first_counts() {
    let mut terms = shared(2, SharedDevices::Count(1));
    terms.resources.extend(shared(3, SharedDevices::All).resources);
    assert_eq!(
        ids(&terms.share(slices(2)), "mig-1g.5gb"),
        ["MIG-0::0", "MIG-0::1", "MIG-1::0", "MIG-1::1", "MIG-1::2"]
    );
}

#[test]
fn a_pattern_is_for_the_whole_name() {
    let matches =
        |pattern: &str, text: &str| NamePattern { pattern: pattern.to_owned(), name: name("x") }.matches(text);
    for (pattern, text) in [
        ("*", ""),
        ("*", "1g.5gb"),
        ("1g.*", "1g.5gb"),
        ("*gb", "1g.5gb"),
        ("1*5*b", "1g.5gb"),
        ("1g.5gb", "1g.5gb"),
        ("**", "a"),
    ] {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    // NVIDIA/k8s-device-plugin#1807: a pattern that is a part of a name is not a pattern of it.
    for (pattern, text) in
        [("1g.24gb", "1g.24gb-me"), ("g.5gb", "1g.5gb"), ("", "a"), ("1g*1g", "1g"), ("1.*", "1g.5gb"), ("a*b*b", "ab")]
    {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn sharing_loses_no_device_and_makes_no_id_twice(count in 0_u32..20, replicas in 2_u32..9, first in 0_usize..25, renames: bool) {
        let terms = TimeSlicing { rename_by_default: renames, ..shared(replicas, SharedDevices::Count(first)) };
        let offered = terms.share(slices(count));
        let all: Vec<&Device> = offered.values().flatten().collect();
        let uuids: std::collections::BTreeSet<_> = all.iter().map(|device| &device.uuid).collect();
        let unique: std::collections::BTreeSet<_> = all.iter().map(|device| &device.id).collect();
        prop_assert_eq!(uuids.len(), usize::try_from(count).unwrap());
        prop_assert_eq!(unique.len(), all.len());
        let split = first.min(usize::try_from(count).unwrap());
        prop_assert_eq!(all.len(), usize::try_from(count).unwrap() - split + split * usize::try_from(replicas).unwrap());
    }
}
