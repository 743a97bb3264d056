//! Generates, from `symbols-580.txt` (what a real driver's library exports), the list of functions and a stub for
//! each one that `src/abi/` does not implement; from `models/`, the list of GPU models.

use std::{collections::BTreeSet, env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let out = env::var("OUT_DIR")?;
    // Clients look the library up by this name, and the loader must take it for the driver's.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo::rerun-if-changed=symbols-580.txt");
    println!("cargo::rerun-if-changed=src/abi");
    let models = Path::new(&here).join("../../models");
    println!("cargo::rerun-if-changed={}", models.display());

    let list = fs::read_to_string(Path::new(&here).join("symbols-580.txt"))?;
    let symbols: BTreeSet<&str> = list.split_whitespace().collect();
    let implemented = implemented(&Path::new(&here).join("src/abi"))?;
    if let Some(stray) = implemented.iter().find(|name| !symbols.contains(name.as_str())) {
        return Err(format!("src/abi implements {stray}, which symbols-580.txt does not list").into());
    }
    fs::write(Path::new(&out).join("functions.rs"), functions(&symbols)?)?;
    fs::write(Path::new(&out).join("stubs.rs"), stubs(&symbols, &implemented)?)?;
    fs::write(Path::new(&out).join("models.rs"), embedded_models(&models)?)?;
    Ok(())
}

/// The names after `fn ` at the start of a line, which is how every entry point in `src/abi/` is written.
fn implemented(folder: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        for line in fs::read_to_string(file?.path())?.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub extern \"C\" ").unwrap_or(line);
            let Some(rest) = line.strip_prefix("fn nvml") else { continue };
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            found.insert(format!("nvml{name}"));
        }
    }
    Ok(found)
}

fn functions(symbols: &BTreeSet<&str>) -> Result<String, std::fmt::Error> {
    let mut text = String::from("/// A function of the library.\n");
    // nvmlErrorString goes no counted way, so nothing names it.
    text.push_str("#[allow(dead_code, reason = \"one of them answers without being counted\")]\n");
    text.push_str("#[derive(Clone, Copy, Debug, PartialEq, Eq)]\n#[repr(u16)]\n");
    text.push_str("#[allow(non_camel_case_types, missing_docs, reason = \"these are NVML's names\")]\npub(crate) enum Function {\n");
    for name in symbols {
        writeln!(text, "    {name},")?;
    }
    writeln!(
        text,
        "}}\n\n/// Their names, in the order of [`Function`].\npub const NAMES: [&str; {}] = [",
        symbols.len()
    )?;
    for name in symbols {
        writeln!(text, "    {name:?},")?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn stubs(symbols: &BTreeSet<&str>, implemented: &BTreeSet<String>) -> Result<String, std::fmt::Error> {
    let mut text = String::from("entry_points! {\n");
    for name in symbols.iter().filter(|name| !implemented.contains(**name)) {
        writeln!(text, "fn {name}(first: Handle) => unsupported(first);")?;
    }
    text.push_str("}\n");
    Ok(text)
}

fn embedded_models(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut files: Vec<_> =
        fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.iter().map(fs::DirEntry::path).collect();
    files.sort();
    let mut text = String::from("pub(crate) const EMBEDDED: &[(&str, &str)] = &[\n");
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "yaml")) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        writeln!(text, "    ({name:?}, include_str!({:?})),", file.canonicalize()?)?;
    }
    text.push_str("];\n");
    Ok(text)
}
