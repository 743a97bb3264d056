//! What is shown, step by step, and checked before it is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use kubelet_sim::{ContainerAllocation, Kubelet, Pod, What};

use crate::{
    agent::Agent,
    machine::{Instance, Machine, resource, variable},
    paint::{Ink, Paint},
    picture::{self, Cell},
};

/// Two A100, cut in different ways.
const SCENE: &str = include_str!("../../scenes/demo.yaml");

/// No step takes a hundredth of it on a good day.
const PATIENCE: Duration = Duration::from_secs(20);

/// Columns of text: 80, less the indent on the left and as much on the right.
const WIDTH: usize = 74;

/// UUID to the pod that holds it (its number and name) and the container.
type Holders = BTreeMap<String, (usize, String, String)>;

struct Story<'a, W> {
    out: &'a mut W,
    paint: Paint,
    machine: Machine,
    holders: Holders,
}

pub(crate) async fn tell(
    out: &mut impl Write,
    paint: Paint,
    bin_dir: &Path,
    folder: &Path,
    scene: Option<&Path>,
) -> anyhow::Result<()> {
    let own_scene = folder.join("scene.yaml");
    fs::write(&own_scene, SCENE)?;
    let scene = scene.unwrap_or(&own_scene);
    let state = folder.join("driver");
    let machine = Machine::read(bin_dir, scene, &state).await?;
    let mut story = Story { out, paint, machine, holders: Holders::new() };
    story.introduce()?;
    story.show_machine()?;

    let kubelet = Kubelet::start(folder.join("kubelet")).await?;
    let mut agent = Agent::start(bin_dir, folder, scene, &state)?;
    let told = story.with_agent(&kubelet, &mut agent).await;
    let violations = kubelet.take_violations();
    told?;
    if let Some(violation) = violations.first() {
        bail!("the agent did what would harm a real kubelet: {violation}");
    }
    story.end(&kubelet, agent).await?;
    kubelet.stop().await;
    fs::remove_dir_all(folder).with_context(|| format!("unable to remove {}", folder.display()))?;
    story.text("Everything that was made for this demo has been removed.")?;
    Ok(())
}

