//! Columns of text, two spaces apart, numbers to the right: readable without colour, and by `awk`.

/// A heading and rows under it.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|word| (*word).to_owned()).collect()] }
    }

    /// A row has as many cells as the heading; an empty one reads `-`.
    pub(crate) fn row<const CELLS: usize>(&mut self, cells: [String; CELLS]) {
        let one_line = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell.replace(['\n', '\r'], " ") };
        self.rows.push(cells.into_iter().map(one_line).collect());
    }

    /// The table, each line with its end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or_default())
            .collect();
        let is_number = |text: &String| text.bytes().all(|b| b.is_ascii_digit());
        let is_right = |column: usize| {
            let mut known = self.rows.iter().skip(1).map(|row| cell(row, column)).filter(|cell| cell != "-").peekable();
            known.peek().is_some() && known.all(|cell| is_number(&cell))
        };
        let right: Vec<bool> = (0..columns).map(is_right).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((column, width), right) in widths.iter().enumerate().zip(&right) {
                if column > 0 {
                    line.push_str("  ");
                }
                let cell = cell(row, column);
                line.push_str(&if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_left_and_numbers_right() {
        let mut table = Table::new(&["GPU", "PROFILE", "USERS"]);
        table.row(["0".to_owned(), "1g.5gb".to_owned(), String::new()]);
        table.row(["10".to_owned(), "1g.5gb+me".to_owned(), "a\nb".to_owned()]);
        assert_eq!(table.render(), "GPU  PROFILE    USERS\n  0  1g.5gb     -\n 10  1g.5gb+me  a b\n");
    }
}
