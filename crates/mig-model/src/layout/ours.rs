//! `version: mig-agent/v1`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::parted::pci_ids as read_pci_ids;
use super::{Entry, EntryInstance, Filter, Gpus, MOST_INSTANCES};
use crate::profile::Profile;
use crate::yaml::{self, NameOrFull, Scalar, WordOrList};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: String,
    layouts: BTreeMap<String, Vec<Spanned<EntryFile>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct EntryFile {
    gpus: Option<Spanned<WordOrList<Scalar>>>,
    product: Option<WordOrList<String>>,
    pci_ids: Option<Spanned<WordOrList<String>>>,
    mig: Option<bool>,
    #[serde(default)]
    instances: Vec<Spanned<NameOrFull<FullInstance>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullInstance {
    profile: String,
    placement: Option<u32>,
    count: Option<u32>,
    compute: Option<Vec<String>>,
}

pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Vec<Entry>>, String> {
    let file: File = yaml::parse(text)?;
    let entries = |entries: &[Spanned<EntryFile>]| entries.iter().map(entry).collect::<Result<Vec<_>, _>>();
    file.layouts.iter().map(|(name, given)| Ok((name.clone(), entries(given)?))).collect()
}

fn entry(given: &Spanned<EntryFile>) -> Result<Entry, String> {
    let line = yaml::line(given);
    let EntryFile { gpus, product, pci_ids, mig, instances } = &given.value;
    let gpus = gpus.as_ref().map_or(Ok(Gpus::All), which)?;
    let mut filters = Vec::new();
    if let Some(product) = product {
        filters.push(Filter::Product(product.all().to_vec()));
    }
    if let Some(ids) = pci_ids {
        filters.push(Filter::PciIds(read_pci_ids(ids)?));
    }
    if *mig == Some(false) && !instances.is_empty() {
        return Err(format!("line {line}: instances with mig: false, which leaves nothing to cut"));
    }
    let instances = instances.iter().map(instance).collect::<Result<_, _>>()?;
    Ok(Entry { line, gpus, filters, strict: true, mig: mig.unwrap_or(true), instances })
}

fn which(given: &Spanned<WordOrList<Scalar>>) -> Result<Gpus, String> {
    let line = yaml::line(given);
    match &given.value {
        WordOrList::Word(word) if word == "all" => Ok(Gpus::All),
        WordOrList::Word(word) => Err(format!(
            "line {line}: unknown gpus {word:?}: expected all, or a list of indices, UUIDs and PCI addresses"
        )),
        WordOrList::List(names) => {
            let read = |Scalar(name): &Scalar| name.parse().map_err(|error| format!("line {line}: {error}"));
            Ok(Gpus::Named(names.iter().map(read).collect::<Result<_, _>>()?))
        }
    }
}

fn instance(given: &Spanned<NameOrFull<FullInstance>>) -> Result<EntryInstance, String> {
    let line = yaml::line(given);
    let read = |name: &str| name.parse::<Profile>().map_err(|error| format!("line {line}: {error}"));
    let full = match &given.value {
        NameOrFull::Name(name) => {
            return Ok(EntryInstance { line, profile: read(name)?, start: None, count: 1, compute: Vec::new() });
        }
        NameOrFull::Full(full) => full,
    };
    let profile = read(&full.profile)?;
    let count = full.count.unwrap_or(1);
    if count == 0 || count > MOST_INSTANCES {
        return Err(format!("line {line}: count is 1 to {MOST_INSTANCES}, not {count}"));
    }
    if full.placement.is_some() && count > 1 {
        return Err(format!("line {line}: a placement is one instance's, and count is {count}"));
    }
    let whole = profile.gpu_instance();
    if full.compute.as_ref().is_some_and(Vec::is_empty) {
        return Err(format!(
            "line {line}: compute is empty, and nothing can use a GPU instance without compute instances: leave it out for one that takes all of {profile}"
        ));
    }
    if profile != whole && (full.placement.is_some() || full.compute.is_some()) {
        return Err(format!(
            "line {line}: {profile} is a compute instance: to say where it lies give profile: {whole}, and compute: [{profile}]"
        ));
    }
    let compute: Vec<Profile> = full.compute.iter().flatten().map(|name| read(name)).collect::<Result<_, _>>()?;
    if let Some(stray) = compute.iter().find(|part| part.gpu_instance() != whole) {
        return Err(format!("line {line}: {stray} is no part of {profile}"));
    }
    Ok(EntryInstance { line, profile, start: full.placement, count, compute })
}