impl<W: Write> Story<'_, W> {
    fn introduce(&mut self) -> anyhow::Result<()> {
        self.title("mig-agent: how the slices of a GPU come to pods")?;
        self.prose(
            "A GPU with MIG (Multi-Instance GPU) can be cut into slices. Each slice has memory and compute of its own, \
             and a program sees it as a small GPU. The driver knows the slices and Kubernetes knows pods; mig-agent, \
             which runs on each node, brings them together.",
        )?;
        self.text("")?;
        self.prose(
            "Here mig-agent is the real program. The driver with its GPUs and the kubelet are stand-ins that answer as \
             the real ones do: no GPU and no cluster are needed.",
        )
    }

    fn show_machine(&mut self) -> anyhow::Result<()> {
        self.heading(1, "A machine with its GPUs cut into slices")?;
        self.draw_gpus(|instance, _| (vec![instance.profile.clone()], Ink::Plain))?;
        self.prose(
            "The columns are equal parts of a GPU's memory. A slice's name says what it has: 3g.20gb is 3 of the 7 parts \
             of an A100's compute, and 20 GB of memory. With seven parts of compute and eight of memory, seven equal \
             slices leave one part of the memory unused.",
        )
    }

    async fn with_agent(&mut self, kubelet: &Kubelet, agent: &mut Agent) -> anyhow::Result<()> {
        self.start(kubelet, agent).await?;
        self.admit_pods(kubelet, agent).await?;
        self.show_holders()
    }

    async fn start(&mut self, kubelet: &Kubelet, agent: &mut Agent) -> anyhow::Result<()> {
        let expected = self.machine.resources();
        let is_so = |resources: &BTreeMap<String, kubelet_sim::Resource>| {
            let healthy = resources.iter().map(|(name, of)| (name.clone(), of.allocatable)).collect::<BTreeMap<_, _>>();
            healthy == expected
        };
        agent.meanwhile(kubelet.wait_for(is_so, PATIENCE)).await?;
        let mut lists = kubelet.events().into_iter().filter(|event| matches!(event.what, What::List { .. }));
        let took = lists.next_back().context("no list has come")?.at.duration_since(agent.started);

        self.heading(2, "The agent offers them to Kubernetes")?;
        self.prose(&format!(
            "mig-agent asks the driver ({}) for the slices, and registers each kind with the kubelet as a resource that \
             pods can ask for, like cpu or memory. {} ms after the agent's start, the node has:",
            self.machine.driver,
            took.as_millis().max(1),
        ))?;
        self.text("")?;
        let width = expected.keys().map(String::len).max().unwrap_or_default();
        for (name, count) in &expected {
            let name = self.paint.ink(Ink::Bold, &format!("{name:<width$}"));
            self.text(&format!("  {name}  {count:>3}"))?;
        }
        Ok(())
    }

    async fn admit_pods(&mut self, kubelet: &Kubelet, agent: &mut Agent) -> anyhow::Result<()> {
        self.heading(3, "Pods ask for slices, and containers get them")?;
        self.prose(
            "A pod names the resource in its limits. The kubelet picks free slices and asks the agent what the container \
             needs in order to use them: environment variables with the names of its slices. A CUDA program sees \
             what CUDA_VISIBLE_DEVICES names, and nothing else.",
        )?;
        let pods = [
            Pod::new("train").container("main", [(resource("3g.20gb"), 1)]),
            Pod::new("serve")
                .container("chat", [(resource("1g.5gb"), 1)])
                .container("search", [(resource("1g.5gb"), 1)]),
            Pod::new("study").container("main", [(resource("2g.10gb"), 1), (resource("1g.5gb"), 1)]),
        ];
        for (number, pod) in pods.into_iter().enumerate() {
            let (name, containers) = (pod.name.clone(), pod.containers.clone());
            let given = agent.meanwhile(kubelet.admit(pod)).await;
            let given = given.with_context(|| format!("pod {name} did not get its slices"))?;
            self.text("")?;
            let title = self.paint.ink(Ink::Pod(number), &format!("pod {name}"));
            self.text(&title)?;
            for container in containers {
                let got = given.containers.get(&container.name).context("a container got no answer")?;
                self.check_container(&container.limits, got)
                    .with_context(|| format!("pod {name}, container {}", container.name))?;
                self.show_container(number, &name, &container, got)?;
            }
        }
        self.text("")?;
        self.prose(
            "The last container asked for two kinds. The kubelet asks the agent once for each kind and keeps the first \
             value of a variable that comes twice, so that CUDA_VISIBLE_DEVICES names one of the two slices. Both are in \
             the variables that each kind has for itself, MIG_DEVICES_...",
        )
    }

    /// Each device is of the kind that was asked for, nobody else's, and named by the right variables.
    fn check_container(&self, limits: &BTreeMap<String, usize>, got: &ContainerAllocation) -> anyhow::Result<()> {
        let mut expected = BTreeMap::new();
        let mut first_values = BTreeSet::new();
        for (asked, count) in limits {
            let ids = got.device_ids.get(asked).with_context(|| format!("nothing was given for {asked}"))?;
            ensure!(ids.len() == *count, "{} devices were given for {count} of {asked}", ids.len());
            for id in ids {
                let place = self.machine.find(id).with_context(|| format!("the driver has no device {id}"))?;
                let profile = &place.compute.profile;
                ensure!(resource(profile) == *asked, "{id} is a {profile}, and {asked} was asked for");
                ensure!(!self.holders.contains_key(id), "{id} has been given to another container already");
                expected.insert(variable(profile), got.answers.get(asked).map(|_| ids.clone()));
            }
            first_values.insert(ids.clone());
        }
        for (name, value) in &got.envs {
            let ids = value.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
            let right = match name.as_str() {
                "CUDA_VISIBLE_DEVICES" | "NVIDIA_VISIBLE_DEVICES" => first_values.contains(&ids),
                _ => expected.remove(name).is_some_and(|expected| expected == Some(ids)),
            };
            ensure!(right, "the variable {name}={value} is wrong");
        }
        ensure!(expected.is_empty(), "variables are missing: {:?}", expected.keys());
        ensure!(got.envs.contains_key("CUDA_VISIBLE_DEVICES"), "CUDA_VISIBLE_DEVICES is missing");
        ensure!(got.envs.contains_key("NVIDIA_VISIBLE_DEVICES"), "NVIDIA_VISIBLE_DEVICES is missing");
        Ok(())
    }

    fn show_container(
        &mut self,
        number: usize,
        pod: &str,
        container: &kubelet_sim::Container,
        got: &ContainerAllocation,
    ) -> anyhow::Result<()> {
        let mut title = format!("  container {:<8}  limits:", container.name);
        for (name, count) in &container.limits {
            self.text(&format!("{title}  {name}: {count}"))?;
            title = " ".repeat(title.len());
        }
        let width = got.envs.keys().map(String::len).max().unwrap_or_default();
        for (name, value) in &got.envs {
            for (line, id) in value.split(',').enumerate() {
                let name = if line == 0 { name.as_str() } else { "" };
                let id = self.paint.ink(Ink::Pod(number), id);
                self.text(&format!("    {name:<width$}  {id}"))?;
            }
        }
        for id in got.device_ids.values().flatten() {
            self.holders.insert(id.clone(), (number, pod.to_owned(), container.name.clone()));
            let place = self.machine.find(id).context("checked before")?;
            let (start, size) = (place.instance.placement.start, place.instance.placement.size);
            let parts = match size {
                1 => format!("part {start}"),
                2 => format!("parts {start} and {}", start + 1),
                _ => format!("parts {start} to {}", start + size - 1),
            };
            let line = format!("    = {} on GPU {}, memory {parts}", place.compute.profile, place.gpu.index);
            let line = self.paint.ink(Ink::Dim, &line);
            self.text(&line)?;
        }
        Ok(())
    }

    fn show_holders(&mut self) -> anyhow::Result<()> {
        self.heading(4, "Who has what")?;
        self.draw_gpus(|instance, holders| {
            let holder = instance.compute.iter().find_map(|compute| holders.get(&compute.uuid));
            match holder {
                Some((number, pod, container)) => {
                    (vec![instance.profile.clone(), pod.clone(), container.clone()], Ink::Pod(*number))
                }
                None => (vec![instance.profile.clone(), "free".to_owned()], Ink::Plain),
            }
        })?;
        let all = self.machine.resources().values().sum::<usize>();
        let held = self.holders.len();
        let free = all - held;
        self.prose(&format!(
            "{held} of {all} slices are in use, none by two containers; {free} are free for other pods. A pod for which \
             no node has a free slice waits, as it would for cpu or memory.",
        ))
    }

    async fn end(&mut self, kubelet: &Kubelet, agent: Agent) -> anyhow::Result<()> {
        let capacity = self.machine.resources();
        let (status, took) = agent.stop().await?;
        ensure!(status.success(), "the agent was told to stop and ended with {status}");
        let is_so = |resources: &BTreeMap<String, kubelet_sim::Resource>| {
            let all = resources.iter().map(|(name, of)| (name.clone(), of.capacity)).collect::<BTreeMap<_, _>>();
            all == capacity && resources.values().all(|of| of.allocatable == 0)
        };
        kubelet.wait_for(is_so, PATIENCE).await?;
        self.heading(5, "The agent stops")?;
        self.prose(&format!(
            "Asked to stop (SIGTERM), it ended by itself within {} ms. No new pod gets a slice until it is back; pods \
             that run keep theirs and notice nothing.",
            took.as_millis().max(1),
        ))?;
        self.text("")
    }

    fn draw_gpus(&mut self, cell: impl Fn(&Instance, &Holders) -> (Vec<String>, Ink)) -> anyhow::Result<()> {
        let mut drawn = Vec::new();
        for gpu in &self.machine.gpus {
            let title = format!("GPU {}  {}", gpu.index, gpu.name);
            drawn.push(self.paint.ink(Ink::Bold, &title));
            let cells = gpu.instances.iter().map(|instance| {
                let (lines, ink) = cell(instance, &self.holders);
                Cell { start: instance.placement.start, size: instance.placement.size, lines, ink }
            });
            drawn.extend(picture::draw(gpu.memory_slices(), &cells.collect::<Vec<_>>(), self.paint));
            drawn.push(String::new());
        }
        drawn.iter().try_for_each(|line| self.text(line))
    }

    fn title(&mut self, text: &str) -> anyhow::Result<()> {
        let title = self.paint.ink(Ink::Bold, text);
        writeln!(self.out, "\n{title}\n")?;
        Ok(())
    }

    fn heading(&mut self, number: usize, text: &str) -> anyhow::Result<()> {
        let heading = self.paint.ink(Ink::Bold, &format!("{number}. {text}"));
        writeln!(self.out, "\n{heading}\n")?;
        Ok(())
    }

    /// A paragraph, broken into lines.
    fn prose(&mut self, text: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.text(&line)?;
                line.clear();
            }
            line = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        }
        self.text(&line)
    }

    /// One line, a little to the right.
    fn text(&mut self, line: &str) -> anyhow::Result<()> {
        if line.is_empty() {
            writeln!(self.out)?;
        } else {
            writeln!(self.out, "   {line}")?;
        }
        Ok(())
    }
}
