//! The fake driver's chart: what it renders to, what it refuses, and the plain manifest made of it.

#![allow(clippy::panic, reason = "a failure here is the test's")]

use chart::{assert_snapshot, helms, stems};

/// What a person applies without helm.
const HEAD: &str = "\
# A pretended NVIDIA driver on every node, for tests: charts/fake-nvml with its default values. docs/kind.md says what it is good for.
#
#   kubectl apply -f deploy/fake-nvml.yaml
#
# Rendered from the chart: change that, then SNAPSHOTS=overwrite make chart.
apiVersion: v1
kind: Namespace
metadata:
  name: fake-nvml
  labels:
    app.kubernetes.io/name: fake-nvml
    # A folder of the node is mounted, which the stricter levels refuse.
    pod-security.kubernetes.io/enforce: privileged
";

fn rendered(arguments: &[&str]) -> String {
    let mut texts = helms().iter().map(|helm| {
        let text = helm.template_of("fake-nvml", arguments);
        text.unwrap_or_else(|refusal| panic!("helm {}: {}", helm.major, refusal.0))
    });
    let text = texts.next().unwrap_or_default();
    texts.for_each(|other| assert_eq!(text, other));
    text
}

#[test]
fn the_plain_manifest_is_the_chart() {
    let helms_own =
        |line: &&str| !(line.starts_with("# Source:") || line.contains("app.kubernetes.io/managed-by: Helm"));
    let chart = rendered(&[]);
    let chart: String = chart.lines().filter(helms_own).map(|line| format!("{line}\n")).collect();
    assert_snapshot("deploy/fake-nvml.yaml", &(HEAD.to_owned() + &chart));
}

#[test]
fn a_scene_is_named_or_given_and_another_one_replaces_the_pods() {
    let of = |text: &str| text.lines().find(|line| line.contains("fake-nvml/scene:")).map(str::to_owned);
    let default = rendered(&[]);
    for name in stems("charts/fake-nvml/scenes", ".yaml") {
        let text = rendered(&["--set", &format!("scene={name}")]);
        assert_eq!(of(&text) == of(&default), name == "demo", "{name}");
    }
    let given = rendered(&["--set", "scene.gpus[0].model=H200", "--set", "scene.gpus[0].mig=true"]);
    assert!(given.contains("    gpus:\n    - mig: true\n      model: H200\n"), "{given}");
    let text = rendered(&["--set-string", "scene=gpus: []"]);
    assert!(text.contains("  scene.yaml: |\n    gpus: []\n"), "{text}");
}

#[test]
fn what_it_cannot_be_is_refused() {
    for (arguments, words) in [
        (["--set", "scene=nonesuch"], "there are a30, demo, eight-by-seven"),
        (["--set", "scene.gpu=1"], "/scene"),
        (["--set", "driverRoot=/"], "/driverRoot"),
        (["--set", "driverRoot=here"], "/driverRoot"),
        (["--set", "deviceNodes=yes please"], "/deviceNodes"),
        (["--set", "scenes=demo"], "scenes"),
    ] {
        for helm in helms() {
            let refusal = helm.template_of("fake-nvml", &arguments).expect_err("a refusal");
            assert!(refusal.0.contains(words), "{arguments:?}: {}", refusal.0);
        }
    }
}
