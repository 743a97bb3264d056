//! The drawing: for each GPU a heading, its row of memory slices to scale, and below it what is in them.

use mig_model::{Placement, UnreadableGpu};

use super::{Answer, Compute, Cut, Instance};
use crate::paper::{Ink, NO_BREAK, Paper};
use crate::status::cells::{self, Cell, Content, Row};
use crate::users::{User, names};

/// So many GPUs are drawn with a list of their instances.
const DETAILED: usize = 4;
const INDENT: usize = 2;
/// Where headings end when there are no rows.
const NO_ROWS: usize = 80;

/// GPUs that look like the first of them.
struct Drawn<'a, 's> {
    gpu: &'a Cut<'s>,
    /// The last one's index.
    last: u32,
    /// Its memory slices and how many columns each takes; nothing where they can't be drawn.
    row: Option<(Row, usize)>,
}

pub(super) fn draw(paper: &Paper, answer: &Answer<'_>, details: bool) -> String {
    let groups = groups(&answer.gpus);
    let details = details || groups.len() <= DETAILED;
    let drawn: Vec<Drawn<'_, '_>> = groups.into_iter().filter_map(|group| Drawn::new(paper, group)).collect();
    // All headings end where the widest row does.
    let width = drawn.iter().filter_map(Drawn::width).max().unwrap_or(paper.width.min(NO_ROWS));
    let of_group = |drawn: Drawn<'_, '_>| (drawn.gpu.index, block(paper, &drawn, width, details));
    let mut blocks: Vec<(u32, String)> = drawn.into_iter().map(of_group).collect();
    blocks.extend(answer.unreadable.iter().map(|gpu| (gpu.index, unreadable(paper, gpu))));
    blocks.sort_by_key(|(index, _)| *index);
    let between = if details { "\n" } else { "" };
    let mut text = summary(paper, answer);
    for (_, block) in blocks {
        text.push_str(between);
        text.push_str(&block);
    }
    for gone in &answer.gone {
        let line = format!("{} is on no GPU, and the agent lists it: {}", gone.uuid, gone.wrong.message);
        text.push_str(&paper.ink(Ink::Problem, &paper.wrapped("", &line)));
    }
    text
}

fn summary(paper: &Paper, answer: &Answer<'_>) -> String {
    let gpus = answer.gpus.len() + answer.unreadable.len();
    if gpus == 0 {
        return "no GPUs\n".to_owned();
    }
    let instances = || answer.gpus.iter().flat_map(|gpu| &gpu.instances);
    let used = instances().filter(|instance| !instance.users.is_empty()).count();
    let driver = &answer.driver.version;
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    paper.wrapped(
        "",
        &format!(
            "{}, {}, {used} in use; driver {driver}",
            counted(gpus, "GPU"),
            counted(instances().count(), "MIG instance")
        ),
    )
}

/// Neighbours that look the same, with nobody on them, are drawn once.
fn groups<'a, 's>(gpus: &'a [Cut<'s>]) -> Vec<&'a [Cut<'s>]> {
    gpus.chunk_by(|one, other| is_idle(one) && is_idle(other) && looks(one) == looks(other)).collect()
}

fn is_idle(gpu: &Cut<'_>) -> bool {
    let well = |one: &Instance<'_>| one.compute_instances.iter().all(|compute| compute.unhealthy.is_empty());
    gpu.users.is_empty() && gpu.fault.is_none() && gpu.unhealthy.is_empty() && gpu.instances.iter().all(well)
}

fn looks<'a>(gpu: &'a Cut<'_>) -> impl PartialEq + 'a {
    let compute = |one: &'a Compute<'_>| (one.id, one.profile, one.placement);
    let instance = move |one: &'a Instance<'_>| {
        (one.id, one.profile, one.placement, one.compute_instances.iter().map(compute).collect::<Vec<_>>())
    };
    let instances: Vec<_> = gpu.instances.iter().map(instance).collect();
    (gpu.name, gpu.mig, gpu.memory_slices, instances)
}

impl<'a, 's> Drawn<'a, 's> {
    fn new(paper: &Paper, group: &'a [Cut<'s>]) -> Option<Self> {
        let (gpu, last) = (group.first()?, group.last()?);
        let row = cells::of_gpu(gpu).and_then(|row| cells::scale(paper, &row, INDENT).map(|scale| (row, scale)));
        Some(Self { gpu, last: last.index, row })
    }

    fn width(&self) -> Option<usize> {
        self.row.as_ref().map(|(row, scale)| INDENT + row.slices * scale + 1)
    }
}

