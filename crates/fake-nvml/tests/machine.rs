//! One machine, several processes: what they share, what changes under them, what a killed one leaves.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use common::{Client, Machine, scene};

const INIT: &str = "nvmlInit_v2";
const GPU_0: &str = "nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu";
const SLICE_0: &str = "nvmlDeviceGetMigDeviceHandleByIndex h:gpu u:0 oh:slice";
const SLICE_UUID: &str = "nvmlDeviceGetUUID h:slice t u:96";

fn first_slice(client: &mut Client) -> String {
    for line in [INIT, GPU_0, SLICE_0] {
        assert_eq!(client.call(line), "0", "{line}");
    }
    client.call(SLICE_UUID)
}

#[test]
fn two_processes_see_one_machine_and_their_calls_add_up() {
    let machine = Machine::of("demo");
    let (mut one, mut two) = (machine.client(), machine.client());
    assert_eq!(first_slice(&mut one), first_slice(&mut two));
    let calls: serde_json::Value = serde_json::from_str(&machine.tell(&["calls", "-o", "json", "--reset"])).unwrap();
    assert_eq!((&calls["total"], &calls["functions"]["nvmlInit_v2"]), (&8.into(), &2.into()));
    assert!(machine.tell(&["calls"]).contains("0  in all"));
}

