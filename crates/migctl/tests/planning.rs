//! Questions that need no GPU.

mod machine;

use machine::Machine;
use snapbox::{assert_data_eq, str};

#[test]
fn what_fits_is_said_with_its_place() {
    let none = Machine::bare();
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 3g.20gb 1g.5gb"),
        str![[r#"
NVIDIA A100-SXM4-40GB: 2 steps
  + create 1g.5gb at 0:1
  + create 3g.20gb at 4:4
  room left: 3 x 1g.5gb, 1 x 1g.5gb+me, 1 x 1g.10gb or 1 x 2g.10gb
exit 0

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 1c.3g.20gb 1c.3g.20gb,2c.3g.20gb"),
        str![[r#"
NVIDIA A100-SXM4-40GB: 2 steps
  + create 3g.20gb at 0:4 with 1c.3g.20gb, 1c.3g.20gb
  + create 3g.20gb at 4:4 with 2c.3g.20gb
  room left: nothing
exit 0

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model H200 3g.71gb@4 9 --explain"),
        str![[r#"
NVIDIA H200: 2 steps
  + create 3g.71gb at 0:4
  + create 3g.71gb at 4:4
  room left: nothing
  no other placement serves
exit 0

"#]]
    );
}

#[test]
fn what_does_not_fit_is_said_with_the_reason() {
    let none = Machine::bare();
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 3g.20gb 3g.20gb 3g.20gb"),
        str![[r#"
! error: NVIDIA A100-SXM4-40GB: 3 x 3g.20gb do not fit: 12 memory slices are needed, and 8 free; 9 compute slices are needed, and 7 free; a GPU takes at most 2 of 3g.20gb, not 3
! hint: of these fit: 2 x 3g.20gb
exit 3

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 4g.20gb 3g.20gb 1g.5gb"),
        str![[r#"
! error: NVIDIA A100-SXM4-40GB: 4g.20gb + 3g.20gb + 1g.5gb do not fit: 9 memory slices are needed, and 8 free; 8 compute slices are needed, and 7 free
! hint: of these fit: 4g.20gb + 3g.20gb; or 3g.20gb + 1g.5gb; or 4g.20gb + 1g.5gb
exit 3

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 3g.20gb@2"),
        str![[r#"
! error: NVIDIA A100-SXM4-40GB: 3g.20gb cannot lie at 2
! hint: it can at 0, 4
exit 3

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 2g.11gb"),
        str![[r#"
! error: NVIDIA A100-SXM4-40GB has no instance type 2g.11gb
! hint: it has 2g.10gb, 1g.10gb, 1g.5gb, 1g.5gb+me, 3g.20gb, 4g.20gb, 7g.40gb
exit 7

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 99"),
        str![[r#"
! error: NVIDIA A100-SXM4-40GB has no instance type of id 99
! hint: it has 19 (1g.5gb), 20 (1g.5gb+me), 15 (1g.10gb), 14 (2g.10gb), 9 (3g.20gb), 5 (4g.20gb), 0 (7g.40gb)
exit 7

"#]]
    );
    assert_data_eq!(
        none.transcript("-o json plan --model A100-SXM4-40GB 7g.40gb 1g.5gb"),
        str![[r#"
{
  "fits": false,
  "gpus": [
    {
      "index": 0,
      "uuid": null,
      "name": "NVIDIA A100-SXM4-40GB",
      "fits": false,
      "kept": [],
      "steps": [],
      "room": [],
      "error": {
        "kind": "DoesNotFit",
        "message": "NVIDIA A100-SXM4-40GB: 7g.40gb + 1g.5gb do not fit: 9 memory slices are needed, and 8 free; 8 compute slices are needed, and 7 free",
        "hints": [
          "of these fit: 7g.40gb; or 1g.5gb"
        ]
      }
    }
  ]
}
! {"error":{"kind":"DoesNotFit","message":"NVIDIA A100-SXM4-40GB: 7g.40gb + 1g.5gb do not fit: 9 memory slices are needed, and 8 free; 8 compute slices are needed, and 7 free","hints":["of these fit: 7g.40gb; or 1g.5gb"],"exit":3}}
exit 3

"#]]
    );
}

#[test]
fn what_is_no_type_or_model_is_refused() {
    let none = Machine::bare();
    assert_data_eq!(
        none.transcript("plan --model A100-SXM4-40GB 3g"),
        str![[r#"
! error: invalid value '3g' for '[TYPES]...': unable to read "3g" as a MIG profile, expected a name such as 1g.5gb, 1g.10gb+me or 1c.3g.20gb
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model A100 3g.20gb"),
        str![[r#"
! error: there is no built-in model A100
! hint: built in are A100-SXM4-40GB, A100-SXM4-80GB, A30, H100-80GB-HBM3, H100-NVL, H200, RTX-PRO-6000, T4
! hint: a file like those in models/ does as well: --model ./my-gpu.yaml; migctl capture writes one
exit 7

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model ./absent.yaml 3g.20gb"),
        str![[r#"
! error: unable to read ./absent.yaml: No such file or directory (os error 2)
exit 7

"#]]
    );
    assert_data_eq!(
        none.transcript("plan --model T4 3g.20gb"),
        str![[r#"
! error: Tesla T4 cannot be cut: it has no MIG
exit 1

"#]]
    );
    none.write("broken.yaml", "name: X\nmig: { memory_slices: 8 }\n");
    assert_data_eq!(
        none.transcript("plan --model broken.yaml 3g.20gb"),
        str![[r#"
! error: broken.yaml describes no GPU model: line 2: missing field `compute_slices`
exit 2

"#]]
    );
}

#[test]
fn a_layout_is_planned_for_a_model() {
    let none = Machine::bare();
    none.write("layout.yaml", "version: v1\nmig-configs:\n  small:\n    - devices: all\n      mig-enabled: true\n      mig-devices: { 1g.5gb: 7 }\n");
    assert_data_eq!(
        none.transcript("plan -f layout.yaml --model A100-SXM4-40GB --gpus 2"),
        str![[r#"
GPU 0: 7 steps
  + create 1g.5gb at 0:1
  + create 1g.5gb at 1:1
  + create 1g.5gb at 2:1
  + create 1g.5gb at 3:1
  + create 1g.5gb at 4:1
  + create 1g.5gb at 5:1
  + create 1g.5gb at 6:1
  room left: nothing
GPU 1: 7 steps
  + create 1g.5gb at 0:1
  + create 1g.5gb at 1:1
  + create 1g.5gb at 2:1
  + create 1g.5gb at 3:1
  + create 1g.5gb at 4:1
  + create 1g.5gb at 5:1
  + create 1g.5gb at 6:1
  room left: nothing
exit 0

"#]]
    );
}

#[test]
fn every_way_to_fill_a_gpu_can_be_listed() {
    let none = Machine::bare();
    let plain = "--profiles 1g.5gb,2g.10gb,3g.20gb,4g.20gb,7g.40gb";
    let model = "--model A100-SXM4-40GB";
    assert_data_eq!(
        none.transcript(&format!("list config --all {model} {plain}")),
        str![[r#"
7g.40gb@0
3g.20gb@0 3g.20gb@4
3g.20gb@0 2g.10gb@4 1g.5gb@6
3g.20gb@0 1g.5gb@4 1g.5gb@5 1g.5gb@6
4g.20gb@0 3g.20gb@4
4g.20gb@0 2g.10gb@4 1g.5gb@6
4g.20gb@0 1g.5gb@4 1g.5gb@5 1g.5gb@6
2g.10gb@0 2g.10gb@2 3g.20gb@4
2g.10gb@0 2g.10gb@2 2g.10gb@4 1g.5gb@6
2g.10gb@0 2g.10gb@2 1g.5gb@4 1g.5gb@5 1g.5gb@6
2g.10gb@0 1g.5gb@2 1g.5gb@3 3g.20gb@4
2g.10gb@0 1g.5gb@2 1g.5gb@3 2g.10gb@4 1g.5gb@6
2g.10gb@0 1g.5gb@2 1g.5gb@3 1g.5gb@4 1g.5gb@5 1g.5gb@6
1g.5gb@0 1g.5gb@1 2g.10gb@2 3g.20gb@4
1g.5gb@0 1g.5gb@1 2g.10gb@2 2g.10gb@4 1g.5gb@6
1g.5gb@0 1g.5gb@1 2g.10gb@2 1g.5gb@4 1g.5gb@5 1g.5gb@6
1g.5gb@0 1g.5gb@1 1g.5gb@2 1g.5gb@3 3g.20gb@4
1g.5gb@0 1g.5gb@1 1g.5gb@2 1g.5gb@3 2g.10gb@4 1g.5gb@6
1g.5gb@0 1g.5gb@1 1g.5gb@2 1g.5gb@3 1g.5gb@4 1g.5gb@5 1g.5gb@6
exit 0

"#]]
    );
    assert_data_eq!(
        none.transcript(&format!("list config --all {model} {plain} --count -o json")),
        str![[r#"
{
  "name": "NVIDIA A100-SXM4-40GB",
  "count": 19
}
exit 0

"#]]
    );
    assert_data_eq!(
        none.transcript("list config --all --model A30 --profiles 1g.5gb"),
        str![[r#"
! error: NVIDIA A30 has no instance type 1g.5gb
! hint: it has 1g.6gb, 1g.6gb+me, 2g.12gb, 2g.12gb+me, 4g.24gb
exit 7

"#]]
    );
}

#[test]
fn what_a_model_offers_can_be_listed() {
    let none = Machine::bare();
    assert_data_eq!(
        none.transcript("--gpuid 0 list instance --model H200"),
        str![[r#"
! error: --model and --gpuid exclude each other
exit 2

"#]]
    );
    assert_data_eq!(
        none.transcript("list instance --model H200"),
        str![[r#"
NVIDIA H200, 8 memory slices, 7 compute slices
TYPE        ID  FREE  MEMORY      SMS  CE  DEC  ENC  JPG  OFA  PLACEMENTS
1g.18gb     19  -/7   16.00 GiB    16   1    1    0    1    0  {0,1,2,3,4,5,6}:1
1g.18gb+me  20  -/1   16.00 GiB    16   1    1    0    1    1  {0,1,2,3,4,5,6}:1
1g.35gb     15  -/4   32.50 GiB    26   1    1    0    1    0  {0,2,4,6}:2
2g.35gb     14  -/3   32.50 GiB    32   2    2    0    2    0  {0,2,4}:2
3g.71gb      9  -/2   69.75 GiB    60   3    3    0    3    0  {0,4}:4
4g.71gb      5  -/1   69.75 GiB    64   4    4    0    4    0  {0}:4
7g.141gb     0  -/1   140.00 GiB  132   8    7    0    7    1  {0}:8
exit 0

"#]]
    );
    assert_data_eq!(
        none.transcript("list instance --model A30 --compute"),
        str![[r#"
NVIDIA A30, 4 memory slices, 4 compute slices
TYPE             ID  FREE  MEMORY     SMS  CE  DEC  ENC  JPG  OFA  PLACEMENTS
1g.6gb           14  -/4   5.81 GiB    14   1    1    0    0    0  {0,1,2,3}:1
1g.6gb+me        21  -/1   5.81 GiB    14   1    1    0    1    1  {0,1,2,3}:1
2g.12gb           5  -/2   11.69 GiB   28   2    2    0    0    0  {0,2}:2
  1c.2g.12gb      0  -/2   -           14   -    -    -    -    -  {0,1}:1
2g.12gb+me        6  -/1   11.69 GiB   28   2    2    0    1    1  {0,2}:2
  1c.2g.12gb+me   0  -/2   -           14   -    -    -    -    -  {0,1}:1
4g.24gb           0  -/1   23.44 GiB   56   4    4    0    1    1  {0}:4
  1c.4g.24gb      0  -/4   -           14   -    -    -    -    -  {0,1,2,3}:1
  2c.4g.24gb      1  -/2   -           28   -    -    -    -    -  {0,2}:2
exit 0

"#]]
    );
}
