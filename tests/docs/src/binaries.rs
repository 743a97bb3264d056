//! Our programs, built as a user's `cargo build` does.

use std::collections::BTreeMap;
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

/// The flags in a program's help, with their defaults.
pub fn flags(program: &str) -> BTreeMap<String, String> {
    let mut flags = BTreeMap::new();
    let mut last = None;
    for line in answer(program, &["--help"]).lines() {
        // `  -o, --output <FORMAT>`, `      --pass-device-specs[=<BOOL>]`
        let text = line.trim_start();
        // What a flag is for is further in, and may begin a line with another's name.
        let is_flag = line.len() - text.len() <= 6;
        let written =
            text.split_once("--").filter(|(short, _)| is_flag && (short.is_empty() || short.starts_with('-')));
        if let Some((_, rest)) = written {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            last = (!["help", "version"].contains(&name.as_str())).then(|| format!("--{name}"));
            flags.extend(last.iter().map(|flag| (flag.clone(), String::new())));
        }
        if let (Some((_, default)), Some(flag)) = (line.split_once("[default: "), &last) {
            flags.insert(flag.clone(), default.trim_end().trim_end_matches(']').to_owned());
        }
    }
    flags
}
