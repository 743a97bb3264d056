//! What each call answers when there is something wrong, as measured on a real driver or stated in its header.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::process::Stdio;

use common::{Client, Machine, library, scene};

const GPU_0: &str = "nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu";

fn opened(name: &str) -> (Machine, Client) {
    let machine = Machine::of(name);
    let mut client = machine.client();
    assert_eq!(client.call("nvmlInit_v2"), "0");
    assert_eq!(client.call(GPU_0), "0");
    (machine, client)
}

fn expect(client: &mut Client, cases: &[(&str, &str)]) {
    for (line, answer) in cases {
        assert_eq!(client.call(line), *answer, "{line}");
    }
}

#[test]
fn every_symbol_of_the_driver_is_exported() {
    let symbols = include_str!("../symbols-580.txt");
    assert_eq!(symbols.split_whitespace().count(), 404);
    let machine = Machine::of("demo");
    let mut client = machine.client();
    // Before nvmlInit each of them must say so, which also shows that none follows a pointer first.
    for name in
        symbols.split_whitespace().filter(|name| !matches!(*name, "nvmlErrorString") && !name.starts_with("nvmlInit"))
    {
        assert_eq!(client.call(&format!("{name} null null null null null")), "1", "{name}");
    }
    // After it, none may fall over for NULLs.
    assert_eq!(client.call("nvmlInit"), "0");
    for name in symbols.split_whitespace().filter(|name| !matches!(*name, "nvmlErrorString" | "nvmlShutdown")) {
        let answer = client.call(&format!("{name} null null null null null"));
        assert!(matches!(answer.as_str(), "0" | "2" | "3"), "{name}: {answer}");
    }
}

#[test]
fn a_gpu_with_mig_off_answers_as_measured() {
    let (_machine, mut client) = opened("h200-idle");
    expect(
        &mut client,
        &[
            ("nvmlSystemGetDriverVersion t u:80", "0 580.159.04"),
            ("nvmlSystemGetNVMLVersion t u:80", "0 13.580.159.04"),
            ("nvmlSystemGetCudaDriverVersion_v2 o", "0 13000"),
            ("nvmlDeviceGetName h:gpu t u:96", "0 NVIDIA H200"),
            ("nvmlDeviceGetUUID h:gpu t u:96", "0 GPU-00000000-1111-2222-3333-444444444444"),
            ("nvmlDeviceGetMigMode h:gpu o o", "0 0 0"),
            ("nvmlDeviceGetMaxMigDeviceCount h:gpu o", "0 0"),
            ("nvmlDeviceGetArchitecture h:gpu o", "0 9"),
            ("nvmlDeviceGetBrand h:gpu o", "0 14"),
            ("nvmlDeviceGetBoardId h:gpu o", "0 6"),
            ("nvmlDeviceGetNumGpuCores h:gpu o", "0 16896"),
            ("nvmlDeviceGetSupportedEventTypes h:gpu l", "0 65439"),
            ("nvmlDeviceGetNumaNodeId h:gpu o", "3 0"),
            ("nvmlDeviceGetAttributes_v2 h:gpu b", "3"),
            ("nvmlDeviceGetGpuInstanceId h:gpu o", "2 0"),
            ("nvmlDeviceGetComputeInstanceId h:gpu o", "2 0"),
            ("nvmlDeviceIsMigDeviceHandle h:gpu o", "0 0"),
            ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:none", "6"),
            ("nvmlDeviceGetDeviceHandleFromMigDeviceHandle h:gpu oh:none", "2"),
            ("nvmlDeviceGetGpuInstanceById h:gpu u:0 oh:none", "6"),
            ("nvmlDeviceGetHandleByUUID s:GPU-00000000-0000-0000-0000-000000000000 oh:none", "6"),
            ("nvmlDeviceGetHandleByUUID s:MIG-00000000-0000-0000-0000-000000000000 oh:none", "6"),
            ("nvmlDeviceGetHandleByUUID s:nonsense oh:none", "6"),
            ("nvmlDeviceGetHandleByUUID s: oh:none", "6"),
            ("nvmlDeviceGetHandleByIndex_v2 u:99 oh:none", "2"),
            ("nvmlDeviceGetHandleByPciBusId_v2 s:00000000:00:06.0 oh:same", "0"),
            ("nvmlDeviceGetGpuInstances h:gpu u:19 b o", "0 0"),
            ("nvmlDeviceGetGpuInstanceRemainingCapacity h:gpu u:19 o", "0 7"),
            ("nvmlDeviceGetGpuInstancePossiblePlacements_v2 h:gpu u:15 null o", "0 4"),
            ("nvmlDeviceGetGpuFabricInfo h:gpu b", "3"),
            ("nvmlDeviceGetNvLinkState h:gpu u:0 o", "3 0"),
        ],
    );
    for profile in 0..20 {
        let expected = match profile {
            0..=4 | 7 | 9 => "0",
            17.. => "2",
            _ => "3",
        };
        let answer = client.call(&format!("nvmlDeviceGetGpuInstanceProfileInfo h:gpu u:{profile} b"));
        assert_eq!(answer, expected, "profile {profile}");
    }
}

