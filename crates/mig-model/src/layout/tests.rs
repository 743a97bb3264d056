use super::*;
use crate::model::Model;

const PARTED: &str = r#"
version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  all-enabled:
    - devices: all
      mig-enabled: true
      mig-devices: {}
  mixed:
    - devices: [0, 1]
      mig-enabled: false
    - devices: [2]
      mig-enabled: true
      mig-devices:
        "1g.5gb": 2
        "2g.10gb": 1
        "3g.20gb": 1
  balanced:
    - device-filter: ["0x20B010DE", "0x20B110DE"]
      devices: all
      mig-enabled: true
      mig-devices: { "1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1 }
    - device-filter: "0x233010DE"
      devices: all
      mig-enabled: true
      mig-devices: { "1g.10gb+me": 1 }
  parts:
    - devices: all
      mig-enabled: true
      mig-devices: { "1c.3g.20gb": 3, "2c.3g.20gb": 1 }
"#;

const OURS: &str = r#"
version: mig-agent/v1
layouts:
  training:
    - gpus: [0, "0000:08:00.0"]
      instances:
        - profile: 3g.20gb
          placement: 4
        - 2g.10gb
        - profile: 1g.5gb
          count: 2
    - gpus: [GPU-aaaaaaaa-0000-4000-8000-000000000002]
      product: A100*
      instances:
        - profile: 3g.20gb
          compute: [1c.3g.20gb, 2c.3g.20gb]
  off:
    - product: [NVIDIA A100-SXM4-40GB]
      mig: false
"#;

fn a100() -> Geometry {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/A100-SXM4-40GB.yaml");
    Model::parse(&std::fs::read_to_string(path).unwrap()).unwrap().geometry.unwrap()
}

const UUIDS: [&str; 3] = [
    "GPU-aaaaaaaa-0000-4000-8000-000000000000",
    "GPU-aaaaaaaa-0000-4000-8000-000000000001",
    "GPU-aaaaaaaa-0000-4000-8000-000000000002",
];

fn node(geometry: &Geometry) -> Vec<GpuIdentity<'_>> {
    let gpu = |(index, uuid)| GpuIdentity {
        index,
        uuid: Some(uuid),
        pci_address: Some(["0000:07:00.0", "0000:08:00.0", "0000:0b:00.0"][usize::try_from(index).unwrap()]),
        name: "NVIDIA A100-SXM4-40GB",
        pci_ids: Some((0x20B0_10DE, 0x144E_10DE)),
        geometry: Some(geometry),
    };
    (0..).zip(UUIDS).map(gpu).collect()
}

/// `GPU: what`, a line each.
fn resolved(text: &str, name: &str) -> Result<Vec<String>, LayoutError> {
    let geometry = a100();
    let file = LayoutFile::parse(text)?;
    let wishes = file.select(Some(name))?.resolve(&node(&geometry))?;
    let line = |(gpu, wish): (usize, GpuWish)| {
        let instances: Vec<String> = wish.instances.iter().map(WantedInstance::to_string).collect();
        format!("{gpu}: {}", if wish.mig { instances.join(" + ") } else { "off".to_owned() })
    };
    Ok(wishes.into_iter().map(line).collect())
}

#[test]
fn mig_parteds_files_are_read_as_they_are() {
    assert_eq!(resolved(PARTED, "all-disabled").unwrap(), ["0: off", "1: off", "2: off"]);
    assert_eq!(resolved(PARTED, "all-enabled").unwrap(), ["0: ", "1: ", "2: "]);
    assert_eq!(resolved(PARTED, "mixed").unwrap(), ["0: off", "1: off", "2: 1g.5gb + 1g.5gb + 2g.10gb + 3g.20gb"]);
    let all = resolved(PARTED, "balanced").unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[1], "1: 1g.5gb + 1g.5gb + 2g.10gb + 3g.20gb");
    // Parts share GPU instances: 2 + 1, and 1 + 1 in another.
    assert_eq!(
        resolved(PARTED, "parts").unwrap()[0],
        "0: 3g.20gb (2c.3g.20gb, 1c.3g.20gb) + 3g.20gb (1c.3g.20gb, 1c.3g.20gb)"
    );
}

