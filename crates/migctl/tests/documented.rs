//! What docs/migctl.md shows is what happens. `DOCS=overwrite` writes it anew.

mod machine;

use std::path::Path;

use machine::Machine;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn the_examples_are_true() {
    let file = Path::new(REPOSITORY).join("docs/migctl.md");
    let written = std::fs::read_to_string(&file).unwrap();
    let mut machine = Machine::bare();
    let mut inside = false;
    let mut shown = String::new();
    for line in written.lines() {
        let opens = line == "```console";
        if let Some(scene) = line.strip_prefix("<!-- scene: ").and_then(|rest| rest.strip_suffix(" -->")) {
            machine = Machine::new(scene);
        }
        if inside && line == "```" {
            inside = false;
        }
        if !inside || line.starts_with("$ ") {
            shown.push_str(line);
            shown.push('\n');
        }
        if inside && let Some(command) = line.strip_prefix("$ migctl ") {
            let output = machine.command().current_dir(REPOSITORY).args(command.split(' ')).output().unwrap();
            shown.push_str(std::str::from_utf8(&output.stdout).unwrap());
            shown.push_str(std::str::from_utf8(&output.stderr).unwrap());
        }
        inside |= opens;
    }
    if std::env::var_os("DOCS").is_some_and(|value| value == "overwrite") {
        std::fs::write(&file, &shown).unwrap();
    }
    snapbox::assert_data_eq!(shown, snapbox::Data::read_from(&file, None).raw());
}

#[test]
fn the_example_layouts_fit() {
    let none = Machine::bare();
    for (file, names) in [
        ("mig-parted", ["all-disabled", "all-1g.5gb", "halves-and-smalls"].as_slice()),
        ("placed", ["inference", "whole"].as_slice()),
    ] {
        for name in names {
            let file = format!("{REPOSITORY}/tests/layouts/{file}.yaml");
            let output = none.run(&format!("plan -f {file} --config {name} --model A100-SXM4-40GB --gpus 2"));
            assert!(output.status.success(), "{}", none.told(&output));
        }
    }
}
