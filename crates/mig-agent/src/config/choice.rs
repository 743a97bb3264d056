//! Which file of a folder is this node's: the one that its label names. What NVIDIA's config-manager does beside their
//! plugin, without a process of its own.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::args::ConfigArgs;

/// What counts for a node whose label is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fallback {
    /// The file that is called default
    Named,
    /// The only file there is
    Single,
    /// No configuration
    Empty,
}

const NAMED: &str = "default";

/// Where the configuration is looked for.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Nowhere.
    Flags,
    /// There.
    File(PathBuf),
    /// In a folder.
    Folder(Folder),
}

#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    default: Option<String>,
    fallbacks: Vec<Fallback>,
}

impl Source {
    pub(crate) fn of(args: &ConfigArgs) -> Self {
        match (&args.config_file, &args.config_file_srcdir) {
            (Some(file), _) => Self::File(file.clone()),
            (None, Some(folder)) => Self::Folder(Folder {
                path: folder.clone(),
                default: args.default_config.clone().filter(|name| !name.is_empty()),
                fallbacks: args.fallback_strategies.clone(),
            }),
            (None, None) => Self::Flags,
        }
    }

    /// The file that counts for a node with that label; none where there is no configuration. Looks at the disk.
    pub(crate) fn file(&self, label: Option<&str>) -> Result<Option<PathBuf>, String> {
        match self {
            Self::Flags => Ok(None),
            Self::File(path) => Ok(Some(path.clone())),
            Self::Folder(folder) => folder.file(label),
        }
    }

    /// For messages.
    pub(crate) fn shown(&self) -> Option<String> {
        match self {
            Self::Flags => None,
            Self::File(path) | Self::Folder(Folder { path, .. }) => Some(path.display().to_string()),
        }
    }
}

impl Folder {
    fn file(&self, label: Option<&str>) -> Result<Option<PathBuf>, String> {
        // An empty value is no name.
        if let Some(name) = label.filter(|name| !name.is_empty()) {
            return self.named(name, "the node's label names").map(Some);
        }
        if let Some(name) = &self.default {
            return self.named(name, "the default is").map(Some);
        }
        let names = self.names()?;
        for fallback in &self.fallbacks {
            match (fallback, names.as_slice()) {
                (Fallback::Named, names) if names.iter().any(|name| name == NAMED) => {
                    return Ok(Some(self.path.join(NAMED)));
                }
                (Fallback::Single, [only]) => return Ok(Some(self.path.join(only))),
                (Fallback::Empty, _) => return Ok(None),
                _ => {}
            }
        }
        Err(format!("the node has no label, and there is no default; {}", there_are(&names)))
    }

    fn named(&self, name: &str, who: &str) -> Result<PathBuf, String> {
        let names = self.names()?;
        // Of those that are there: whatever else a name may mean leads nowhere.
        match names.iter().any(|known| known == name) {
            true => Ok(self.path.join(name)),
            false => Err(format!("{who} {name:?}; {}", there_are(&names))),
        }
    }

    /// What is in it, but for what a mounted ConfigMap has besides.
    fn names(&self) -> Result<Vec<String>, String> {
        let unread = |error| format!("unable to read the folder {}: {error}", self.path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.') && is_file(&entry.path()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Follows links, of which a mounted ConfigMap is made.
fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() { "its folder is empty".to_owned() } else { format!("there are: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str], default: Option<&str>, fallbacks: &[Fallback]) -> (tempfile::TempDir, Source) {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(directory.path().join(file), "version: v1\n").unwrap();
        }
        fs::create_dir(directory.path().join("..data")).unwrap();
        fs::create_dir(directory.path().join("folder")).unwrap();
        let path = directory.path().to_owned();
        let folder = Folder { path, default: default.map(str::to_owned), fallbacks: fallbacks.to_vec() };
        (directory, Source::Folder(folder))
    }

    fn file(source: &Source, label: Option<&str>) -> Result<Option<String>, String> {
        let found = source.file(label)?;
        Ok(found.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_label_comes_before_the_default_and_that_before_the_fallbacks() {
        use Fallback::{Empty, Named, Single};
        let found = |name: &str| Ok(Some(name.to_owned()));
        let (_kept, source) = folder(&["default", "large", "small"], Some("small"), &[Named]);
        assert_eq!(file(&source, Some("large")), found("large"));
        assert_eq!(file(&source, None), found("small"));
        assert_eq!(file(&source, Some("")), found("small"));
        let (_kept, source) = folder(&["default", "large"], None, &[Named, Single]);
        assert_eq!(file(&source, None), found("default"));
        let (_kept, source) = folder(&["large"], None, &[Named, Single]);
        assert_eq!(file(&source, None), found("large"));
        let (_kept, source) = folder(&["large", "small"], None, &[Named, Single, Empty]);
        assert_eq!(file(&source, None), Ok(None));
        let (_kept, source) = folder(&["large", "small"], None, &[Named, Single]);
        assert!(file(&source, None).unwrap_err().contains("there are: large, small"));
    }

    #[test]
    fn a_name_leads_to_a_file_of_the_folder_or_nowhere() {
        let (_kept, source) = folder(&["large"], None, &[Fallback::Single]);
        for name in ["small", "..", "../large", "/etc/passwd", "..data", "folder", "."] {
            let error = file(&source, Some(name)).unwrap_err();
            assert!(error.contains("names") && error.contains("there are: large"), "{error}");
        }
        let (_kept, source) = folder(&["large"], Some("small"), &[Fallback::Single]);
        assert!(file(&source, None).unwrap_err().contains("the default is \"small\""));
    }
}