#[test]
fn profiles_have_the_ids_and_sizes_that_hardware_has() {
    // Profile index, id, slices, MB (low word).
    let h100 = [
        (0, 19, 1, 9984),
        (7, 20, 1, 9984),
        (9, 15, 1, 20096),
        (1, 14, 2, 20096),
        (2, 9, 3, 40448),
        (3, 5, 4, 40448),
        (4, 0, 7, 81152),
    ];
    let (_machine, mut client) = opened("h100");
    for (index, id, slices, memory) in h100 {
        let profile = format!("nvmlDeviceGetGpuInstanceProfileInfo h:gpu u:{index}");
        assert_eq!(client.call(&format!("{profile} w:0,3")), format!("0 {id} 0 {slices}"));
        assert_eq!(client.call(&format!("{profile} w:10,2")), format!("0 {memory} 0"));
    }
    let (_machine, mut client) = opened("rtx-pro-6000");
    // Twelve memory slices: the placements' starts and sizes.
    expect(
        &mut client,
        &[
            ("nvmlDeviceGetGpuInstancePossiblePlacements_v2 h:gpu u:14 w:0,8 o", "0 0 3 3 3 6 3 9 3 4"),
            ("nvmlDeviceGetGpuInstancePossiblePlacements_v2 h:gpu u:5 w:0,4 o", "0 0 6 6 6 2"),
            ("nvmlDeviceGetGpuInstancePossiblePlacements_v2 h:gpu u:0 w:0,2 o", "0 0 12 1"),
        ],
    );
}

#[test]
fn structures_of_another_version_are_refused() {
    let (_machine, mut client) = opened("demo");
    expect(
        &mut client,
        &[
            ("nvmlDeviceGetMemoryInfo_v2 h:gpu v:33554472", "0"),
            ("nvmlDeviceGetMemoryInfo_v2 h:gpu v:40", "13"),
            ("nvmlDeviceGetGpuInstanceProfileInfoV h:gpu u:0 v:0", "2"),
            ("nvmlDeviceGetPciInfoExt h:gpu v:7", "25"),
            ("nvmlDeviceGetAddressingMode h:gpu v:1", "25"),
        ],
    );
}