fn unreadable(paper: &Paper, gpu: &UnreadableGpu) -> String {
    let heading = paper.ink(Ink::Heading, &format!("GPU {}", gpu.index));
    let fault = paper.wrapped("  ", &format!("unreadable: {}", gpu.fault.message));
    format!("{heading}\n{}", paper.ink(Ink::Problem, &fault))
}

fn block(paper: &Paper, drawn: &Drawn<'_, '_>, width: usize, details: bool) -> String {
    let Drawn { gpu, row, .. } = drawn;
    let mut text = heading(paper, drawn, width);
    if let Some(fault) = gpu.fault {
        text.push_str(&paper.ink(Ink::Problem, &paper.wrapped("  ", &format!("fault: {}", fault.message))));
    }
    for line in unhealthy(gpu) {
        text.push_str(&paper.ink(Ink::Problem, &paper.wrapped("  ", &line)));
    }
    if let Some(needs) = needs(drawn) {
        text.push_str(&paper.ink(Ink::Warning, &paper.wrapped("  ", &needs)));
    }
    if !gpu.mig.enabled {
        let users = if gpu.users.is_empty() { gpu.idle.to_owned() } else { format!("used by {}", names(&gpu.users)) };
        if gpu.fault.is_none() || !gpu.users.is_empty() {
            text.push_str(&paper.wrapped("  ", &users));
        }
        return text;
    }
    if let Some((row, scale)) = row {
        text.push_str(&cells::draw(paper, row, *scale, INDENT, details));
    }
    if details || row.is_none() {
        text.push_str(&list(paper, gpu));
    }
    text.push_str(&room(paper, gpu, details));
    text
}

/// A line for each reason why the agent gives no pod all of it, or a part.
fn unhealthy(gpu: &Cut<'_>) -> Vec<String> {
    let whole = gpu.unhealthy.iter().map(|fault| format!("unhealthy: {}", fault.message));
    let parts = gpu.instances.iter().flat_map(|instance| instance.compute_instances.iter().map(move |c| (instance, c)));
    let parts = parts.flat_map(|(instance, compute)| {
        let (profile, id) = (compute.profile, instance.id);
        compute.unhealthy.iter().map(move |fault| format!("unhealthy: {profile} in instance {id}: {}", fault.message))
    });
    whole.chain(parts).collect()
}

/// Who it is on the left, how it is on the right; the PCI address goes first when there is too little room.
fn heading(paper: &Paper, drawn: &Drawn<'_, '_>, width: usize) -> String {
    let Drawn { gpu, last, .. } = drawn;
    let is_one = *last == gpu.index;
    let label = if is_one { format!("GPU {last}") } else { format!("GPU {}-{last}", gpu.index) };
    let name = paper.own(gpu.name.strip_prefix("NVIDIA ").unwrap_or(gpu.name));
    let used = gpu.instances.iter().filter(|instance| !instance.users.is_empty()).count();
    let state = match (gpu.mig.supported, gpu.fault) {
        (_, Some(_)) => "fault".to_owned(),
        (false, None) => "no MIG".to_owned(),
        (true, None) if gpu.instances.is_empty() => format!("MIG {}", gpu.mig.word()),
        (true, None) => format!("MIG {}, {used}/{} in use", gpu.mig.word(), gpu.instances.len()),
    };
    let address = gpu.pci_address.filter(|_| is_one).map(|pci| format!("  {pci}")).unwrap_or_default();
    let room = width.saturating_sub(label.len() + state.len() + 4);
    let address = if name.chars().count() + address.len() <= room { address } else { String::new() };
    let name = if name.chars().count() <= room { name } else { paper.cropped(&name, room) };
    let gap = room.saturating_sub(name.chars().count() + address.len()) + 2;
    let ink = if gpu.fault.is_some() { Ink::Problem } else { Ink::Heading };
    format!(
        "{}  {name}{}{}{}\n",
        paper.ink(Ink::Heading, &label),
        paper.ink(Ink::Faint, &address),
        " ".repeat(gap),
        paper.ink(ink, &state)
    )
}

fn needs(Drawn { gpu, last, .. }: &Drawn<'_, '_>) -> Option<String> {
    let (verb, word) = match gpu.mig.pending? {
        true => ("enable", "on"),
        false => ("disable", "off"),
    };
    let indices: Vec<String> = (gpu.index..=*last).map(|index| index.to_string()).collect();
    let command = format!("migctl{NO_BREAK}--gpuid{NO_BREAK}{}{NO_BREAK}{verb}", indices.join(","));
    Some(format!("MIG will be {word} after a reset; what it needs: {command}"))
}

