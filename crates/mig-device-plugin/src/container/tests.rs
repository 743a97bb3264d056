use mig_model::{Address, Device, MigAddress, ResourceDomain};

use super::gift::Gift;
use super::*;

fn offered(id: &str, profile: Option<&str>, settings: &ContainerSettings) -> Offered {
    let mig = profile.map(|_| MigAddress { index: Some(4), gpu_instance: 1, compute_instance: 0 });
    let device = Device {
        id: id.to_owned(),
        uuid: mig_model::uuid_of(id).to_owned(),
        gpu: "GPU-0".to_owned(),
        profile: profile.map(|text| text.parse().unwrap()),
        address: Address { gpu_index: 2, gpu_minor: Some(2), mig },
        ..Device::default()
    };
    let node = |name: &str| DeviceSpec {
        container_path: format!("/dev/{name}"),
        host_path: format!("/run/nvidia/driver/dev/{name}"),
        permissions: "rw".to_owned(),
    };
    let nodes = vec![node("nvidiactl"), node("nvidia2"), node(&format!("nvidia-caps/{id}"))];
    Offered { gift: Gift::new(&device, settings.id_strategy, nodes), device }
}

fn settings(strategies: &str) -> ContainerSettings {
    let list_strategies = strategies.split(',').map(|word| word.parse().unwrap()).collect();
    ContainerSettings { list_strategies, ..ContainerSettings::default() }
}

fn answer(settings: &ContainerSettings, ids: &[&str], profile: Option<&str>) -> ContainerAllocateResponse {
    let domain = ResourceDomain::default();
    let usual = profile.map(|text| ResourceName::mig(&domain, &text.parse().unwrap()));
    answer_of(&usual.unwrap_or_else(|| ResourceName::gpu(&domain)), settings, ids, profile)
}

fn answer_of(
    resource: &ResourceName,
    settings: &ContainerSettings,
    ids: &[&str],
    profile: Option<&str>,
) -> ContainerAllocateResponse {
    let all: Vec<Offered> = ids.iter().map(|id| offered(id, profile, settings)).collect();
    settings.answer(resource, &all.iter().collect::<Vec<_>>())
}

fn variables(answer: &ContainerAllocateResponse) -> Vec<String> {
    let mut lines: Vec<String> = answer.envs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.sort();
    lines
}

