//! Reading the file: what it says, what of it has no effect here, and what is refused.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::schema::{File, Flags};

/// A ConfigMap has at most as much.
const LONGEST: u64 = 1 << 20;

/// The file's text, or why there is none, in one line.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    // What is no plain file may never end, or never begin.
    let metadata = fs::metadata(path).map_err(|error| format!("unable to read it: {error}"))?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if metadata.len() > LONGEST {
        return Err(format!("it is longer than {} kB, which no such file is", LONGEST >> 10));
    }
    let mut text = String::new();
    let opened = fs::File::open(path).map_err(|error| format!("unable to read it: {error}"))?;
    opened.take(LONGEST).read_to_string(&mut text).map_err(|error| format!("unable to read it: {error}"))?;
    Ok(text)
}

/// What the file says, or why it cannot be used, in one line.
pub(super) fn parse(text: &str) -> Result<File, String> {
    if text.trim().is_empty() {
        return Err("it is empty: expected at least version: v1".to_owned());
    }
    let file: File = mig_model::parse_yaml(text)?;
    refuse(&file)?;
    Ok(file)
}

/// What cannot be left out without giving containers something else than they ask for.
fn refuse(file: &File) -> Result<(), String> {
    if file.sharing.as_ref().is_some_and(|sharing| sharing.mps.is_some()) {
        return Err(
            "sharing.mps: there is no MPS here; share slices in time (sharing.timeSlicing), or cut smaller ones"
                .to_owned(),
        );
    }
    if file.imex.as_ref().is_some_and(|imex| imex.required) {
        return Err("imex.required: there are no IMEX channels here; use NVIDIA's plugin for them".to_owned());
    }
    let plugin = file.flags.plugin.as_ref();
    match file.flags.device_discovery_strategy.as_deref() {
        None | Some("" | "auto" | "nvml") => {}
        Some(other) => {
            return Err(format!("flags.deviceDiscoveryStrategy: {other} is not here, expected auto or nvml"));
        }
    }
    match plugin.and_then(|plugin| plugin.shared_devices_allocation_policy.as_deref()) {
        None | Some("" | "distributed" | "packed") => {}
        Some(other) => {
            return Err(format!("flags.plugin.sharedDevicesAllocationPolicy: {other}, expected distributed or packed"));
        }
    }
    Ok(())
}

/// Keys that are set to something and do nothing here.
pub(crate) fn without_effect(file: &File) -> Vec<&'static str> {
    let Flags { plugin, gfd, .. } = &file.flags;
    let flags = &file.flags;
    let plugin = plugin.clone().unwrap_or_default();
    let on = |flag: Option<bool>| flag == Some(true);
    let all = [
        ("flags.failOnInitError", on(flags.fail_on_init_error)),
        ("flags.restartOnDeviceUnhealthy", on(flags.restart_on_device_unhealthy)),
        ("flags.useNodeFeatureAPI", on(flags.use_node_feature_api)),
        ("flags.mpsRoot", flags.mps_root.as_ref().is_some_and(|root| !root.is_empty())),
        ("flags.gfd", gfd.is_some()),
        ("flags.nvidiaDriverRoot", flags.nvidia_driver_root.as_ref().is_some_and(|root| root != "/")),
        ("flags.nvidiaDevRoot", flags.nvidia_dev_root.is_some()),
        ("flags.plugin.containerDriverRoot", plugin.container_driver_root.is_some()),
        ("flags.plugin.nvidiaCTKPath", plugin.nvidia_ctk_path.is_some()),
        ("flags.plugin.nvidiaCDIHookPath", plugin.nvidia_cdi_hook_path.is_some()),
        ("flags.plugin.cdiFeatureFlags", plugin.cdi_feature_flags.is_some()),
        ("imex.channelIDs", file.imex.as_ref().is_some_and(|imex| !imex.channel_ids.is_empty())),
    ];
    all.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the documentation of NVIDIA's plugin has it, every key.
    const NVIDIAS: &str = r#"