#[test]
fn processes_that_come_first_at_once_agree() {
    let machine = Machine::of("eight-by-seven");
    let mut clients: Vec<Client> = (0..8).map(|_| machine.client()).collect();
    clients.iter_mut().for_each(|client| client.ask(INIT));
    assert!(clients.iter_mut().all(|client| client.answer() == "0"));
    let uuids: Vec<String> = clients.iter_mut().map(first_slice).collect();
    assert!(uuids.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn another_scene_is_seen_on_the_next_call_and_older_handles_are_stale() {
    let machine = Machine::of("demo");
    let mut client = machine.client();
    let before = first_slice(&mut client);
    assert_eq!(client.call("nvmlDeviceGetGpuInstanceById h:gpu u:1 oh:gi"), "0");
    assert_eq!(client.call("nvmlGpuInstanceGetComputeInstanceById h:gi u:0 oh:ci"), "0");
    machine.tell(&["set".as_ref(), scene("eight-by-seven").as_os_str()]);
    assert_eq!(client.call("nvmlDeviceGetCount_v2 o"), "0 8");
    for stale in [
        "nvmlDeviceGetUUID h:slice t u:96",
        "nvmlDeviceGetUUID h:gpu t u:96",
        "nvmlGpuInstanceGetInfo h:gi b",
        "nvmlComputeInstanceGetInfo_v2 h:ci b",
    ] {
        assert!(client.call(stale).starts_with('2'), "{stale}");
    }
    assert_ne!(first_slice(&mut client), before);
}

#[test]
fn a_broken_scene_leaves_the_machine_as_it_is() {
    let machine = Machine::of("demo");
    let before = machine.tell(&["show"]);
    let output = machine.control().arg("set").arg(scene("broken/overlap")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(machine.tell(&["show"]), before);
}

#[test]
fn a_process_killed_at_any_instant_leaves_a_whole_machine() {
    let machine = Machine::of("demo");
    let mut client = machine.client();
    first_slice(&mut client);
    let shown = |name| Machine::of(name).tell(&["show"]);
    let wholes = [shown("demo"), shown("h200")];
    for round in 0..60 {
        let name = if round % 2 == 0 { "h200" } else { "demo" };
        let mut change = machine.control().arg("set").arg(scene(name)).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_micros(150 * round));
        change.kill().unwrap();
        change.wait().unwrap();
        assert_eq!(client.call("nvmlDeviceGetCount_v2 o"), "0 2");
        assert!(wholes.contains(&machine.tell(&["show"])));
    }
    machine.tell(&["set".as_ref(), scene("demo").as_os_str()]);
    let worlds = fs::read_dir(machine.path("state")).unwrap().flatten();
    assert_eq!(worlds.filter(|file| file.file_name().to_string_lossy().starts_with("world.")).count(), 1);
}

#[test]
fn a_lost_gpu_answers_nothing_else_until_it_is_back() {
    let machine = Machine::of("demo");
    let mut client = machine.client();
    first_slice(&mut client);
    machine.tell(&["lose-gpu", "0"]);
    for line in [GPU_0, SLICE_0, SLICE_UUID, "nvmlDeviceGetFanSpeed h:gpu o", "nvmlDeviceGetMigMode h:gpu o o"] {
        assert!(client.call(line).starts_with("15"), "{line}");
    }
    assert_eq!(client.call("nvmlDeviceGetHandleByIndex_v2 u:1 oh:other"), "0");
    machine.tell(&["restore-gpu", "0"]);
    assert!(client.call(SLICE_UUID).starts_with("0 MIG-"));
    let output = machine.control().args(["lose-gpu", "7"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "fake-nvml: there is no GPU 7: the machine has 0 to 1\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_lost_gpu_ends_the_wait_for_its_events() {
    let machine = Machine::of("demo");
    let mut client = machine.client();
    first_slice(&mut client);
    assert_eq!(client.call("nvmlEventSetCreate oh:set"), "0");
    assert_eq!(client.call("nvmlDeviceRegisterEvents h:gpu u:8 h:set"), "0");
    let started = Instant::now();
    assert_eq!(client.call("nvmlEventSetWait_v2 h:set b u:60"), "10");
    assert!(started.elapsed() >= Duration::from_millis(60));
    client.ask("nvmlEventSetWait_v2 h:set b u:60000");
    thread::sleep(Duration::from_millis(50));
    machine.tell(&["lose-gpu", "0"]);
    assert_eq!(client.answer(), "15");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(client.call("nvmlEventSetFree h:set"), "0");
    assert_eq!(client.call("nvmlEventSetFree h:set"), "2");
}

#[test]
fn the_nth_call_fails_and_only_that_one() {
    let machine = Machine::of("demo");
    let (mut one, mut two) = (machine.client(), machine.client());
    first_slice(&mut one);
    first_slice(&mut two);
    machine.tell(&[
        "fault",
        "add",
        "--call",
        "nvmlDeviceGetMinorNumber",
        "--gpu",
        "0",
        "--nth",
        "3",
        "--returns",
        "UNKNOWN",
    ]);
    let minor = "nvmlDeviceGetMinorNumber h:gpu o";
    assert_eq!([one.call(minor), two.call(minor), one.call(minor), two.call(minor)], ["0 0", "0 0", "999 0", "0 0"]);
    machine.tell(&[
        "fault",
        "add",
        "--call",
        "nvmlDeviceGetName",
        "--gpu",
        "1",
        "--returns",
        "NVML_ERROR_NO_PERMISSION",
    ]);
    assert!(one.call("nvmlDeviceGetName h:gpu t u:96").starts_with("0 "));
    machine.tell(&["fault", "clear"]);
    assert!(!machine.tell(&["show"]).contains("fault"));
}

#[test]
fn faults_of_a_scene_delay_and_fail_what_they_name() {
    let machine = Machine::of("slow-driver");
    let mut client = machine.client();
    first_slice(&mut client);
    assert_eq!(client.call("nvmlDeviceGetMinorNumber h:gpu o"), "15 0");
    let serial = "nvmlDeviceGetSerial h:gpu t u:96";
    assert!(client.call(serial).starts_with("0 ") && client.call(serial).starts_with('4'));
    let started = Instant::now();
    assert!(client.call("nvmlDeviceGetVbiosVersion h:gpu t u:96").starts_with("0 "));
    assert_eq!(client.call("nvmlDeviceGetBrand h:gpu o"), "10 0");
    assert!(started.elapsed() >= Duration::from_millis(70));
}

#[test]
fn a_call_that_never_returns_holds_nobody_else_up() {
    let machine = Machine::of("demo");
    let (mut stuck, mut other) = (machine.client(), machine.client());
    first_slice(&mut stuck);
    first_slice(&mut other);
    machine.tell(&["fault", "add", "--call", "nvmlDeviceGetSerial", "--delay", "never"]);
    stuck.ask("nvmlDeviceGetSerial h:gpu t u:96");
    assert!(other.call(SLICE_UUID).starts_with("0 MIG-"));
    stuck.kill();
}
