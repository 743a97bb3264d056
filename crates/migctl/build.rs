//! Makes the list of GPU models that are built in: every file in `models/`, by its name.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let models = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../models").canonicalize()?;
    println!("cargo::rerun-if-changed={}", models.display());
    let mut files: Vec<_> = fs::read_dir(&models)?.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|extension| extension == "yaml"));
    files.sort_by_key(fs::DirEntry::file_name);
    let mut list = String::from("&[\n");
    for file in files {
        let path = file.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a model's file name is no UTF-8")?;
        writeln!(list, "    ({name:?}, include_str!({path:?})),")?;
    }
    list.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("models.rs"), list)?;
    Ok(())
}
