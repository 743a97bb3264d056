//! Where the files are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// What is built, fetched or git's own: nobody's documentation.
const NOT_OURS: [&str; 3] = ["target", ".git", "node_modules"];

/// The repository's root, without `..` in it.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    let file = root().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("unable to read {}: {error}", file.display()))
}

/// Files below a folder of the repository with this extension, relative to its root, sorted.
pub fn files(folder: &str, extension: &str) -> Vec<String> {
    let root = root();
    let ours = |name: &OsStr| !NOT_OURS.iter().any(|other| name == *other);
    let walk = WalkDir::new(root.join(folder)).sort_by_file_name().into_iter();
    let entries = walk.filter_entry(|entry| ours(entry.file_name())).map(|entry| entry.expect("a readable folder"));
    let found = entries.filter(|entry| entry.file_type().is_file());
    let found = found.filter(|entry| entry.path().extension().is_some_and(|of| of == extension));
    found.map(|entry| entry.path().strip_prefix(&root).expect("a file of ours").display().to_string()).collect()
}
