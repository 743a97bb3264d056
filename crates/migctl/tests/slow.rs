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