#[test]
fn mig_devices_answer_for_themselves() {
    let (_machine, mut client) = opened("compute-instances");
    expect(
        &mut client,
        &[
            ("nvmlDeviceGetMaxMigDeviceCount h:gpu o", "0 7"),
            ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:7 oh:none", "2"),
            ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:6 oh:none", "6"),
            ("nvmlDeviceGetHandleByUUID s:MIG-cccccccc-0000-5000-8000-000000000000 oh:slice", "0"),
            ("nvmlDeviceGetName h:slice t u:96", "0 NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"),
            ("nvmlDeviceGetHandleByUUID s:MIG-GPU-e1f1a7b9-1c65-5415-b2d3-e8eaac5b342f/1/0 oh:old", "0"),
            ("nvmlDeviceGetUUID h:old t u:96", "0 MIG-cccccccc-0000-5000-8000-000000000000"),
            ("nvmlDeviceGetHandleByUUID s:MIG-GPU-e1f1a7b9-1c65-5415-b2d3-e8eaac5b342f/1/7 oh:none", "6"),
            ("nvmlDeviceIsMigDeviceHandle h:slice o", "0 1"),
            ("nvmlDeviceGetGpuInstanceId h:slice o", "0 1"),
            ("nvmlDeviceGetComputeInstanceId h:slice o", "0 0"),
            ("nvmlDeviceGetMigMode h:slice o o", "2 0 0"),
            ("nvmlDeviceGetUUID h:slice t u:41", "0 MIG-cccccccc-0000-5000-8000-000000000000"),
            ("nvmlDeviceGetUUID h:slice t u:40", "7"),
            ("nvmlDeviceGetGpuInstanceById h:gpu u:1 oh:gi", "0"),
            ("nvmlGpuInstanceGetComputeInstanceRemainingCapacity h:gi u:0 o", "0 2"),
            ("nvmlGpuInstanceGetComputeInstanceRemainingCapacity h:gi u:3 o", "2 0"),
            ("nvmlGpuInstanceGetComputeInstanceProfileInfo h:gi u:0 u:0 b", "0"),
            ("nvmlGpuInstanceGetComputeInstanceProfileInfo h:gi u:3 u:0 b", "3"),
            ("nvmlGpuInstanceGetComputeInstanceProfileInfo h:gi u:9 u:0 b", "2"),
            ("nvmlGpuInstanceGetComputeInstanceProfileInfo h:gi u:0 u:1 b", "2"),
            ("nvmlDeviceGetHandleByIndex_v2 u:1 oh:second", "0"),
            ("nvmlDeviceGetMigDeviceHandleByIndex h:second u:0 oh:none", "6"),
            ("nvmlDeviceGetMigDeviceHandleByIndex h:second u:5 oh:slice", "0"),
            ("nvmlDeviceGetIndex h:slice o", "0 5"),
        ],
    );
}

#[test]
fn a_gpu_that_has_no_mig_says_so() {
    let (_machine, mut client) = opened("not-mig-capable");
    expect(
        &mut client,
        &[
            ("nvmlDeviceGetMigMode h:gpu o o", "3 0 0"),
            ("nvmlDeviceGetMaxMigDeviceCount h:gpu o", "0 0"),
            ("nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:none", "3"),
            ("nvmlDeviceGetGpuInstanceProfileInfo h:gpu u:0 b", "3"),
        ],
    );
}

#[test]
fn shutting_down_takes_as_many_calls_as_starting() {
    let (_machine, mut client) = opened("demo");
    let uuid = "nvmlDeviceGetCount_v2 o";
    expect(
        &mut client,
        &[
            ("nvmlInit_v2", "0"),
            ("nvmlShutdown", "0"),
            (uuid, "0 2"),
            ("nvmlShutdown", "0"),
            (uuid, "1 0"),
            ("nvmlShutdown", "1"),
        ],
    );
}

fn complaint(state: Option<&Machine>, name: Option<&str>) -> (String, String) {
    let mut command = Client::command();
    if let Some(machine) = state {
        command.env("FAKE_NVML_STATE", machine.path("state"));
    }
    if let Some(name) = name {
        command.env("FAKE_NVML_SCENE", scene(name));
    }
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), b"nvmlInit_v2\n").unwrap();
    let output = process.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn without_a_scene_or_with_a_broken_one_init_says_why() {
    let none = "fake-nvml: no scene: set FAKE_NVML_SCENE to a scene file, or FAKE_NVML_STATE to the directory of a machine (nor is there one in a folder `fake-nvml` beside the library)\n";
    assert_eq!(complaint(None, None), ("9\n".to_owned(), none.to_owned()));
    assert_eq!(complaint(Some(&Machine::of("demo")), None), ("9\n".to_owned(), none.to_owned()));
    let (code, said) = complaint(None, Some("broken/overlap"));
    assert_eq!(code, "9\n");
    assert!(
        said.ends_with("overlap.yaml: line 6: 2g.10gb at 2 overlaps 3g.20gb at 0\n") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(complaint(None, Some("demo")), ("0\n".to_owned(), String::new()));
}

#[test]
fn the_library_is_named_as_the_drivers() {
    let bytes = std::fs::read(library()).unwrap();
    let name = b"\0libnvidia-ml.so.1\0";
    assert!(bytes.windows(name.len()).any(|window| window == name));
}
