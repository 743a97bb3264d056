use snapbox::Data;

use crate::repository;

/// Compares with a file of the repository; `SNAPSHOTS=overwrite` writes it.
pub fn assert_snapshot(path: &str, actual: &str) {
    let file = repository(path);
    if std::env::var_os("SNAPSHOTS").is_some_and(|value| value == "overwrite") {
        std::fs::write(&file, actual).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    assert!(file.exists(), "{path} is missing: SNAPSHOTS=overwrite makes it");
    snapbox::assert_data_eq!(actual.to_owned(), Data::read_from(&file, None).raw());
}

/// The names of all manifests in snapshots/.
pub fn snapshots() -> Vec<String> {
    crate::stems("tests/chart/snapshots", ".yaml")
}
