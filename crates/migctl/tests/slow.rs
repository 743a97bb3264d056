//! A driver that does not answer: the user learns what is waited for.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

mod machine;

use machine::{CUT, Machine};

#[test]
fn a_driver_that_hangs_is_named() {
    for (call, says) in [
        ("nvmlInit_v2", "driver: it takes its time to start"),
        ("nvmlDeviceGetMigMode", "driver: it takes its time to say how the GPUs are cut"),
    ] {
        let machine = Machine::written(&format!("faults: [{{ call: {call}, delay: never }}]\n{CUT}"));
        let mut status = machine.command().arg("status").stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(status.stderr.take().unwrap()).read_line(&mut line).unwrap();
        status.kill().unwrap();
        status.wait().unwrap();
        assert!(line.starts_with(says), "{call}: {line}");
    }
}

/// Files can be looked at without it.
#[test]
fn the_doctor_does_not_wait_for_a_driver_for_ever() {
    let machine = Machine::written(&format!("faults: [{{ call: nvmlDeviceGetMigMode, delay: never }}]\n{CUT}"));
    let text = machine.transcript("doctor --timeout 1s");
    assert!(text.contains("the driver has not answered for 1 s") && text.contains("kernel-module"), "{text}");
    assert!(text.ends_with("exit 1\n"), "{text}");
}
