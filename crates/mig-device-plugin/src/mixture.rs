//! Containers with devices of several resources. The kubelet asks for each resource alone and keeps one value per variable,
//! so a variable that both answers set names the devices of one of them, and which one is left to chance.
//! See NVIDIA/k8s-device-plugin#728.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kubelet::Holding;
use mig_model::ResourceDomain;

use crate::container::ContainerSettings;
use crate::fleet::Wanted;
use crate::usage::{Usage, is_ours};
use tokio::sync::watch;

/// A container, and its resources, of which there are several.
type Mixture = (String, Vec<String>);

/// A line in the log for each container that cannot find all that it has in one variable.
pub(crate) async fn tell_of_mixtures(usage: Arc<Usage>, wanted: watch::Receiver<Option<Arc<Wanted>>>) {
    let mut readings = usage.subscribe();
    let mut told = BTreeSet::new();
    loop {
        readings.mark_unchanged();
        let now = usage.mixtures();
        for (container, resources) in now.difference(&told) {
            let settings = wanted.borrow().as_ref().map(|wanted| Arc::clone(&wanted.container)).unwrap_or_default();
            let text = describe(&settings);
            tracing::warn!(container, resources = resources.join(","), "{text}");
        }
        told = now;
        if readings.changed().await.is_err() {
            return;
        }
    }
}

fn describe(settings: &ContainerSettings) -> String {
    let variables = settings.naming_variables().collect::<Vec<_>>().join(" and ");
    let variables = if variables.is_empty() { "one variable" } else { variables.as_str() };
    let reach = match settings.reaches_all() {
        true => "it reaches all of them",
        false => {
            "NVIDIA's container runtime gives it only those that NVIDIA_VISIBLE_DEVICES names: \
             with --device-list-strategy=volume-mounts or cdi-cri it gets all"
        }
    };
    format!(
        "the container has devices of several resources, and {variables} can name those of one only; each slice is \
         named by its MIG_DEVICES_<PROFILE>, or MIG_DEVICES_<NAME> where it is shared or the name was configured, from which the program sets CUDA_VISIBLE_DEVICES (NVIDIA/k8s-device-plugin#728); {reach}"
    )
}

/// The containers that hold devices of more than one of our resources.
pub(crate) fn mixtures(holdings: &[Holding], domain: &ResourceDomain) -> BTreeSet<Mixture> {
    let mut containers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for holding in holdings {
        if holding.ids.iter().any(|id| is_ours(&holding.resource, id, domain)) {
            let name = format!("{}/{}/{}", holding.namespace, holding.pod, holding.container);
            containers.entry(name).or_default().insert(holding.resource.clone());
        }
    }
    containers
        .into_iter()
        .filter(|(_, resources)| resources.len() > 1)
        .map(|(name, resources)| (name, resources.into_iter().collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(container: &str, resource: &str) -> Holding {
        Holding {
            namespace: "default".to_owned(),
            pod: "train".to_owned(),
            container: container.to_owned(),
            resource: resource.to_owned(),
            ids: vec!["MIG-a".to_owned()],
        }
    }

    #[test]
    fn several_resources_of_ours_in_one_container_are_a_mixture() {
        let holdings = [
            holding("both", "nvidia.com/mig-3g.20gb"),
            holding("both", "nvidia.com/mig-1g.5gb"),
            holding("both", "nvidia.com/mig-1g.5gb"),
            holding("one", "nvidia.com/mig-1g.5gb"),
            holding("one", "example.com/mig-3g.20gb"),
            Holding { ids: vec![], ..holding("one", "nvidia.com/mig-3g.20gb") },
            holding("named", "nvidia.com/large"),
            holding("named", "nvidia.com/mig-1g.5gb"),
            holding("network", "nvidia.com/mig-1g.5gb"),
            Holding { ids: vec!["0000:3b:00.2".to_owned()], ..holding("network", "nvidia.com/hostdev") },
        ];
        let found: Vec<Mixture> = mixtures(&holdings, &ResourceDomain::default()).into_iter().collect();
        let mixture =
            |container: &str, resources: [&str; 2]| (container.to_owned(), resources.map(str::to_owned).to_vec());
        assert_eq!(
            found,
            [
                mixture("default/train/both", ["nvidia.com/mig-1g.5gb", "nvidia.com/mig-3g.20gb"]),
                mixture("default/train/named", ["nvidia.com/large", "nvidia.com/mig-1g.5gb"]),
            ]
        );
    }

    #[test]
    fn what_is_said_depends_on_what_the_container_reaches() {
        let settings = ContainerSettings::default();
        let text = describe(&settings);
        assert!(text.contains("volume-mounts") && text.contains("and NVIDIA_VISIBLE_DEVICES can name"), "{text}");
        let cdi = ContainerSettings { list_strategies: vec!["cdi-cri".parse().unwrap()], ..settings };
        let text = describe(&cdi);
        assert!(text.ends_with("it reaches all of them") && !text.contains("NVIDIA_VISIBLE_DEVICES"), "{text}");
    }
}
