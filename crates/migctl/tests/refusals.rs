//! What users ask for and cannot have: each has a message and an exit code of its own.

mod machine;

use machine::{CUT, Machine, TWO};
use snapbox::{assert_data_eq, str};

#[test]
fn a_gpu_that_is_not_there() {
    let machine = Machine::written(TWO);
    assert_data_eq!(
        machine.transcript("--gpuid 7 create instance --type 1g.5gb"),
        str![[r#"
! error: there is no GPU 7
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid GPU-cccc list config"),
        str![[r#"
! error: there is no GPU GPU-cccc
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0000:99:00.0 list gpu"),
        str![[r#"
! error: there is no GPU 0000:99:00.0
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid first list gpu"),
        str![[r#"
! error: invalid value 'first' for '--gpuid <GPU>': unable to read "first" as a GPU, expected an index such as 0, a UUID (GPU-...) or a PCI address such as 0000:07:00.0
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid MIG-aaaaaaaa-0000-5000-8000-000000000002 list gpu"),
        str![[r#"
! error: invalid value 'MIG-aaaaaaaa-0000-5000-8000-000000000002' for '--gpuid <GPU>': this is the UUID of an instance, expected that of its GPU
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb"),
        str![[r#"
! error: there are 2 GPUs: say which by --gpuid
! hint: GPU 0: GPU-aaaaaaaa-0000-4000-8000-000000000000, 0000:07:00.0, NVIDIA A100-SXM4-40GB
! hint: GPU 1: GPU-bbbbbbbb-0000-4000-8000-000000000000, 0000:08:00.0, NVIDIA A100-SXM4-40GB
exit 2

"#]]
    );
    assert_data_eq!(
        Machine::new("no-gpus").transcript("enable"),
        str![[r#"
! error: the driver knows no GPU on this machine
exit 7

"#]]
    );
    assert_data_eq!(
        Machine::new("no-gpus").transcript("list gpu"),
        str![[r#"
no GPUs
exit 0

"#]]
    );
    assert_data_eq!(
        Machine::new("sixty-four-by-seven").transcript("destroy instance --all").lines().count().to_string(),
        str!["19"]
    );
}

#[test]
fn a_type_that_this_gpu_does_not_have() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("create instance --type 1g.6gb"),
        str![[r#"
! error: GPU 0 has no instance type 1g.6gb
! hint: it has 1g.5gb, 1g.5gb+me, 1g.10gb, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 4c.7g.41gb"),
        str![[r#"
! error: GPU 0 has no instance type 7g.41gb
! hint: it has 7g.40gb, 4g.20gb, 3g.20gb, 2g.10gb, 1g.10gb, 1g.5gb, 1g.5gb+me
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 47"),
        str![[r#"
! error: GPU 0 has no instance type of id 47
! hint: it has 19 (1g.5gb), 14 (2g.10gb), 9 (3g.20gb), 5 (4g.20gb), 0 (7g.40gb), 20 (1g.5gb+me), 15 (1g.10gb)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type big"),
        str![[r#"
! error: invalid value 'big' for '--type <TYPES>': unable to read "big" as a MIG profile, expected a name such as 1g.5gb, 1g.10gb+me or 1c.3g.20gb
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance"),
        str![[r#"
! error: the following required arguments were not provided:
!   --type <TYPES>
! 
! For more information, try '--help'.
exit 2

"#]]
    );
}

#[test]
fn a_placement_that_is_taken_or_illegal() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("create instance --type 3g.20gb --placement 4"),
        str![[r#"
! error: GPU 0: 3g.20gb at 4:4 is taken by GPU instance 1 (3g.20gb at 4:4)
! hint: no placement of 3g.20gb is free
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 3g.20gb --placement 0"),
        str![[r#"
! error: GPU 0: 3g.20gb at 0:4 is taken by GPU instance 11 (1g.5gb at 0:1) and GPU instance 12 (1g.5gb at 1:1)
! hint: no placement of 3g.20gb is free
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 3g.20gb --placement 2"),
        str![[r#"
! error: GPU 0: 3g.20gb cannot lie at 2
! hint: it can at 0, 4
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --placement 9"),
        str![[r#"
! error: GPU 0: 1g.5gb cannot lie at 9
! hint: it can at 0, 1, 2, 3, 4, 5, 6
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --placement 1"),
        str![[r#"
! error: GPU 0: 1g.5gb at 1:1 is taken by GPU instance 12 (1g.5gb at 1:1)
! hint: free for it: 2, 3
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb,1g.5gb --placement 2"),
        str![[r#"
! error: --placement is for one instance
! hint: for several, write each with its own place: --type 3g.20gb@4,1g.5gb@0
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb@2 --placement 2"),
        str![[r#"
! error: 1g.5gb@2 has a place already: leave out --placement and --count
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --count 0"),
        str![[r#"
! error: invalid value '0' for '--count <N>': 0 is not in 1..=64
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.5gb --placement one"),
        str![[r#"
! error: invalid value 'one' for '--placement <START>': invalid digit found in string
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn an_instance_that_is_not_there() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 7"),
        str![[r#"
! error: GPU 0 has no GPU instance 7
! hint: it has GPU instance 11 (1g.5gb at 0:1)
! hint: it has GPU instance 12 (1g.5gb at 1:1)
! hint: it has GPU instance 1 (3g.20gb at 4:4)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 11,7"),
        str![[r#"
! error: GPU 0 has no GPU instance 7
! hint: it has GPU instance 11 (1g.5gb at 0:1)
! hint: it has GPU instance 12 (1g.5gb at 1:1)
! hint: it has GPU instance 1 (3g.20gb at 4:4)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance"),
        str![[r#"
! error: the following required arguments were not provided:
!   <--instanceid <IDS>|--uuid <MIG-UUIDS>|--all>
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --all --instanceid 7"),
        str![[r#"
! error: the argument '--all' cannot be used with '--instanceid <IDS>'
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 1,2 --computeid 0"),
        str![[r#"
! error: --computeid is for one GPU instance: give one --instanceid
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid seven"),
        str![[r#"
! error: invalid value 'seven' for '--instanceid <IDS>': invalid digit found in string
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_eq!(machine.changes(), 0);
}

#[test]
fn a_gpu_that_cannot_be_cut() {
    let machine = Machine::new("not-mig-capable");
    assert_data_eq!(
        machine.transcript("--gpuid 0 enable"),
        str![[r#"
! error: GPU 0 cannot be cut: Tesla T4 has no MIG
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 create instance --type 1g.5gb"),
        str![[r#"
! error: GPU 0 cannot be cut: Tesla T4 has no MIG
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("list instance"),
        str![[r#"
GPU 1: NVIDIA A100-SXM4-40GB, 8 memory slices, 7 compute slices
TYPE       ID  FREE  MEMORY     SMS  CE  DEC  ENC  JPG  OFA  PLACEMENTS
1g.5gb     19  3/7   4.75 GiB    14   1    0    0    0    0  {0,1,2,3,4,5,6}:1
2g.10gb    14  1/3   9.62 GiB    28   2    1    0    0    0  {0,2,4}:2
3g.20gb     9  1/2   19.50 GiB   42   3    2    0    0    0  {0,4}:4
4g.20gb     5  0/1   19.50 GiB   56   4    2    0    0    0  {0}:4
7g.40gb     0  0/1   39.25 GiB   98   7    5    0    1    1  {0}:8
1g.5gb+me  20  1/1   4.75 GiB    14   1    1    0    1    1  {0,1,2,3,4,5,6}:1
1g.10gb    15  2/4   9.62 GiB    14   1    1    0    0    0  {0,2,4,6}:2
! warning: GPU 0 is left out: it cannot be cut (no MIG)
exit 0

"#]]
    );
}