#[test]
fn ours_say_where_and_which() {
    assert_eq!(
        resolved(OURS, "training").unwrap(),
        [
            "0: 3g.20gb@4 + 2g.10gb + 1g.5gb + 1g.5gb",
            "1: 3g.20gb@4 + 2g.10gb + 1g.5gb + 1g.5gb",
            "2: 3g.20gb (1c.3g.20gb, 2c.3g.20gb)",
        ]
    );
    assert_eq!(resolved(OURS, "off").unwrap(), ["0: off", "1: off", "2: off"]);
}

#[test]
fn a_layout_is_chosen_by_name_or_by_being_the_only_one() {
    let file = LayoutFile::parse(PARTED).unwrap();
    assert_eq!(
        file.select(Some("all-disable")).unwrap_err().to_string(),
        r#"there is no layout "all-disable"; the file has "all-disabled", "all-enabled", "balanced", "mixed", "parts""#
    );
    assert_eq!(
        file.select(None).unwrap_err().to_string(),
        r#"which layout? the file has "all-disabled", "all-enabled", "balanced", "mixed", "parts""#
    );
    let one = LayoutFile::parse("version: mig-agent/v1\nlayouts: { only: [] }").unwrap();
    assert_eq!(one.select(None).unwrap().name, "only");
}

/// An entry in ours, from line 4 on.
fn entry(text: &str) -> String {
    format!("version: mig-agent/v1\nlayouts:\n  it:\n    - {}", text.replace('\n', "\n      "))
}

/// An entry in mig-parted's, from line 4 on.
fn parted(text: &str) -> String {
    format!("version: v1\nmig-configs:\n  it:\n    - {}", text.replace('\n', "\n      "))
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, says) in [
        ("".to_owned(), "line 1: unexpected end of input"),
        ("a: 1".to_owned(), "missing field `version`"),
        ("version: v2\n".to_owned(), "unknown version \"v2\": expected v1 (mig-parted's) or mig-agent/v1"),
        ("version: v1\n".to_owned(), "mig-configs"),
        ("version: v1\nmig-configs: [1]\n".to_owned(), "line 2"),
        ("version: v1\nmig-configs:\n  it: [\n".to_owned(), "line 3"),
        (parted("devices: all\nmig-enabled: true"), "line 4: mig-devices is missing"),
        (
            parted("devices: all\nmig-enabled: true\nmig-devices: { 1g.5gb: 0 }"),
            "line 4: mig-devices has no count above 0",
        ),
        (
            parted("devices: all\nmig-enabled: false\nmig-devices: { 1g.5gb: 1 }"),
            "line 4: mig-devices with mig-enabled: false",
        ),
        (
            parted("devices: 7\nmig-enabled: false"),
            "line 4: invalid type: integer `7`, expected a word, or a list such as [a, b]",
        ),
        (parted("devices: some\nmig-enabled: false"), "line 4: unknown devices \"some\""),
        (parted("devices: all\nmig-enabled: maybe"), "line 5"),
        (
            parted("devices: all\nmig-enabled: true\nmig-devices: { 1g.5: 1 }"),
            "line 6: unable to read \"1g.5\" as a MIG profile",
        ),
        (parted("devices: all\nmig-enabled: true\nmig-devices: { 1g.5gb: -1 }"), "line 6"),
        (
            parted("devices: all\nmig-enabled: true\nmig-devices: { 1g.5gb: 4000000000 }"),
            "line 6: 4000000000 of 1g.5gb on one GPU",
        ),
        (parted("devices: all\nmig-enabled: true\nmig-devices: {}\nplacement: 4"), "line 7: unknown field `placement`"),
        (
            parted("device-filter: 20B010DE\ndevices: all\nmig-enabled: false"),
            "line 4: unable to read \"20B010DE\" as a PCI id",
        ),
        (entry("gpus: [x]"), "line 4: unable to read \"x\" as a GPU"),
        (entry("gpus: some"), "line 4: unknown gpus \"some\""),
        (entry("gpus: all\nmig: false\ninstances: [1g.5gb]"), "line 4: instances with mig: false"),
        (entry("instances:\n- profile: 3g.20gb\n  place: 4"), "line 6: unknown field `place`"),
        (entry("instances:\n- 3g.20"), "line 5: unable to read \"3g.20\" as a MIG profile"),
        (entry("instances:\n- 3"), "line 5: invalid type: integer `3`, expected a profile such as 3g.20gb"),
        (entry("instances:\n- { profile: 3g.20gb, count: 0 }"), "line 5: count is 1 to 64, not 0"),
        (entry("instances:\n- { profile: 3g.20gb, count: 2, placement: 0 }"), "line 5: a placement is one instance's"),
        (entry("instances:\n- { profile: 1c.3g.20gb, placement: 0 }"), "line 5: 1c.3g.20gb is a compute instance"),
        (
            entry("instances:\n- { profile: 3g.20gb, compute: [1c.4g.20gb] }"),
            "line 5: 1c.4g.20gb is no part of 3g.20gb",
        ),
        (entry("instances:\n- { profile: 3g.20gb, compute: [] }"), "line 5: compute is empty"),
    ] {
        let error = LayoutFile::parse(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}\n{error}\n{says}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert_eq!(LayoutFile::parse(&" ".repeat(50 << 20)), Err(LayoutError::TooLong));
    let nested = format!("version: v1\nmig-configs: {}", "[".repeat(10_000));
    assert!(LayoutFile::parse(&nested).unwrap_err().to_string().contains("line 2"));
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(","));
    }
    let error = LayoutFile::parse(&bomb).unwrap_err().to_string();
    assert!(error.contains("unfolds into more"), "{error}");
}

