//! Our programs, built as a user's `cargo build` does.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::repository;

const PACKAGES: [&str; 5] = ["mig-agent", "migctl", "fake-nvml", "kubelet-sim", "demo"];

/// The folder with all of them and `libfake_nvml.so`: DOCS_BIN_DIR, or where cargo puts them.
pub fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("DOCS_BIN_DIR") {
            return folder.into();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked"]).args(PACKAGES.iter().flat_map(|package| ["-p", package]));
        let built = cargo.current_dir(repository::root()).status().expect("cargo");
        assert!(built.success(), "the programs that the documentation speaks of do not build");
        // target/debug/deps/<this test>
        let test = std::env::current_exe().expect("this test's own file");
        let folder = test.ancestors().nth(2).expect("a folder of builds").to_owned();
        assert!(folder.join("libfake_nvml.so").is_file(), "no fake driver in {}", folder.display());
        folder
    })
}

/// What a program answers to `--help`, or to whatever else.
pub fn answer(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(folder().join(program)).args(arguments).env_clear().output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
