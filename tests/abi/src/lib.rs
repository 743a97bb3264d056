//! Structures and constants as a header has them: a small C program prints what its compiler makes of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// A structure as Rust has it: C name, size, fields with their offsets.
pub type Layout = (&'static str, usize, &'static [(&'static str, usize)]);

/// The headers that `NVML_HEADERS` lists, separated by colons.
///
/// # Errors
/// When it is unset or empty: `make test` installs NVIDIA's packages and sets it.
pub fn headers() -> Result<Vec<PathBuf>, String> {
    let list = std::env::var_os("NVML_HEADERS").unwrap_or_default();
    let paths: Vec<PathBuf> = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    if paths.is_empty() {
        return Err(
            "NVML_HEADERS is not set: run `make test`, which installs NVIDIA's nvml.h from PyPI and sets it".into()
        );
    }
    Ok(paths)
}

/// What a header makes of each expression that it knows: `sizeof(T)`, `offsetof(T, field)` or a constant.
///
/// # Errors
/// When the C compiler cannot be run or refuses the program.
pub fn evaluate(header: &Path, folder: &Path, expressions: &[String]) -> io::Result<BTreeMap<String, u64>> {
    let (source, program) = (folder.join("layout.c"), folder.join("layout"));
    let mut text =
        format!("#include <stddef.h>\n#include <stdio.h>\n#include \"{}\"\nint main(void) {{\n", header.display());
    for expression in expressions {
        let _ = writeln!(text, "printf(\"%llu %s\\n\", (unsigned long long)({expression}), \"{expression}\");");
    }
    text.push_str("return 0; }\n");
    fs::write(&source, text)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler).arg("-w").arg("-o").arg(&program).arg(&source).output()?;
    if !compiled.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&compiled.stderr).into_owned()));
    }
    let printed = Command::new(program).output()?.stdout;
    let lines = String::from_utf8_lossy(&printed).into_owned();
    Ok(lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(value, expression)| Some((expression.to_owned(), value.parse().ok()?)))
        .collect())
}

/// What a layout says, as expressions with their values.
pub fn expressions(layouts: &[Layout]) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for (name, size, fields) in layouts {
        all.push((format!("sizeof({name})"), *size as u64));
        all.extend(fields.iter().map(|(field, offset)| (format!("offsetof({name}, {field})"), *offset as u64)));
    }
    all
}
