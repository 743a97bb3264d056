//! A GPU drawn as a row of memory slices.

use crate::paint::{Ink, Paint};

/// A slice of the GPU and what is written in it.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) start: usize,
    pub(crate) size: usize,
    pub(crate) lines: Vec<String>,
    pub(crate) ink: Ink,
}

/// Columns of one memory slice, its right border included: eight of them fit in 80 columns.
const UNIT: usize = 9;

/// The lines of the drawing. What no cell covers is drawn as unused.
pub(crate) fn draw(slices: usize, cells: &[Cell], paint: Paint) -> Vec<String> {
    let cells = fill_gaps(slices, cells);
    let height = cells.iter().map(|cell| cell.lines.len()).max().unwrap_or(1);
    let numbers = (0..slices).map(|slice| format!("{slice:^UNIT$}")).collect::<String>();
    let mut lines = vec![paint.ink(Ink::Dim, numbers.trim_end()), border(&cells, ['┌', '┬', '┐'])];
    for line in 0..height {
        let inside = cells.iter().map(|cell| {
            let width = cell.size * UNIT - 1;
            let text = cell.lines.get(line).map(String::as_str).unwrap_or_default();
            let text = text.chars().take(width - 1).collect::<String>();
            format!("{}│", paint.ink(cell.ink, &format!(" {text:<rest$}", rest = width - 1)))
        });
        lines.push(format!("│{}", inside.collect::<String>()));
    }
    lines.push(border(&cells, ['└', '┴', '┘']));
    lines
}

fn border(cells: &[Cell], [left, middle, right]: [char; 3]) -> String {
    let parts = cells.iter().map(|cell| "─".repeat(cell.size * UNIT - 1)).collect::<Vec<_>>();
    format!("{left}{}{right}", parts.join(&middle.to_string()))
}

fn fill_gaps(slices: usize, cells: &[Cell]) -> Vec<Cell> {
    let mut cells = cells.to_vec();
    cells.sort_by_key(|cell| cell.start);
    let mut filled = Vec::new();
    let mut next = 0;
    let unused = |start, end: usize| Cell { start, size: end - start, lines: vec!["unused".to_owned()], ink: Ink::Dim };
    for cell in cells {
        if cell.start > next {
            filled.push(unused(next, cell.start));
        }
        next = cell.start + cell.size;
        filled.push(cell);
    }
    if slices > next {
        filled.push(unused(next, slices));
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::{Cell, draw};
    use crate::paint::{Ink, Paint};

    fn cell(start: usize, size: usize, lines: &[&str]) -> Cell {
        Cell { start, size, lines: lines.iter().map(|&line| line.to_owned()).collect(), ink: Ink::Plain }
    }

    #[test]
    fn slices_stand_where_their_memory_is() {
        let cells = [cell(2, 2, &["2g.10gb", "study"]), cell(0, 1, &["1g.5gb", "a-very-long-pod"])];
        let drawn = draw(4, &cells, Paint::off());
        let expected = [
            "    0        1        2        3",
            "┌────────┬────────┬─────────────────┐",
            "│ 1g.5gb │ unused │ 2g.10gb         │",
            "│ a-very-│        │ study           │",
            "└────────┴────────┴─────────────────┘",
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn eight_slices_leave_room_for_the_indent() {
        let drawn = draw(8, &[cell(0, 8, &["7g.40gb"])], Paint::off());
        assert!(drawn.iter().all(|line| line.chars().count() <= 76), "{drawn:#?}");
    }
}
