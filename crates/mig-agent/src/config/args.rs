//! Flags that say where the configuration is.

use std::path::PathBuf;

use super::choice::Fallback;

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// A configuration file, NVIDIA's `version: v1`; it is watched, and what is given here or in a variable goes before it
    #[arg(long, env = "CONFIG_FILE", value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,

    /// A folder of such files, as a ConfigMap is mounted: the one counts that the own Node's label names. Needs
    /// --node-name, and the rights to get and watch nodes
    #[arg(long, env = "CONFIG_FILE_SRCDIR", value_name = "DIR", conflicts_with = "config_file")]
    pub(crate) config_file_srcdir: Option<PathBuf>,

    /// Which label that is
    #[arg(
        long,
        env = "NODE_LABEL",
        value_name = "LABEL",
        default_value = "nvidia.com/device-plugin.config",
        value_parser = label_key
    )]
    pub(crate) node_label: String,

    /// The file in the folder that counts for a node without the label
    #[arg(long, env = "DEFAULT_CONFIG", value_name = "NAME")]
    pub(crate) default_config: Option<String>,

    /// Without label and --default-config, in this order, separated by commas: named (the file that is called default),
    /// single (the only file there is), empty (no configuration)
    #[arg(
        long,
        env = "FALLBACK_STRATEGIES",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "named,single"
    )]
    pub(crate) fallback_strategies: Vec<Fallback>,
}

/// A key that a label can have.
fn label_key(text: &str) -> Result<String, String> {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    let part = |part: &str, more: &[u8]| {
        let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        inner && part.len() <= 63 && alphanumeric(part.bytes().next()) && alphanumeric(part.bytes().last())
    };
    let is_domain = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|label| part(label, b"-"))
            && !text.bytes().any(|b| b.is_ascii_uppercase())
    };
    if !domain.is_none_or(is_domain) || !part(name, b"-_.") {
        return Err("expected a label's key, such as nvidia.com/device-plugin.config; leave the flag out for that one"
            .to_owned());
    }
    Ok(text.to_owned())
}
