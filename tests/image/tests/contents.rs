//! What is in the images, and what is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests"
)]

use std::collections::BTreeSet;

use image::{Archive, Entry};

const IMAGES: [&str; 2] = ["mig-agent", "fake-nvml"];

fn files(image: &Archive) -> Vec<Entry> {
    image.last_layer().unwrap().into_iter().filter(|entry| !entry.is_folder).collect()
}

#[test]
fn the_agents_image_adds_two_programs_and_their_licences_to_its_base() {
    let image = Archive::open("mig-agent").unwrap();
    let mut seen: BTreeSet<String> = files(&image).into_iter().map(|file| file.path).collect();
    // In a folder named for the processor.
    seen.retain(|path| !path.ends_with("/libgcc_s.so.1"));
    let expected = [
        "usr/bin/mig-agent",
        "usr/bin/migctl",
        "usr/share/doc/libgcc-s1/copyright",
        "usr/share/doc/mig-agent/LICENSE",
        "usr/share/doc/mig-agent/THIRD-PARTY",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

#[test]
fn the_fake_drivers_image_has_its_library_command_models_and_scenes() {
    let image = Archive::open("fake-nvml").unwrap();
    let seen: BTreeSet<String> = files(&image).into_iter().map(|file| file.path).collect();
    let expected = [
        "usr/bin/fake-nvml",
        "usr/lib/fake-nvml/libnvidia-ml.so.1",
        "usr/share/fake-nvml/models/A100-SXM4-40GB.yaml",
        "usr/share/fake-nvml/scenes/demo.yaml",
    ];
    for path in expected {
        assert!(seen.contains(path), "{path} is missing of {seen:#?}");
    }
}

#[test]
fn every_file_is_roots_and_nobody_elses_to_write() {
    for name in IMAGES {
        for entry in Archive::open(name).unwrap().last_layer().unwrap() {
            assert_eq!((entry.owner, entry.mode & 0o7022), (0, 0), "{name}: {}", entry.path);
        }
    }
}

#[test]
fn nothing_says_where_or_when_it_was_built() {
    let home = std::env::var("HOME").unwrap();
    let checkout = std::fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).unwrap();
    // Cargo's folder in the builder is /cargo; a crate's own path begins with the name of the registry that it came from.
    let mut telltales =
        vec!["/cargo/registry".to_owned(), "registry/src".to_owned(), format!("{}/", checkout.display())];
    if home.len() > 1 {
        telltales.push(format!("{home}/"));
    }
    for name in IMAGES {
        let image = Archive::open(name).unwrap();
        let newest = image.config.history.iter().map(|made| made.created.as_str()).max().unwrap();
        assert_eq!(newest, image.config.created, "{name}: one step is from another time");
        for file in files(&image) {
            for telltale in &telltales {
                let found = file.content.windows(telltale.len()).any(|bytes| bytes == telltale.as_bytes());
                assert!(!found, "{name}: {} says {telltale}", file.path);
            }
        }
    }
}

#[test]
fn every_crate_that_is_in_a_program_is_named_with_its_licence() {
    for name in IMAGES {
        let file = format!("usr/share/doc/{name}/THIRD-PARTY");
        let notice = files(&Archive::open(name).unwrap()).into_iter().find(|entry| entry.path == file).expect(&file);
        let text = String::from_utf8(notice.content).unwrap();
        let serde = text.lines().find(|line| line.trim_start().starts_with("serde 1.")).expect("serde is named");
        assert!(serde.ends_with(": MIT OR Apache-2.0"), "{serde}");
        assert!(text.contains("Permission is hereby granted"), "{name}: the licences' texts are missing");
        // Ours are not third parties.
        assert!(!text.contains("  mig-model 0."), "{name}");
    }
}

#[test]
fn each_goes_by_one_name() {
    for name in IMAGES {
        let image = Archive::open(name).unwrap();
        assert_eq!(image.names().len(), 1, "{:?}", image.names());
        assert!(
            image
                .names()
                .iter()
                .all(|full| full.contains(&format!("/{name}:")) || full.starts_with(&format!("{name}:"))),
            "{:?}",
            image.names()
        );
    }
}

#[test]
fn the_labels_say_what_it_is() {
    for name in IMAGES {
        let labels = Archive::open(name).unwrap().config.config.labels;
        let label = |key: &str| labels.get(&format!("org.opencontainers.image.{key}")).map(String::as_str);
        assert_eq!(label("title"), Some(name));
        assert_eq!(label("licenses"), Some("Apache-2.0"));
        assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")));
        assert!(label("description").is_some_and(|text| !text.is_empty()));
        assert!(label("revision").is_some_and(|text| !text.is_empty()));
        let foreign: Vec<&String> = labels.keys().filter(|key| !key.starts_with("org.opencontainers.image.")).collect();
        assert!(foreign.is_empty(), "{name}: {foreign:?}");
    }
}

#[test]
fn a_build_without_arguments_is_of_the_workspaces_version() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Dockerfile")).unwrap();
    let versions: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("ARG VERSION=")).collect();
    assert_eq!(versions, [env!("CARGO_PKG_VERSION")].into());
}

#[test]
fn no_processor_is_named_in_the_recipe() {
    for file in ["Dockerfile", "deploy/image/compile", "deploy/image/notices"] {
        let text = std::fs::read_to_string(format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for word in ["x86", "amd64", "arm64", "aarch64"] {
            assert!(!text.contains(word), "{file} names {word}");
        }
    }
}
