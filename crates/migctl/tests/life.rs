//! The life of instances: enable, create, list, destroy, disable, with what users see of each.

mod machine;

use machine::{CUT, Machine, TWO};
use snapbox::{assert_data_eq, str};

#[test]
fn from_a_whole_gpu_to_slices_and_back() {
    let machine =
        Machine::written("gpus:\n  - { model: H100-80GB-HBM3, uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000 }\n");
    assert_data_eq!(
        machine.transcript("list gpu"),
        str![[r#"
GPU  NAME            MEMORY     MIG  INSTANCES  PCI           UUID
  0  H100 80GB HBM3  79.65 GiB  off          0  0000:07:00.0  GPU-aaaaaaaa-0000-4000-8000-000000000000
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1g.10gb"),
        str![[r#"
! error: GPU 0: MIG is off
! hint: turn it on: migctl --gpuid 0 enable
exit 1

"#]]
    );
    assert_data_eq!(
        machine.transcript("plan 3g.40gb"),
        str![[r#"
GPU 0: 2 steps
  * enable MIG mode
  + create 3g.40gb at 4:4
  room left: 4 x 1g.10gb, 2 x 2g.20gb, 1 x 3g.40gb, 1 x 4g.40gb, 1 x 1g.10gb+me or 2 x 1g.20gb
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 enable"),
        str![[r#"
GPU 0: MIG is on
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 enable"),
        str![[r#"
GPU 0: MIG is on already
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 create instance --type 1g.10gb"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID
  0  13   0  1g.10gb  6:1        MIG-5ae7ecca-f422-55e0-b2dc-807b210850a2
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 create instance --type 3g.40gb --placement 4"),
        str![[r#"
! error: GPU 0: 3g.40gb at 4:4 is taken by GPU instance 13 (1g.10gb at 6:1)
! hint: free for it: 0
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 list instance"),
        str![[r#"
GPU 0: NVIDIA H100 80GB HBM3, 8 memory slices, 7 compute slices
TYPE        ID  FREE  MEMORY     SMS  CE  DEC  ENC  JPG  OFA  PLACEMENTS
1g.10gb     19  6/7   9.75 GiB    16   1    1    0    1    0  {0,1,2,3,4,5,6}:1
2g.20gb     14  3/3   19.62 GiB   32   2    2    0    2    0  {0,2,4}:2
3g.40gb      9  1/2   39.50 GiB   60   3    3    0    3    0  {0,4}:4
4g.40gb      5  1/1   39.50 GiB   64   4    4    0    4    0  {0}:4
7g.80gb      0  0/1   79.25 GiB  132   8    7    0    7    1  {0}:8
1g.10gb+me  20  1/1   9.75 GiB    16   1    1    0    1    1  {0,1,2,3,4,5,6}:1
1g.20gb     15  3/4   19.62 GiB   26   1    1    0    1    0  {0,2,4,6}:2
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  0  13   0  1g.10gb  6:1        MIG-5ae7ecca-f422-55e0-b2dc-807b210850a2  -
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 disable"),
        str![[r#"
! error: GPU 0 is cut into 1 instance, which nobody uses
! hint: destroy them, too: migctl --gpuid 0 disable --destroy-instances
exit 4

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 destroy instance --all"),
        str![[r#"
GPU 0: - destroyed GPU instance 13 (1g.10gb at 6:1)
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 list config"),
        str![[r#"
no instances
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 disable"),
        str![[r#"
GPU 0: MIG is off
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 disable"),
        str![[r#"
GPU 0: MIG is off already
exit 0

"#]]
    );
}

#[test]
fn compute_instances_go_where_there_is_room() {
    let machine = Machine::written(CUT);
    // The GPU instance that is there is full, and there is no room for another.
    assert_data_eq!(
        machine.transcript("create instance --type 1c.3g.20gb"),
        str![[r#"
! error: GPU 0: 3g.20gb (1c.3g.20gb) does not fit: 4 memory slices are needed, and 2 free; 3 compute slices are needed, and 2 free
! hint: GPU 0 still takes 2 x 1g.5gb, 1 x 2g.10gb, 1 x 1g.5gb+me or 1 x 1g.10gb
exit 3

"#]]
    );
    machine.run("destroy instance --instanceid 1 --computeid 0");
    assert_data_eq!(
        machine.transcript("create instance --type 1c.3g.20gb --count 2"),
        str![[r#"
GPU  GI  CI  TYPE        PLACEMENT  UUID
  0   1   0  1c.3g.20gb  4:4        MIG-a91fdd36-60fb-521f-9787-0ffb9f35b685
  0   1   1  1c.3g.20gb  4:4        MIG-0f0bbee5-ab10-5db1-8169-d652def50ed2
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 2c.3g.20gb --in 1"),
        str![[r#"
! error: GPU 0: GPU instance 1 (3g.20gb at 4:4) has no room for 2c.3g.20gb
! hint: in it are 1c.3g.20gb, 1c.3g.20gb
! hint: it can be cut into 1c.3g.20gb, 2c.3g.20gb, 3g.20gb
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1c.3g.20gb --in 1"),
        str![[r#"
GPU  GI  CI  TYPE        PLACEMENT  UUID
  0   1   2  1c.3g.20gb  4:4        MIG-ae8f5a27-9161-5289-9855-fc7914054c67
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1c.3g.20gb --in 9"),
        str![[r#"
! error: GPU 0 has no GPU instance 9
! hint: it has GPU instance 11 (1g.5gb at 0:1)
! hint: it has GPU instance 12 (1g.5gb at 1:1)
! hint: it has GPU instance 1 (3g.20gb at 4:4)
exit 7

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance --type 1c.2g.10gb --in 1"),
        str![[r#"
! error: GPU instance 1 is a 3g.20gb: 1c.2g.10gb is no part of it
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("list config"),
        str![[r#"
GPU  GI  CI  TYPE        PLACEMENT  UUID                                      USERS
  0  11   0  1g.5gb      0:1        MIG-aaaaaaaa-0000-5000-8000-000000000002  -
  0  12   0  1g.5gb      1:1        MIG-aaaaaaaa-0000-5000-8000-000000000003  -
  0   1   0  1c.3g.20gb  4:4        MIG-a91fdd36-60fb-521f-9787-0ffb9f35b685  -
  0   1   1  1c.3g.20gb  4:4        MIG-0f0bbee5-ab10-5db1-8169-d652def50ed2  -
  0   1   2  1c.3g.20gb  4:4        MIG-ae8f5a27-9161-5289-9855-fc7914054c67  -
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 1 --computeid 1"),
        str![[r#"
GPU 0: - destroyed compute instance 1 of GPU instance 1 (1c.3g.20gb, MIG-0f0bbee5-ab10-5db1-8169-d652def50ed2)
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --instanceid 1 --computeid 7"),
        str![[r#"
! error: GPU 0: GPU instance 1 (3g.20gb at 4:4) has no compute instance 7
! hint: it has 0 (1c.3g.20gb, MIG-a91fdd36-60fb-521f-9787-0ffb9f35b685)
! hint: it has 2 (1c.3g.20gb, MIG-ae8f5a27-9161-5289-9855-fc7914054c67)
exit 7

"#]]
    );
    machine.run("destroy instance --instanceid 11,12");
    assert_data_eq!(
        machine.transcript("create instance --type 1c.3g.20gb,2c.3g.20gb,1c.3g.20gb"),
        str![[r#"
GPU  GI  CI  TYPE        PLACEMENT  UUID
  0   2   0  2c.3g.20gb  0:4        MIG-903d25b4-188f-5686-9d33-0b6461371d52
  0   2   1  1c.3g.20gb  0:4        MIG-d33ff406-c4b3-50d1-94dd-f30bbc0a8714
  0   1   1  1c.3g.20gb  4:4        MIG-33dd9b0b-71ef-50ed-bc5c-c559be0358ce
exit 0

"#]]
    );
}

#[test]
fn a_device_goes_by_its_uuid() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("destroy instance --uuid MIG-aaaaaaaa-0000-5000-8000-000000000002"),
        str![[r#"
GPU 0: - destroyed GPU instance 11 (1g.5gb at 0:1)
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("destroy instance --uuid MIG-aaaaaaaa-0000-5000-8000-000000000002"),
        str![[r#"
! error: there is no MIG device MIG-aaaaaaaa-0000-5000-8000-000000000002
! hint: which there are: migctl list config
exit 7

"#]]
    );
    assert_eq!(machine.world().gpus[0].instances.len(), 2);
}

#[test]
fn several_are_created_at_once_or_not_at_all() {
    let machine = Machine::written(TWO);
    assert_data_eq!(
        machine.transcript("--gpuid 1 create instance --type 3g.20gb,1g.5gb,19@2"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID
  1  13   0  1g.5gb   2:1        MIG-0a9ec553-80d4-5f41-a0c6-43809902ca70
  1  14   0  1g.5gb   3:1        MIG-e427f7c0-3c91-5bae-ad6e-add11d2de9fb
  1   1   0  3g.20gb  4:4        MIG-bc6813a3-e3b0-5af0-aad3-88ff39485d5c
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid all create instance --type 2g.10gb --count 2"),
        str![[r#"
! error: GPU 1: 2 x 2g.10gb do not fit: 4 memory slices are needed, and 2 free; 4 compute slices are needed, and 2 free
! hint: of these fit: 2g.10gb
! hint: GPU 1 still takes 2 x 1g.5gb, 1 x 2g.10gb, 1 x 1g.5gb+me or 1 x 1g.10gb
exit 3

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 0 create instance --type 1g.5gb --count 7"),
        str![[r#"
GPU  GI  CI  TYPE    PLACEMENT  UUID
  0  11   0  1g.5gb  0:1        MIG-52a664fc-bcd3-5260-bb17-31c7041d09b5
  0  12   0  1g.5gb  1:1        MIG-5b57495b-6289-52c3-b072-428d169e8215
  0  13   0  1g.5gb  2:1        MIG-6e0cec62-239c-5d15-a98e-0502b95e83fe
  0  14   0  1g.5gb  3:1        MIG-9faa9799-013d-5c1f-a57d-1d7c21651ac4
  0   7   0  1g.5gb  4:1        MIG-94c70515-e72b-53f6-92dc-eb36e7e2b85f
  0   8   0  1g.5gb  5:1        MIG-fa42555d-341a-5675-8c6b-f18cd0656bd6
  0   9   0  1g.5gb  6:1        MIG-22e3df70-25d4-5c6a-8a12-c027370b73d4
exit 0

"#]]
    );
    assert_eq!(machine.world().gpus[1].instances.len(), 3, "nothing was created on the GPU that had room, either");
    assert_data_eq!(
        machine.transcript("--gpuid 1 create instance --type 1g.5gb --no-compute"),
        str![[r#"
GPU  GI  CI  TYPE    PLACEMENT  UUID
  1  11  -   1g.5gb  0:1        -
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("--gpuid 1 list config"),
        str![[r#"
GPU  GI  CI  TYPE     PLACEMENT  UUID                                      USERS
  1  11   -  1g.5gb   0:1        -                                         -
  1  13   0  1g.5gb   2:1        MIG-0a9ec553-80d4-5f41-a0c6-43809902ca70  -
  1  14   0  1g.5gb   3:1        MIG-e427f7c0-3c91-5bae-ad6e-add11d2de9fb  -
  1   1   0  3g.20gb  4:4        MIG-bc6813a3-e3b0-5af0-aad3-88ff39485d5c  -
exit 0

"#]]
    );
}
