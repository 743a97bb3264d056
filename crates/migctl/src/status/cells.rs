//! A GPU's memory slices as a row of cells, to scale.

use mig_model::Placement;

use super::{Cut, draw};
use crate::paper::{Ink, Paper};

/// All of a GPU's memory slices.
pub(super) struct Row {
    pub(super) slices: usize,
    cells: Vec<Cell>,
}

/// An instance, or a stretch of slices that are in none.
pub(super) struct Cell {
    pub(super) at: Placement,
    pub(super) content: Content,
    pub(super) profile: String,
    pub(super) user: String,
    /// How many use it beside that one.
    pub(super) others: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Used,
    Free,
    /// An instance in which nothing can run.
    Useless,
    Uncut,
}

/// None of a GPU that is not cut, or of which is not known how.
pub(super) fn of_gpu(gpu: &Cut<'_>) -> Option<Row> {
    let uncut = gpu.uncut.as_ref()?;
    let cell = |instance| Some(draw::cell(instance, instance.placement?, gpu.idle));
    let mut cells: Vec<Cell> = gpu.instances.iter().map(cell).collect::<Option<_>>()?;
    let nothing = |at: &Placement| Cell {
        at: *at,
        content: Content::Uncut,
        profile: "uncut".to_owned(),
        user: String::new(),
        others: 0,
    };
    cells.extend(uncut.memory.iter().map(nothing));
    cells.sort_by_key(|cell| cell.at);
    let slices = gpu.memory_slices?;
    // What overlaps, or reaches beyond the end, cannot be drawn.
    let end = cells.iter().try_fold(0, |end, cell| (cell.at.start == end).then(|| cell.at.end()));
    (end == Some(slices)).then_some(Row { slices: usize::try_from(slices).ok()?, cells })
}

/// How many columns a slice takes; none where they don't fit on the paper.
pub(super) fn scale(paper: &Paper, row: &Row, indent: usize) -> Option<usize> {
    let room = paper.width.checked_sub(indent + 1)?;
    // Nothing is told by more than this.
    let scale = (room / row.slices).min(16);
    (scale >= 2).then_some(scale)
}

/// With a frame, or just the cells.
pub(super) fn draw(paper: &Paper, row: &Row, scale: usize, indent: usize, framed: bool) -> String {
    let mut text = String::new();
    let mut line = |content: String| {
        text.push_str(&" ".repeat(indent));
        text.push_str(&content);
        text.push('\n');
    };
    if framed {
        line(numbered_edge(paper, row, scale));
    }
    line(texts(paper, row, scale, |cell, width| paper.cropped(&cell.profile, width)));
    line(texts(paper, row, scale, |cell, width| {
        let others = if cell.others > 0 { format!(" +{}", cell.others) } else { String::new() };
        paper.cropped(&cell.user, width.saturating_sub(others.len())) + &others
    }));
    if framed {
        line(edge(paper, row, scale, paper.lines.below, |_| String::new()));
    }
    text
}

fn columns(cell: &Cell, scale: usize) -> usize {
    usize::try_from(cell.at.size).unwrap_or_default().saturating_mul(scale).saturating_sub(1)
}

fn texts(paper: &Paper, row: &Row, scale: usize, text: impl Fn(&Cell, usize) -> String) -> String {
    let mut line = String::new();
    for cell in &row.cells {
        let width = columns(cell, scale);
        let ink = match cell.content {
            Content::Used => Ink::Used,
            Content::Free => Ink::Good,
            Content::Useless => Ink::Warning,
            Content::Uncut => Ink::Faint,
        };
        line.push(paper.lines.down);
        let text: String = text(cell, width).chars().take(width).collect();
        let rest = width - text.chars().count();
        line.push_str(&paper.ink(ink, &text));
        line.push_str(&" ".repeat(rest));
    }
    line.push(paper.lines.down);
    line
}

/// The slices' numbers are in it, each where its slice begins.
fn numbered_edge(paper: &Paper, row: &Row, scale: usize) -> String {
    edge(paper, row, scale, paper.lines.above, |cell| {
        let across = paper.lines.across;
        let number = |slice: u32| {
            let number = slice.to_string();
            let rest = scale.saturating_sub(number.len());
            number.chars().chain(std::iter::repeat_n(across, rest)).collect::<String>()
        };
        (cell.at.start..cell.at.end()).map(number).collect()
    })
}

fn edge(paper: &Paper, row: &Row, scale: usize, ends: [char; 3], content: impl Fn(&Cell) -> String) -> String {
    let [left, joint, right] = ends;
    let mut line = String::new();
    for (position, cell) in row.cells.iter().enumerate() {
        line.push(if position == 0 { left } else { joint });
        let filling = std::iter::repeat(paper.lines.across);
        line.extend(content(cell).chars().chain(filling).take(columns(cell, scale)));
    }
    line.push(right);
    line
}