fn cdi_names(answer: &ContainerAllocateResponse) -> Vec<&str> {
    answer.cdi_devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn each_variable_names_the_devices() {
    let answer = answer(&settings("envvar"), &["MIG-a", "MIG-b"], Some("1g.10gb+me"));
    let expected = ["CUDA_VISIBLE_DEVICES", "MIG_DEVICES_1G_10GB_ME", "NVIDIA_VISIBLE_DEVICES"];
    assert_eq!(variables(&answer), expected.map(|name| format!("{name}=MIG-a,MIG-b")));
    let ContainerAllocateResponse { envs: _, mounts, devices, annotations, cdi_devices } = answer;
    assert!(mounts.is_empty() && devices.is_empty() && annotations.is_empty() && cdi_devices.is_empty());
}

#[test]
fn a_whole_gpu_is_no_mig_device() {
    let settings =
        ContainerSettings { visible_devices_env: vec!["CUDA_VISIBLE_DEVICES".into()], ..ContainerSettings::default() };
    assert_eq!(variables(&answer(&settings, &["GPU-0"], None)), ["CUDA_VISIBLE_DEVICES=GPU-0"]);
}

#[test]
fn mounts_name_devices_and_the_variable_says_so() {
    for strategies in ["volume-mounts", "envvar,volume-mounts"] {
        let answer = answer(&settings(strategies), &["MIG-a", "MIG-b"], Some("1g.5gb"));
        let lines = variables(&answer);
        assert!(lines.contains(&"NVIDIA_VISIBLE_DEVICES=/var/run/nvidia-container-devices".to_owned()), "{lines:?}");
        assert!(lines.contains(&"CUDA_VISIBLE_DEVICES=MIG-a,MIG-b".to_owned()), "{lines:?}");
        let mounts: Vec<_> = answer.mounts.iter().map(|m| (m.container_path.as_str(), m.host_path.as_str())).collect();
        let path = ["/var/run/nvidia-container-devices/MIG-a", "/var/run/nvidia-container-devices/MIG-b"];
        assert_eq!(mounts, path.map(|path| (path, "/dev/null")));
    }
}

#[test]
fn with_cdi_alone_nvidias_runtime_is_told_nothing() {
    let answer = answer(&settings("cdi-cri"), &["MIG-a", "MIG-b"], Some("1g.5gb"));
    assert_eq!(variables(&answer), ["CUDA_VISIBLE_DEVICES=MIG-a,MIG-b", "MIG_DEVICES_1G_5GB=MIG-a,MIG-b"]);
    assert_eq!(cdi_names(&answer), ["mig-agent/gpu=MIG-a", "mig-agent/gpu=MIG-b"]);
    assert!(answer.annotations.is_empty());
}

#[test]
fn an_annotation_names_all_devices_under_a_key_of_its_own() {
    let settings =
        ContainerSettings { cdi_annotation_prefix: "example.com/".to_owned(), ..settings("cdi-annotations") };
    let answer = answer(&settings, &["MIG-a", "MIG-b"], Some("1g.5gb"));
    let annotations: Vec<_> = answer.annotations.into_iter().collect();
    let value = "mig-agent/gpu=MIG-a,mig-agent/gpu=MIG-b";
    assert_eq!(annotations, [("example.com/mig-agent_MIG-a".to_owned(), value.to_owned())]);
    assert!(answer.cdi_devices.is_empty());
    let old = "MIG-GPU-b8ea3855-276c-c9cb-b366-c6fa655957c5/11/0";
    let key = settings.annotation(old);
    assert!(key.ends_with("655957c5_11_0") && key.trim_start_matches("example.com/").len() <= 63, "{key}");
    assert!(settings.annotation(&"a".repeat(63)).len() <= 63 + "example.com/".len());
}

#[test]
fn all_ways_go_together() {
    let settings =
        ContainerSettings { pass_device_specs: true, ..settings("envvar,volume-mounts,cdi-annotations,cdi-cri") };
    let answer = answer(&settings, &["MIG-a"], Some("1g.5gb"));
    assert_eq!((answer.mounts.len(), answer.annotations.len(), answer.devices.len()), (1, 1, 3));
    assert_eq!(cdi_names(&answer), ["mig-agent/gpu=MIG-a"]);
}

#[test]
fn indices_are_for_nvidias_runtime_alone() {
    let settings = ContainerSettings { id_strategy: DeviceIdStrategy::Index, ..settings("envvar,cdi-cri") };
    let envvar = answer(&settings, &["MIG-a"], Some("1g.5gb"));
    let expected = ["CUDA_VISIBLE_DEVICES=MIG-a", "MIG_DEVICES_1G_5GB=MIG-a", "NVIDIA_VISIBLE_DEVICES=2:4"];
    assert_eq!(variables(&envvar), expected);
    assert_eq!(cdi_names(&envvar), ["mig-agent/gpu=MIG-a"]);
    let settings = ContainerSettings { list_strategies: vec![DeviceListStrategy::VolumeMounts], ..settings };
    let mounts = answer(&settings, &["MIG-a"], Some("1g.5gb")).mounts;
    assert_eq!(mounts[0].container_path, "/var/run/nvidia-container-devices/2:4");
}

#[test]
fn nodes_are_passed_once_each_and_not_beside_cdi_alone() {
    let passing = |strategies| ContainerSettings { pass_device_specs: true, ..settings(strategies) };
    let devices = answer(&passing("envvar"), &["MIG-a", "MIG-b"], Some("1g.5gb")).devices;
    let paths: Vec<&str> = devices.iter().map(|device| device.container_path.as_str()).collect();
    assert_eq!(paths, ["/dev/nvidiactl", "/dev/nvidia2", "/dev/nvidia-caps/MIG-a", "/dev/nvidia-caps/MIG-b"]);
    assert_eq!(devices[0].host_path, "/run/nvidia/driver/dev/nvidiactl");
    assert!(answer(&passing("cdi-cri"), &["MIG-a"], Some("1g.5gb")).devices.is_empty());
    assert!(answer(&settings("envvar"), &["MIG-a"], Some("1g.5gb")).devices.is_empty());
}

/// NVIDIA/k8s-device-plugin#728.
#[test]
fn two_profiles_collide_in_plain_variables_only() {
    let settings = ContainerSettings {
        pass_device_specs: true,
        visible_devices_env: vec![],
        ..settings("volume-mounts,cdi-annotations,cdi-cri")
    };
    let (one, two) = (answer(&settings, &["MIG-a"], Some("1g.5gb")), answer(&settings, &["MIG-b"], Some("3g.20gb")));
    let same = |name: &String| one.envs[name] == two.envs[name];
    assert!(one.envs.keys().filter(|name| two.envs.contains_key(*name)).all(same));
    assert!(one.annotations.keys().all(|key| !two.annotations.contains_key(key)));
    assert!(one.mounts.iter().all(|mount| !two.mounts.contains(mount)));
    assert_eq!((cdi_names(&one), cdi_names(&two)), (vec!["mig-agent/gpu=MIG-a"], vec!["mig-agent/gpu=MIG-b"]));
    let last = |answer: &ContainerAllocateResponse| answer.devices.last().unwrap().container_path.clone();
    assert_eq!((last(&one).as_str(), last(&two).as_str()), ("/dev/nvidia-caps/MIG-a", "/dev/nvidia-caps/MIG-b"));
    assert!(settings.reaches_all());
    assert!(ContainerSettings { pass_device_specs: true, ..ContainerSettings::default() }.reaches_all());
    assert!(!ContainerSettings::default().reaches_all());
}

/// One container may have slices of a profile as two resources: shared, and not, or under a name of the configuration.
#[test]
fn two_resources_of_a_profile_have_a_variable_each() {
    let own = |resource: &str, profile: &str| {
        let resource = ResourceName::parse(resource, &ResourceDomain::default()).unwrap();
        let answer = answer_of(&resource, &settings("envvar"), &["MIG-a", "MIG-b"], Some(profile));
        let ours = answer.envs.into_iter().filter(|(name, _)| name.starts_with("MIG_DEVICES_"));
        ours.map(|(name, value)| {
            assert_eq!(value, "MIG-a,MIG-b");
            name
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    };
    assert_eq!(own("mig-1g.5gb", "1g.5gb"), ["MIG_DEVICES_1G_5GB"]);
    assert_eq!(own("mig-1g.5gb.shared", "1g.5gb"), ["MIG_DEVICES_1G_5GB", "MIG_DEVICES_1G_5GB_SHARED"]);
    assert_eq!(own("mig-1g.24gb-me.shared", "1g.24gb-me").last().unwrap(), "MIG_DEVICES_1G_24GB_NO_ME_SHARED");
    assert_eq!(own("large-one", "3g.20gb"), ["MIG_DEVICES_3G_20GB", "MIG_DEVICES_LARGE_ONE"]);
    assert_eq!(own("3g-20gb", "3g.20gb"), ["MIG_DEVICES_3G_20GB"]);
    assert_eq!(own("gpu", "3g.20gb"), ["MIG_DEVICES_3G_20GB"]);
    assert_eq!(own("gpu.shared", "3g.20gb"), ["MIG_DEVICES_3G_20GB"]);
}

#[test]
fn two_replicas_of_a_slice_are_one_slice() {
    let settings =
        ContainerSettings { pass_device_specs: true, ..settings("envvar,volume-mounts,cdi-annotations,cdi-cri") };
    let answer = answer(&settings, &["MIG-a::0", "MIG-a::1"], Some("1g.5gb"));
    assert_eq!(answer.envs["CUDA_VISIBLE_DEVICES"], "MIG-a");
    assert_eq!(answer.envs["MIG_DEVICES_1G_5GB"], "MIG-a");
    assert_eq!((answer.mounts.len(), cdi_names(&answer)), (1, vec!["mig-agent/gpu=MIG-a"]));
    assert_eq!(answer.mounts[0].container_path, "/var/run/nvidia-container-devices/MIG-a");
    let keys: Vec<_> = answer.annotations.into_iter().collect();
    assert_eq!(keys, [("cdi.k8s.io/mig-agent_MIG-a.0".to_owned(), "mig-agent/gpu=MIG-a".to_owned())]);
}