/// Every instance with its users.
fn list(paper: &Paper, gpu: &Cut<'_>) -> String {
    let mut rows = Vec::new();
    let share = |slices: u8| gpu.compute_slices.map_or_else(|| slices.to_string(), |all| format!("{slices}/{all}"));
    let place = |at: Option<Placement>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    for instance in &gpu.instances {
        let id = instance.id.to_string();
        let whole = match instance.compute_instances.as_slice() {
            [] => "nobody can use it: it has no compute instance".to_owned(),
            [one] if one.profile == instance.profile => users(&instance.users, gpu.idle),
            _ => String::new(),
        };
        let parts = if whole.is_empty() { instance.compute_instances.as_slice() } else { &[] };
        let (profile, at) = (instance.profile.to_string(), place(instance.placement));
        rows.push([id.clone(), profile, at, share(instance.compute_slices), whole]);
        for one in parts {
            let (profile, at) = (format!("  {}", one.profile), place(one.placement));
            rows.push([
                format!("{id}/{}", one.id),
                profile,
                at,
                share(one.compute_slices),
                users(&one.users, gpu.idle),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heading = ["ID", "TYPE", "AT", "COMPUTE", "USED BY"];
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|word| word.len())).max().unwrap_or_default()
    };
    let [ids, types, places, shares] = [width(0), width(1), width(2), width(3)];
    let line = |[id, profile, at, share, _]: [&str; 5]| {
        format!("  {id:<ids$}  {profile:<types$}  {at:<places$}  {share:<shares$}  ")
    };
    let mut text = paper.ink(Ink::Faint, &format!("{}USED BY", line(heading)));
    text.push('\n');
    for row in &rows {
        let [.., users] = row;
        let row = paper.wrapped(&line(row.each_ref().map(String::as_str)), users);
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn users(users: &[User], idle: &str) -> String {
    if users.is_empty() { idle.to_owned() } else { names(users) }
}

/// What could still be cut out of the rest. Shortly: only if there is something.
fn room(paper: &Paper, gpu: &Cut<'_>, details: bool) -> String {
    let Some(uncut) = &gpu.uncut else {
        return match gpu.fault {
            Some(_) => String::new(),
            None => paper.wrapped(
                "  ",
                "what still fits is unknown: the driver does not say how the GPU is cut (that needs root, or the \
                 mig/monitor capability)",
            ),
        };
    };
    let fitting: Vec<String> =
        uncut.room.iter().map(|one| format!("{}{NO_BREAK}x{NO_BREAK}{}", one.count, one.profile)).collect();
    let room = match fitting.split_last() {
        None => "nothing more fits".to_owned(),
        Some((last, [])) => format!("room for {last}"),
        Some((last, others)) => format!("room for {} or {last}", others.join(", ")),
    };
    match (details, uncut.memory.as_slice()) {
        (false, _) if uncut.room.is_empty() => String::new(),
        (false, _) => paper.wrapped("  ", &room),
        (true, []) => paper.wrapped("  ", "no memory slice is left: nothing more fits"),
        (true, stretches) => {
            let slices: u32 = stretches.iter().map(|at| at.size).sum();
            let compute = uncut.compute_slices;
            paper.wrapped("  ", &format!("uncut: {slices} memory and {compute} compute slices; {room}"))
        }
    }
}

/// What an instance's cell says.
pub(super) fn cell(instance: &Instance<'_>, at: Placement, idle: &str) -> Cell {
    // The processes of a pod's containers are the pod's.
    let pods = instance.users.iter().filter(|user| matches!(user, User::Pod { .. })).count();
    let others = if pods > 0 { pods } else { instance.users.len() }.saturating_sub(1);
    let (content, user) = match instance.users.first() {
        None if instance.compute_instances.is_empty() => (Content::Useless, "no CI".to_owned()),
        None => (Content::Free, idle.to_owned()),
        Some(User::Pod { pod, .. }) => (Content::Used, pod.clone()),
        Some(User::GivenOut { .. }) => (Content::Used, "starting".to_owned()),
        Some(User::Process { name: Some(name), .. }) => (Content::Used, name.clone()),
        Some(User::Process { pid, .. }) => (Content::Used, pid.to_string()),
    };
    Cell { at, content, profile: instance.profile.to_string(), user, others }
}
