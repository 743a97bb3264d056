//! What is common to all verbs that change something: which GPUs, a dry run, and the account in JSON.

mod machine;

use machine::{CUT, Machine};
use snapbox::{assert_data_eq, str};

#[test]
fn gpus_are_named_in_every_way() {
    let machine = Machine::new("a100-mixed");
    for name in ["0", "GPU-aaaaaaaa-0000-4000-8000-000000000000", "0000:3b:00.0", "3B:00.0", "00000000:3B:00.0"] {
        let answer = machine.json(&format!("--gpuid {name} list config"));
        assert_eq!(answer["gpus"][0]["index"], 0, "{name}");
        assert_eq!(answer["gpus"].as_array().unwrap().len(), 1, "{name}");
    }
    assert_eq!(machine.json("--gpuid all list config")["gpus"].as_array().unwrap().len(), 4);
    assert_eq!(machine.json("--gpuid 3,0 list config")["gpus"].as_array().unwrap().len(), 2);
}

#[test]
fn a_dry_run_touches_nothing() {
    let machine = Machine::written(CUT);
    machine.write("layout.yaml", "version: v1\nmig-configs:\n  half:\n    - devices: all\n      mig-enabled: true\n      mig-devices: { 3g.20gb: 2 }\n");
    let off = Machine::written("gpus:\n  - model: H100-80GB-HBM3\n");
    for (machine, line) in [
        (&off, "enable"),
        (&machine, "disable --destroy-instances"),
        (&machine, "create instance --type 2g.10gb"),
        (&machine, "destroy instance --all"),
        (&machine, "apply -f layout.yaml"),
    ] {
        let output = machine.run(&format!("--dry-run {line}"));
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}: {}", machine.told(&output));
        assert_eq!(machine.changes(), 0, "{line}");
        let answer = machine.json(&format!("--dry-run {line}"));
        assert_eq!(answer["dry_run"], true, "{line}");
        assert_ne!(answer["gpus"][0]["left"], serde_json::json!([]), "{line}");
    }
    assert!(!machine.path("node.lock").exists(), "a dry run takes no lock");
}

#[test]
fn json_says_what_was_done() {
    let machine = Machine::written(CUT);
    assert_data_eq!(
        machine.transcript("-o json create instance --type 2g.10gb"),
        str![[r#"
{
  "dry_run": false,
  "gpus": [
    {
      "index": 0,
      "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
      "done": [
        {
          "step": "create-gpu-instance",
          "profile": "2g.10gb",
          "placement": {
            "start": 2,
            "size": 2
          },
          "compute": [
            "2g.10gb"
          ],
          "created": {
            "id": 6,
            "profile": "2g.10gb",
            "placement": {
              "start": 2,
              "size": 2
            },
            "compute_instances": [
              {
                "id": 0,
                "profile": "2g.10gb",
                "uuid": "MIG-57b4b551-6dab-5c93-9e47-d9656235d34c",
                "placement": {
                  "start": 0,
                  "size": 2
                }
              }
            ]
          }
        }
      ],
      "failed": null,
      "left": [],
      "needs": null
    }
  ]
}
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("-o json list config"),
        str![[r#"
{
  "gpus": [
    {
      "index": 0,
      "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
      "name": "NVIDIA A100-SXM4-40GB",
      "mig_enabled": true,
      "instances": [
        {
          "id": 11,
          "profile": "1g.5gb",
          "placement": {
            "start": 0,
            "size": 1
          },
          "users": [],
          "compute_instances": [
            {
              "id": 0,
              "profile": "1g.5gb",
              "uuid": "MIG-aaaaaaaa-0000-5000-8000-000000000002",
              "placement": {
                "start": 0,
                "size": 1
              },
              "users": []
            }
          ]
        },
        {
          "id": 12,
          "profile": "1g.5gb",
          "placement": {
            "start": 1,
            "size": 1
          },
          "users": [],
          "compute_instances": [
            {
              "id": 0,
              "profile": "1g.5gb",
              "uuid": "MIG-aaaaaaaa-0000-5000-8000-000000000003",
              "placement": {
                "start": 0,
                "size": 1
              },
              "users": []
            }
          ]
        },
        {
          "id": 6,
          "profile": "2g.10gb",
          "placement": {
            "start": 2,
            "size": 2
          },
          "users": [],
          "compute_instances": [
            {
              "id": 0,
              "profile": "2g.10gb",
              "uuid": "MIG-57b4b551-6dab-5c93-9e47-d9656235d34c",
              "placement": {
                "start": 0,
                "size": 2
              },
              "users": []
            }
          ]
        },
        {
          "id": 1,
          "profile": "3g.20gb",
          "placement": {
            "start": 4,
            "size": 4
          },
          "users": [],
          "compute_instances": [
            {
              "id": 0,
              "profile": "3g.20gb",
              "uuid": "MIG-aaaaaaaa-0000-5000-8000-000000000001",
              "placement": {
                "start": 0,
                "size": 3
              },
              "users": []
            }
          ]
        }
      ]
    }
  ]
}
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("-o yaml destroy instance --instanceid 12"),
        str![[r#"
dry_run: false
gpus:
- index: 0
  uuid: GPU-aaaaaaaa-0000-4000-8000-000000000000
  done:
  - step: destroy-gpu-instance
    gpu_instance: 12
    profile: 1g.5gb
    placement:
      start: 1
      size: 1
    compute_instances:
    - id: 0
      uuid: MIG-aaaaaaaa-0000-5000-8000-000000000003
  failed: null
  left: []
  needs: null
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("-o json list gpu"),
        str![[r#"
{
  "driver": {
    "version": "580.159.04",
    "nvml": "13.580.159.04"
  },
  "gpus": [
    {
      "index": 0,
      "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
      "name": "NVIDIA A100-SXM4-40GB",
      "pci_address": "0000:07:00.0",
      "memory_bytes": 42949672960,
      "mig": {
        "supported": true,
        "enabled": true,
        "pending": null
      },
      "instances": 3,
      "fault": null
    }
  ],
  "unreadable": []
}
exit 0

"#]]
    );
}
