//! Files that are no layouts, or not for these GPUs.

mod machine;

use machine::{Machine, TWO};
use snapbox::{assert_data_eq, str};

#[test]
fn a_bad_layout_is_refused_with_its_line() {
    let machine = Machine::written(TWO);
    for (name, text) in [
        ("unknown-field", "version: v1\nmig-configs:\n  a:\n    - devices: all\n      mig-enable: true\n"),
        ("wrong-type", "version: v1\nmig-configs:\n  a:\n    - devices: 7\n      mig-enabled: true\n"),
        ("no-yaml", "version: v1\n  mig-configs: ]\n"),
        ("other-version", "version: v2\n"),
        ("too-many", "version: v1\nmig-configs:\n  a:\n    - devices: [0, 1, 2]\n      mig-enabled: false\n"),
        (
            "contradiction",
            "version: v1\nmig-configs:\n  a:\n    - devices: all\n      mig-enabled: false\n    - devices: [1]\n      \
             mig-enabled: true\n      mig-devices: { 1g.5gb: 1 }\n",
        ),
        (
            "not-here",
            "version: v1\nmig-configs:\n  a:\n    - devices: all\n      mig-enabled: true\n      mig-devices: { 1g.18gb: 1 }\n",
        ),
        (
            "too-much",
            "version: v1\nmig-configs:\n  a:\n    - devices: [1]\n      mig-enabled: true\n      mig-devices: { 4g.20gb: 2 }\n",
        ),
        (
            "illegal",
            "version: mig-agent/v1\nlayouts:\n  a:\n    - gpus: [0]\n      instances: [{ profile: 3g.20gb, placement: 3 }]\n",
        ),
        (
            "two",
            "version: v1\nmig-configs: { a: [{ devices: all, mig-enabled: false }], b: [{ devices: all, mig-enabled: false }] }\n",
        ),
        (
            "none-of-these",
            "version: v1\nmig-configs: { a: [{ devices: all, device-filter: \"0x233010DE\", mig-enabled: false }] }\n",
        ),
    ] {
        machine.write(&format!("{name}.yaml"), text);
    }
    assert_data_eq!(
        machine.transcript("apply -f unknown-field.yaml"),
        str![[r#"
! error: unknown-field.yaml: line 5: unknown field `mig-enable`, expected one of device-filter, devices, mig-enabled, mig-devices
! hint: what a layout looks like: docs/migctl.md
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f wrong-type.yaml"),
        str![[r#"
! error: wrong-type.yaml: line 4: invalid type: integer `7`, expected a word, or a list such as [a, b]
! hint: what a layout looks like: docs/migctl.md
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f no-yaml.yaml"),
        str![[r#"
! error: no-yaml.yaml: line 2: mapping values are not allowed in this context
! hint: what a layout looks like: docs/migctl.md
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f other-version.yaml"),
        str![[r#"
! error: other-version.yaml: unknown version "v2": expected v1 (mig-parted's) or mig-agent/v1 (with placements and selectors)
! hint: what a layout looks like: docs/migctl.md
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f too-many.yaml"),
        str![[r#"
! error: too-many.yaml: line 4: there is no GPU 2; there are 0, 1
! hint: which GPUs there are: migctl list gpu
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f contradiction.yaml"),
        str![[r#"
! error: contradiction.yaml: lines 4 and 6 both speak of GPU 1, and want different things of it
! hint: each GPU can be cut in one way only; narrow one of the selectors
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f not-here.yaml"),
        str![[r#"
! error: GPU 0 has no instance type 1g.18gb
! hint: it has 1g.10gb, 1g.5gb, 1g.5gb+me, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb
! error: GPU 1 has no instance type 1g.18gb
! hint: it has 1g.10gb, 1g.5gb, 1g.5gb+me, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f too-much.yaml"),
        str![[r#"
! error: GPU 1: 2 x 4g.20gb do not fit: 8 compute slices are needed, and 7 free; a GPU takes at most 1 of 4g.20gb, not 2
! hint: of these fit: 4g.20gb
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f illegal.yaml"),
        str![[r#"
! error: GPU 0: 3g.20gb cannot lie at 3
! hint: it can at 0, 4
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f two.yaml"),
        str![[r#"
! error: two.yaml: which layout? the file has "a", "b"
! hint: choose one by --config
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f two.yaml --config c"),
        str![[r#"
! error: two.yaml: there is no layout "c"; the file has "a", "b"
! hint: choose one of these by --config
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f none-of-these.yaml"),
        str![[r#"
! error: the layout speaks of none of these GPUs
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f absent.yaml"),
        str![[r#"
! error: unable to read absent.yaml: No such file or directory (os error 2)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply"),
        str![[r#"
! error: the following required arguments were not provided:
!   <--file <FILE>>
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("plan -f two.yaml 3g.20gb"),
        str![[r#"
! error: the argument '--file <FILE>' cannot be used with '[TYPES]...'
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn a_file_that_is_no_layout_is_not_read_to_its_end() {
    let machine = Machine::written(TWO);
    let fifty_megabytes = std::fs::File::create(machine.path("big.yaml")).unwrap();
    fifty_megabytes.set_len(50 << 20).unwrap();
    std::fs::write(machine.path("binary.yaml"), b"version: \xff\xfe").unwrap();
    assert_data_eq!(
        machine.transcript("apply -f big.yaml"),
        str![[r#"
! error: big.yaml is longer than 4 MiB, the most that is read
! hint: is this the right file?
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f /dev/zero"),
        str![[r#"
! error: /dev/zero is longer than 4 MiB, the most that is read
! hint: is this the right file?
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f binary.yaml"),
        str![[r#"
! error: binary.yaml is no text: byte 9 is not UTF-8
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("apply -f ."),
        str![[r#"
! error: unable to read .: Is a directory (os error 21)
exit 1

"#]]
    );
}