#[test]
fn what_does_not_go_with_the_gpus_is_said() {
    for (text, says) in [
        (parted("devices: [0, 3]\nmig-enabled: false"), "line 4: there is no GPU 3; there are 0, 1, 2"),
        (entry("gpus: [GPU-1234]"), "line 4: there is no GPU GPU-1234; there are 0, 1, 2"),
        (
            entry(&format!("gpus: [{}]\nproduct: H100*", UUIDS[0])),
            "line 4: GPU 0 is named here, but is NVIDIA A100-SXM4-40GB (0x20B010DE), which the same entry rules out",
        ),
        (
            entry(&format!("gpus: [0]\ninstances: [3g.20gb]\n\n- gpus: [{}]", UUIDS[0]))
                .replace("      - gpus", "    - gpus"),
            "lines 4 and 7 both speak of GPU 0, and want different things of it",
        ),
        (
            parted("devices: all\nmig-enabled: true\nmig-devices: { 3c.4g.20gb: 1 }"),
            "line 6: 4g.20gb has no compute instance 3c.4g.20gb; it has 1c.4g.20gb, 2c.4g.20gb, 4g.20gb",
        ),
    ] {
        assert_eq!(resolved(&text, "it").unwrap_err().to_string(), says, "{text}");
    }
    // The same twice is no contradiction, in whatever order; and mig-parted's filters rule out in silence.
    let twice = "gpus: [0]\ninstances: [3g.20gb, 2g.10gb]\n\n- gpus: all\ninstances: [2g.10gb, 3g.20gb]";
    assert!(resolved(&entry(twice).replace("      - gpus", "    - gpus"), "it").is_ok());
    let filtered = parted("device-filter: \"0x233010DE\"\ndevices: [0]\nmig-enabled: true\nmig-devices: {}");
    assert_eq!(resolved(&filtered, "it").unwrap(), Vec::<String>::new());
}

#[test]
fn gpus_have_many_names() {
    let geometry = a100();
    let node = node(&geometry);
    for (text, index) in [
        ("0", 0),
        ("02", 2),
        (UUIDS[1], 1),
        ("gpu-AAAAAAAA-0000-4000-8000-000000000001", 1),
        ("0000:08:00.0", 1),
        ("00000000:0B:00.0", 2),
        ("7:0.0", 0),
        ("08:00", 1),
    ] {
        let selector: GpuSelector = text.parse().unwrap();
        let found: Vec<u32> = node.iter().filter(|gpu| selector.names(gpu)).map(|gpu| gpu.index).collect();
        assert_eq!(found, [index], "{text}");
    }
    for text in ["", "-1", "all", "GPU-", "1.0", "0000:07:00.0.0", "99999999999", "::", "+1:00"] {
        assert!(text.parse::<GpuSelector>().is_err(), "{text:?}");
    }
}
