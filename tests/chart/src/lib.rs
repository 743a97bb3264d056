//! What the tests of the chart share: helm, the repository's files, snapshots.
//!
//! `make chart` runs them, with helm 3 and helm 4. `SNAPSHOTS=overwrite make chart` writes snapshots/ and deploy/ anew.

#![allow(clippy::expect_used, clippy::panic, reason = "a test harness: what fails here fails the test")]

mod cluster;
mod helm;
mod snapshot;
mod values;

use std::path::{Path, PathBuf};

pub use cluster::Cluster;
pub use helm::{Helm, Refusal, helms};
pub use snapshot::{assert_snapshot, snapshots};
pub use values::{WHOLE, default_values, flattened, tables};

/// A path of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// What stands in one of the repository's files.
pub fn text_of(path: &str) -> String {
    let file = repository(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The files of a folder of the repository whose names end so, in order: each one's name without the ending.
pub fn stems(folder: &str, ending: &str) -> Vec<String> {
    let folder = repository(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned());
    let mut stems: Vec<String> = names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect();
    stems.sort();
    stems
}
