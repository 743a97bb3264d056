//! What can be typed.

use std::{collections::BTreeMap, str::FromStr};

use kubelet_sim::{Container, ContainerAllocation, Kubelet, Pod, PodAllocation, Resource};

/// One line of input.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Admit { pod: String, containers: BTreeMap<String, BTreeMap<String, usize>> },
    Delete { pod: String },
    Start { pod: String, container: String },
    Restart,
    Show,
    Quit,
    Nothing,
}

/// What a command has to say.
pub(crate) enum Outcome {
    Nothing,
    Admitted { pod: String, allocation: PodAllocation },
    Started { container: String, allocation: Box<ContainerAllocation> },
    Shown { resources: BTreeMap<String, Resource>, pods: Vec<String> },
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words = line.split_whitespace().collect::<Vec<_>>();
        match words.as_slice() {
            [] => Ok(Self::Nothing),
            ["admit", pod, requests @ ..] if !requests.is_empty() => {
                let mut containers = BTreeMap::<String, BTreeMap<String, usize>>::new();
                for request in requests {
                    let (container, resource, count) = parse_request(request)?;
                    *containers.entry(container).or_default().entry(resource).or_default() += count;
                }
                Ok(Self::Admit { pod: (*pod).to_owned(), containers })
            }
            ["delete", pod] => Ok(Self::Delete { pod: (*pod).to_owned() }),
            ["start", pod, container] => Ok(Self::Start { pod: (*pod).to_owned(), container: (*container).to_owned() }),
            ["restart"] => Ok(Self::Restart),
            ["show"] => Ok(Self::Show),
            ["quit"] => Ok(Self::Quit),
            _ => Err(format!(
                "unable to read {line:?}, expected: admit POD [CONTAINER:]RESOURCE=COUNT ..., delete POD, \
                 start POD CONTAINER, restart, show or quit"
            )),
        }
    }
}

fn parse_request(request: &str) -> Result<(String, String, usize), String> {
    let wrong = || format!("unable to read {request:?} as [CONTAINER:]RESOURCE=COUNT, e.g. nvidia.com/mig-1g.5gb=1");
    let (what, count) = request.split_once('=').ok_or_else(wrong)?;
    let (container, resource) = what.split_once(':').unwrap_or(("main", what));
    let count = count.parse().map_err(|_| wrong())?;
    if container.is_empty() || resource.is_empty() {
        return Err(wrong());
    }
    Ok((container.to_owned(), resource.to_owned(), count))
}

impl Command {
    pub(crate) async fn run(self, kubelet: &Kubelet) -> Result<Outcome, String> {
        match self {
            Self::Admit { pod, containers } => {
                let mut admitted = Pod::new(&pod);
                admitted.containers.extend(containers.into_iter().map(|(name, limits)| Container { name, limits }));
                match kubelet.admit(admitted).await {
                    Ok(allocation) => Ok(Outcome::Admitted { pod, allocation }),
                    // The event has said so.
                    Err(_) => Ok(Outcome::Nothing),
                }
            }
            Self::Delete { pod } => {
                let found = kubelet.delete(&pod).await;
                if found { Ok(Outcome::Nothing) } else { Err(format!("there is no pod {pod}")) }
            }
            Self::Start { pod, container } => {
                let allocation =
                    kubelet.restart_container(&pod, &container).await.map_err(|error| error.to_string())?;
                Ok(Outcome::Started { container, allocation: Box::new(allocation) })
            }
            Self::Restart => {
                kubelet.restart().await.map_err(|error| crate::report::chain(&error))?;
                Ok(Outcome::Nothing)
            }
            Self::Show => Ok(Outcome::Shown { resources: kubelet.resources(), pods: kubelet.pods() }),
            Self::Quit | Self::Nothing => Ok(Outcome::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn containers_are_main_unless_named() {
        let parsed = "admit train nvidia.com/a=1 side:nvidia.com/a=2 nvidia.com/b=1".parse::<Command>().unwrap();
        let Command::Admit { pod, containers } = parsed else { panic!("{parsed:?}") };
        assert_eq!(pod, "train");
        assert_eq!(containers["main"].len(), 2);
        assert_eq!(containers["side"]["nvidia.com/a"], 2);
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for line in ["admit", "admit train", "admit train a", "admit train a=b", "admit train :a=1", "delete", "go"] {
            let refused = line.parse::<Command>().unwrap_err();
            assert!(refused.contains("expected") || refused.contains("RESOURCE=COUNT"), "{refused}");
        }
    }
}
