//! An image's archive.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, de::DeserializeOwned};

/// An image, as `docker save` would write it.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    manifest: Manifest,
    /// What the image says of itself.
    pub config: Config,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// When it was made.
    pub created: String,
    /// For which processors it is.
    pub architecture: String,
    /// How it wants to be run.
    pub config: Settings,
    /// How it was made.
    pub history: Vec<Made>,
}

/// One step of an image's history.
#[derive(Debug, Deserialize)]
pub struct Made {
    /// When.
    pub created: String,
}

/// How an image wants to be run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Settings {
    /// By number.
    pub user: String,
    /// The program, and its first arguments.
    pub entrypoint: Vec<String>,
    /// Variables, as NAME=VALUE.
    pub env: Vec<String>,
    /// The folder that the program starts in.
    pub working_dir: String,
    /// What is said of it.
    pub labels: BTreeMap<String, String>,
}

/// A file, folder or link of a layer.
#[derive(Debug)]
pub struct Entry {
    /// From the root, without a slash in front.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Whose it is.
    pub owner: u64,
    /// When it was changed, in seconds since 1970.
    pub changed: u64,
    /// What is in it, if it is a file.
    pub content: Vec<u8>,
    /// Whether it is a folder.
    pub is_folder: bool,
}

impl Archive {
    /// The image of that name as `make image` left it; `IMAGE_OUT` says where, if not in target/image.
    ///
    /// # Errors
    ///
    /// If there is none, or it is no archive of an image.
    pub fn open(name: &str) -> anyhow::Result<Self> {
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
        let folder = env::var_os("IMAGE_OUT").map_or_else(|| target.join("image"), PathBuf::from);
        let path = folder.join(format!("{name}.tar"));
        if !path.exists() {
            bail!("there is no {}: run `make image` first", path.display());
        }
        let [manifest]: [Manifest; 1] = json(&path, "manifest.json")?;
        let config = json(&path, &manifest.config)?;
        Ok(Self { path, manifest, config })
    }

    /// The names that it is known by where it is imported.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.manifest.repo_tags
    }

    /// What lies on the base: of all layers the last.
    ///
    /// # Errors
    ///
    /// If the archive cannot be read.
    pub fn last_layer(&self) -> anyhow::Result<Vec<Entry>> {
        let layer = self.manifest.layers.last().context("the image has no layers")?;
        let bytes = member(&self.path, layer)?;
        let mut entries = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries()? {
            let mut entry = entry?;
            let header = entry.header();
            let (mode, owner, changed) = (header.mode()?, header.uid()?, header.mtime()?);
            let is_folder = header.entry_type().is_dir();
            let path = entry.path()?.to_string_lossy().trim_end_matches('/').to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            entries.push(Entry { path, mode, owner, changed, content, is_folder });
        }
        Ok(entries)
    }

    /// Lays out all layers in a folder, as a container runtime does.
    ///
    /// # Errors
    ///
    /// If the archive cannot be read or the folder not be written.
    pub fn unpack(&self, folder: &Path) -> anyhow::Result<()> {
        for layer in &self.manifest.layers {
            let bytes = member(&self.path, layer)?;
            let mut archive = tar::Archive::new(bytes.as_slice());
            archive.set_preserve_permissions(true);
            archive.set_preserve_ownerships(true);
            archive.unpack(folder).with_context(|| format!("failed to unpack {layer}"))?;
        }
        Ok(())
    }
}

/// A file in an archive; some engines write links to the layers of an earlier image.
fn member(archive: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let file = File::open(archive).with_context(|| format!("failed to open {}", archive.display()))?;
    for entry in tar::Archive::new(file).entries()? {
        let mut entry = entry?;
        if entry.path()?.as_os_str() == name {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    bail!("{} has no {name}", archive.display())
}

fn json<T: DeserializeOwned>(archive: &Path, name: &str) -> anyhow::Result<T> {
    serde_json::from_slice(&member(archive, name)?).with_context(|| format!("failed to read {name}"))
}
