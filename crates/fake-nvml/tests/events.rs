//! Events: who hears of what, in which order, and what ends a wait.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use common::{Client, Machine};

const CUT: &str = "gpus: [{ model: H200, instances: [{ profile: 3g.71gb }] }, { model: H200 }]";
/// Kind (two words), data (two words), GPU instance, compute instance.
const WAIT: &str = "nvmlEventSetWait_v2 h:set w:2,6 u:0";
const NONE: &str = "4294967295";
const TIMEOUT: &str = "10 0 0 0 0 0 0";

fn registered(machine: &Machine, kinds: &str) -> Client {
    let mut client = machine.client();
    client.expect(&[
        ("nvmlInit_v2", "0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlEventSetCreate oh:set", "0"),
        (&format!("nvmlDeviceRegisterEvents h:gpu u:{kinds} h:set"), "0"),
    ]);
    client
}

#[test]
fn an_xid_reaches_every_set_of_every_process_that_was_there_before() {
    let machine = Machine::described(CUT);
    machine.tell(&["xid", "13", "--gpu", "0"]);
    let (mut one, mut two) = (registered(&machine, "8"), registered(&machine, "8"));
    one.expect(&[("nvmlEventSetCreate oh:again", "0"), ("nvmlDeviceRegisterEvents h:gpu u:8 h:again", "0")]);
    machine.tell(&["xid", "48", "--gpu", "0", "--instance", "1", "--compute", "0"]);
    machine.tell(&["xid", "31", "--gpu", "1"]);
    machine.tell(&["xid", "79", "--gpu", "0"]);
    let first = "0 8 0 48 0 1 0";
    let second = format!("0 8 0 79 0 {NONE} {NONE}");
    for client in [&mut one, &mut two] {
        client.expect(&[(WAIT, first), (WAIT, &second), (WAIT, TIMEOUT)]);
    }
    one.expect(&[
        ("nvmlEventSetWait_v2 h:again oh:device u:0", "0"),
        ("nvmlDeviceGetIndex h:device o", "0 0"),
        // The first version knows no instances and writes no more than it did.
        ("nvmlEventSetWait h:again w:2,6 u:0", "0 8 0 79 0 0 0"),
    ]);
}

#[test]
fn a_burst_comes_in_order_and_whole() {
    let machine = Machine::described(CUT);
    let mut client = registered(&machine, "8");
    let add = |world: &mut fake_nvml::World| (0..1000).try_for_each(|xid| world.raise_xid(0, xid, None, None));
    let create = || unreachable!("the client has made the machine");
    let (store, ..) = fake_nvml::Store::open(&machine.path("state"), create).unwrap();
    store.change(|world| Ok(add(world)?)).unwrap();
    for xid in 0..1000 {
        assert_eq!(client.call(WAIT), format!("0 8 0 {xid} 0 {NONE} {NONE}"));
    }
    assert_eq!(client.call(WAIT), TIMEOUT);
}

#[test]
fn a_wait_ends_with_what_happens_during_it() {
    let machine = Machine::described(CUT);
    let mut client = registered(&machine, "264");
    client.ask("nvmlEventSetWait_v2 h:set w:2,6 u:60000");
    machine.tell(&["xid", "94", "--gpu", "0", "--instance", "1"]);
    assert_eq!(client.answer(), format!("0 8 0 94 0 1 {NONE}"));
    client.ask("nvmlEventSetWait_v2 h:set w:2,6 u:60000");
    machine.tell(&["lose-gpu", "0"]);
    assert!(client.answer().starts_with("15"));
    // What came before it was lost is still to be had.
    machine.tell(&["xid", "79", "--gpu", "0"]);
    client.expect(&[(WAIT, &format!("0 8 0 79 0 {NONE} {NONE}")), (WAIT, "15 0 0 0 0 0 0"), (WAIT, "15 0 0 0 0 0 0")]);
}

#[test]
fn cutting_a_gpu_is_an_event_for_those_who_ask() {
    let machine = Machine::described(CUT);
    let (mut asked, mut other) = (registered(&machine, "256"), registered(&machine, "8"));
    let changed = format!("0 256 0 0 0 {NONE} {NONE}");
    for change in [
        "nvmlDeviceCreateGpuInstance h:gpu u:19 oh:gi",
        "nvmlGpuInstanceCreateComputeInstance h:gi u:0 oh:ci",
        "nvmlComputeInstanceDestroy h:ci",
        "nvmlGpuInstanceDestroy h:gi",
    ] {
        other.expect(&[(change, "0")]);
        asked.expect(&[(WAIT, &changed), (WAIT, TIMEOUT)]);
    }
    // Refused, pending or of another GPU: nothing has changed here.
    other.expect(&[
        ("nvmlDeviceCreateGpuInstance h:gpu u:0 oh:gi", "23"),
        ("nvmlDeviceSetMigMode h:gpu u:0 o", "0 19"),
        ("nvmlDeviceGetHandleByIndex_v2 u:1 oh:next", "0"),
        ("nvmlDeviceSetMigMode h:next u:1 o", "0 0"),
    ]);
    asked.expect(&[(WAIT, TIMEOUT)]);
    machine.tell(&["reset-gpu", "0"]);
    asked.expect(&[(WAIT, &changed), (WAIT, TIMEOUT)]);
    other.expect(&[(WAIT, TIMEOUT)]);
}

#[test]
fn without_the_monitor_capability_only_the_whole_gpus_events_come() {
    let machine = Machine::described(&format!("permission: none\n{CUT}"));
    let mut client = registered(&machine, "8");
    machine.tell(&["xid", "48", "--gpu", "0", "--instance", "1"]);
    machine.tell(&["xid", "79", "--gpu", "0"]);
    client.expect(&[(WAIT, &format!("0 8 0 79 0 {NONE} {NONE}")), (WAIT, TIMEOUT)]);
}

#[test]
fn sets_are_checked() {
    let machine = Machine::described(CUT);
    registered(&machine, "8").expect(&[
        ("nvmlDeviceRegisterEvents h:gpu u:16 h:set", "0"),
        ("nvmlDeviceRegisterEvents h:gpu u:32 h:set", "3"),
        ("nvmlDeviceRegisterEvents h:gpu u:8 h:gpu", "2"),
        ("nvmlEventSetWait_v2 h:set null u:0", "2"),
        ("nvmlEventSetFree h:set", "0"),
        ("nvmlEventSetWait_v2 h:set b u:0", "2"),
    ]);
}
