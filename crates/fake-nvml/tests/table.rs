//! The table of functions that nvidia-smi asks for: it has to be there, and to do no harm whatever it is called with.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use common::{Client, Machine};

/// 6c3efec4-8fc9-4e6c-a327-ee696e12f7c4, as a GUID lies in memory.
const ID: &str = "x:c4fe3e6cc98f6c4ea327ee696e12f7c4";

fn opened(machine: &Machine) -> Client {
    let mut client = machine.client();
    client.expect(&[
        ("nvmlInit_v2", "0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        (&format!("nvmlInternalGetExportTable oh:table {ID}"), "0"),
    ]);
    client
}

#[test]
fn the_known_entries_do_what_they_are_known_for() {
    let machine = Machine::of("demo");
    let mut client = opened(&machine);
    client.expect(&[
        ("table:81 u:1 oh:second", "0"),
        ("nvmlDeviceGetIndex h:second o", "0 1"),
        ("table:81 u:2 oh:none", "2"),
        ("table:81 u:0 u:8", "2"),
        ("table:230 h:gpu o", "0 5"),
        ("table:230 h:gpu null", "2"),
        ("table:230 u:0 o", "2 0"),
    ]);
    for place in 213..=215 {
        // The caller's array has room for three, and there are none.
        client.expect(&[
            (&format!("table:{place} h:gpu c:3 b"), "0 0"),
            (&format!("table:{place} h:nobody c:3 b"), "2 3"),
        ]);
    }
    machine.tell(&["lose-gpu", "0"]);
    client.expect(&[("table:81 u:0 oh:none", "15"), ("table:230 h:gpu o", "15 0")]);
}

#[test]
fn an_unknown_entry_writes_nothing_but_zero_and_only_where_that_is_safe() {
    let machine = Machine::of("demo");
    let mut client = opened(&machine);
    for place in (1..512).filter(|place| ![81, 168, 213, 214, 215, 230].contains(place)) {
        client.expect(&[
            (&format!("table:{place} h:gpu c:7"), "0 0"),
            // No device, so the second may be anything: it is left alone.
            (&format!("table:{place} u:3 c:7"), "0 7"),
            (&format!("table:{place} c:7 c:7"), "0 7 7"),
        ]);
    }
    // No place to write to: not there, not aligned, nobody's.
    for second in ["null", "u:1", "u:4097", "u:4096", "u:281474976710656", "u:18446744073709551612"] {
        client.expect(&[(&format!("table:7 h:gpu {second}"), "0")]);
    }
}

#[test]
fn the_reset_of_nvidia_smi_resets_all_or_none() {
    let machine = Machine::described("gpus: [{ model: A100-SXM4-40GB }, { model: A100-SXM4-40GB }]");
    let mut client = opened(&machine);
    client.expect(&[("nvmlDeviceSetMigMode h:gpu u:1 o", "0 16"), ("nvmlDeviceGetHandleByIndex_v2 u:1 oh:other", "0")]);
    machine.tell(&["process", "add", "--gpu", "1", "--pid", "71"]);
    client.expect(&[
        ("table:168 u:2 hs:gpu,other", "19"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 0 1"),
        ("table:168 u:0 hs:gpu", "2"),
        ("table:168 u:1 hs:nobody", "2"),
        ("table:168 u:1 null", "2"),
        ("table:168 u:1 u:4096", "2"),
        ("table:168 u:999999 hs:gpu", "2"),
    ]);
    machine.tell(&["process", "remove", "--pid", "71"]);
    client.expect(&[
        ("table:168 u:2 hs:gpu,other", "0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "2 0 0"),
        ("nvmlDeviceGetHandleByIndex_v2 u:0 oh:gpu", "0"),
        ("nvmlDeviceGetMigMode h:gpu o o", "0 1 1"),
    ]);
}

#[test]
fn other_tables_are_not_there() {
    let machine = Machine::of("demo");
    opened(&machine).expect(&[
        ("nvmlInternalGetExportTable oh:none x:00000000000000000000000000000000", "3"),
        ("nvmlInternalGetExportTable oh:none null", "2"),
        (&format!("nvmlInternalGetExportTable null {ID}"), "2"),
    ]);
}
