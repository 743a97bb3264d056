//! What `migctl status` makes of many GPUs and of narrow terminals.

#![allow(clippy::unwrap_used, reason = "clippy takes only test functions for tests")]

mod machine;

use std::fmt::Write as _;

use machine::{CUT, Machine};
use snapbox::{assert_data_eq, str};

fn drawn(machine: &Machine, line: &str, variables: &[(&str, &str)]) -> String {
    let mut command = machine.command();
    command.args(line.split(' ')).envs(variables.iter().copied());
    machine.told(&command.output().unwrap())
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

/// Sixteen GPUs with seven slices each, on every other one of which a process runs on three.
fn sixteen() -> Machine {
    let seven = "{ profile: 1g.5gb }, ".repeat(7);
    let mut text = "gpus:\n".to_owned();
    for _ in 0..16 {
        let _ = writeln!(text, "  - {{ model: A100-SXM4-40GB, instances: [{seven}] }}");
    }
    let machine = Machine::written(&text);
    for gpu in (0..16).step_by(2) {
        for (pid, instance) in [(100, 11), (200, 13), (300, 7)] {
            machine.run_process(gpu, Some(instance), pid + u32::try_from(gpu).unwrap(), "python3");
        }
    }
    machine
}

#[test]
fn sixteen_gpus_are_drawn_briefly() {
    let machine = sixteen();
    assert_data_eq!(
        drawn(&machine, "status", &[("LANG", "C.UTF-8")]),
        str![[r#"
16 GPUs, 112 MIG instances, 24 in use; driver 580.159.04
GPU 0  A100-SXM4-40GB  0000:07:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 1  A100-SXM4-40GB  0000:08:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 2  A100-SXM4-40GB  0000:09:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 3  A100-SXM4-40GB  0000:0a:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 4  A100-SXM4-40GB  0000:0b:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 5  A100-SXM4-40GB  0000:0c:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 6  A100-SXM4-40GB  0000:0d:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 7  A100-SXM4-40GB  0000:0e:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 8  A100-SXM4-40GB  0000:0f:00.0                      MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 9  A100-SXM4-40GB  0000:10:00.0                      MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 10  A100-SXM4-40GB  0000:11:00.0                     MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 11  A100-SXM4-40GB  0000:12:00.0                     MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 12  A100-SXM4-40GB  0000:13:00.0                     MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 13  A100-SXM4-40GB  0000:14:00.0                     MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
GPU 14  A100-SXM4-40GB  0000:15:00.0                     MIG on, 3/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │python3 │free    │python3 │free    │python3 │free    │free    │        │
GPU 15  A100-SXM4-40GB  0000:16:00.0                     MIG on, 0/7 in use
  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │1g.5gb  │uncut   │
  │free    │free    │free    │free    │free    │free    │free    │        │
exit 0

"#]]
    );
    // In details on request, and of those that are asked for.
    assert!(machine.transcript("status --details").contains("python3 (100)"));
    assert!(machine.transcript("--gpuid 0-1 status").contains("exit 2"), "there are no ranges");
    assert!(machine.transcript("--gpuid 0,1 status").contains("python3 (100)"));
}

#[test]
fn idle_gpus_that_look_the_same_are_drawn_once() {
    assert_data_eq!(
        Machine::new("eight-by-seven").transcript("status"),
        str![[r#"
8 GPUs, 56 MIG instances, 0 in use; driver 580.159.04

GPU 0-7  A100-SXM4-40GB                                  MIG on, 0/7 in use
  +0-------+1-------+2-------+3-------+4-------+5-------+6-------+7-------+
  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |1g.5gb  |uncut   |
  |free    |free    |free    |free    |free    |free    |free    |        |
  +--------+--------+--------+--------+--------+--------+--------+--------+
  ID  TYPE    AT   COMPUTE  USED BY
  11  1g.5gb  0:1  1/7      free
  12  1g.5gb  1:1  1/7      free
  13  1g.5gb  2:1  1/7      free
  14  1g.5gb  3:1  1/7      free
  7   1g.5gb  4:1  1/7      free
  8   1g.5gb  5:1  1/7      free
  9   1g.5gb  6:1  1/7      free
  uncut: 1 memory and 0 compute slices; nothing more fits
exit 0

"#]]
    );
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let machine = sixteen();
    for (columns, at_most) in [("60", 60), ("80", 80), ("100", 100), ("400", 120), ("10", 60), ("0", 80), ("x", 80)] {
        for name in ["a100-mixed", "rtx-pro-6000", "one-gpu-lost", "busy", "compute-instances", "h200"] {
            let variables = [("COLUMNS", columns), ("LANG", "C.UTF-8")];
            let text = drawn(&Machine::new(name), "status", &variables);
            assert!(widest(&text) <= at_most, "{name} on {columns}: {}\n{text}", widest(&text));
        }
        let text = drawn(&machine, "status", &[("COLUMNS", columns)]);
        assert!(widest(&text) <= at_most && text.is_ascii(), "{columns}: {}\n{text}", widest(&text));
    }
    let narrow = drawn(&Machine::new("rtx-pro-6000"), "--gpuid 0 status", &[("COLUMNS", "60")]);
    assert_data_eq!(
        narrow,
        str![[r#"
1 GPU, 3 MIG instances, 0 in use; driver 580.159.04

GPU 0  RTX PRO 6000 Blackwell ~  MIG on, 0/3 in use
  +0---1---2--+3---4---5--+6---7---8---9---10--11-+
  |1g.24gb+me |1g.24gb    |2g.48gb                |
  |free       |free       |free                   |
  +-----------+-----------+-----------------------+
  ID  TYPE        AT   COMPUTE  USED BY
  3   1g.24gb+me  0:3  1/4      free
  4   1g.24gb     3:3  1/4      free
  2   2g.48gb     6:6  2/4      free
  no memory slice is left: nothing more fits
exit 0

"#]]
    );
}

#[test]
fn colour_adds_nothing_that_is_not_in_the_text() {
    let machine = Machine::new("busy");
    let colored = machine.transcript("--color always status");
    assert!(colored.contains("\u{1b}[36mpython3"), "{colored:?}");
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, machine.transcript("status"));
}

#[test]
fn names_of_others_do_not_steer_the_terminal() {
    let machine = Machine::written(CUT);
    machine.run_process(0, Some(1), 4711, "a\u{1b}[2Jb\nc");
    let text = machine.transcript("status");
    assert!(!text.contains('\u{1b}') && text.contains("(4711)"), "{text}");
}