version: v1
flags:
  migStrategy: mixed
  failOnInitError: true
  nvidiaDriverRoot: /
  gdsEnabled: false
  useNodeFeatureAPI: false
  deviceDiscoveryStrategy: auto
  plugin:
    passDeviceSpecs: false
    deviceListStrategy: [envvar, cdi-cri]
    deviceIDStrategy: uuid
    cdiAnnotationPrefix: cdi.k8s.io/
    nvidiaCTKPath: /usr/bin/nvidia-ctk
    containerDriverRoot: /driver-root
  gfd: {oneshot: false, noTimestamp: false, sleepInterval: 60s, outputFile: /etc/x, machineTypeFile: /y}
resources:
  gpus: [{pattern: "*", name: nvidia.com/gpu}]
  mig: [{pattern: "1g.5gb", name: small}]
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
      - {name: nvidia.com/gpu, replicas: 4}
      - {name: nvidia.com/mig-1g.5gb, replicas: 2, rename: nvidia.com/tiny, devices: [0, "0:1", GPU-a]}
      - {name: mig-2g.10gb, replicas: 2, devices: 3}
imex: {channelIDs: [], required: false}
"#;

    #[test]
    fn nvidias_file_is_read_as_it_is() {
        let file = parse(NVIDIAS).unwrap();
        assert_eq!(without_effect(&file).len(), 4, "{:?}", without_effect(&file));
        let said = file.sharing.unwrap().time_slicing.unwrap();
        let read = said.read(&mig_model::ResourceDomain::default()).unwrap();
        assert!(read.rename_by_default && read.fail_requests_greater_than_one && read.resources.len() == 3);
        let json = r#"{"version": "v1", "flags": {"plugin": {"deviceListStrategy": "envvar,volume-mounts"}}}"#;
        let strategies = parse(json).unwrap().flags.plugin.unwrap().device_list_strategy.unwrap().0;
        assert_eq!(strategies.len(), 2);
        assert!(parse("flags: {}").is_ok(), "theirs takes a file without a version");
    }

    /// Templates leave them so, and Go's parsers take them for keys that are not there.
    #[test]
    fn a_key_without_a_value_is_one_that_is_not_there() {
        for text in [
            "version:\nflags:\nresources:\nsharing:\nimex:\nhealth:\n",
            "flags: {migStrategy: , gdsEnabled: , plugin: , gfd: }",
            "flags: {plugin: {deviceListStrategy: , deviceIDStrategy: , passDeviceSpecs: , cdiAnnotationPrefix: }}",
            "resources: {gpus: , mig: }",
            "sharing: {timeSlicing: , mps: }",
            "sharing: {timeSlicing: {renameByDefault: , failRequestsGreaterThanOne: , resources: [{name: gpu, replicas: 2, rename: , devices: }]}}",
            "imex: {channelIDs: , required: }",
        ] {
            let file = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(without_effect(&file).is_empty(), "{text}");
        }
        let none = parse("sharing: {timeSlicing: {resources: }}").unwrap().sharing.unwrap().time_slicing.unwrap();
        assert!(none.read(&mig_model::ResourceDomain::default()).unwrap_err().contains("no resources specified"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let deep = "[".repeat(5000);
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nversion: v1\n";
        for (text, words) in [
            ("", "empty"),
            ("version: v2", "line 1: unknown version: v2"),
            ("version: v1\nflags:\n  migStrategi: mixed\n", "line 3: "),
            ("version: v1\nflags:\n  migStrategy: both\n", "line 3: \"both\""),
            ("version: v1\nflags:\n  plugin:\n    deviceListStrategy: []\n", "line 4: an empty list"),
            ("version: v1\nsharing:\n  mps: {resources: []}\n", "no MPS here"),
            ("imex: {required: true}", "IMEX"),
            ("flags: {deviceDiscoveryStrategy: tegra}", "tegra"),
            ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: -1}]}}", "line 1: "),
            ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, devices: some}]}}", "line 1: "),
            ("- a", "line 1: "),
            ("\u{0}\u{1}", "line 1: "),
            (bomb, "line"),
            (&deep, ""),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && error.lines().count() == 1 && error.len() < 600, "{text:.40}: {error}");
        }
    }

    #[test]
    fn numbers_of_shares_are_checked() {
        for replicas in [0, 1, 513, u32::MAX] {
            let file =
                parse(&format!("sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: {replicas}}}]}}}}"));
            let said = file.unwrap().sharing.unwrap().time_slicing.unwrap();
            let error = said.read(&mig_model::ResourceDomain::default()).unwrap_err();
            assert!(error.contains("2 to 512"), "{error}");
        }
    }
}
