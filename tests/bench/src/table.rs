//! Figures, and the table that they are printed as.

use std::fmt;

/// One row for each thing measured; a column for each side.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    sides: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: Quantity,
    /// By side.
    values: Vec<Vec<f64>>,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quantity {
    /// Rows of one group stand together.
    group: String,
    name: String,
    /// What DESIGN.md section 5 wants ours to reach, or nothing.
    aim: &'static str,
}

impl Quantity {
    pub(crate) fn new(group: impl Into<String>, name: impl Into<String>, aim: &'static str) -> Self {
        Self { group: group.into(), name: name.into(), aim }
    }
}

impl Figures {
    pub(crate) fn new(sides: Vec<&'static str>) -> Self {
        Self { sides, rows: Vec::new() }
    }

    /// One more value. Rows stand in the order in which they were first heard of, by group.
    pub(crate) fn add(&mut self, side: usize, what: Quantity, value: f64) {
        let place = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            let after = self.rows.iter().rposition(|row| row.what.group == what.group);
            let place = after.map_or(self.rows.len(), |last| last + 1);
            self.rows.insert(place, Row { what, values: vec![Vec::new(); self.sides.len()] });
            place
        });
        if let Some(values) = self.rows.get_mut(place).and_then(|row| row.values.get_mut(side)) {
            values.push(value);
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self.rows.iter().map(|row| row.what.name.chars().count() + 2).max().unwrap_or_default();
        write!(out, "{:name_width$}", "")?;
        for side in &self.sides {
            write!(out, " |{side:^28}")?;
        }
        writeln!(out, " | aim")?;
        write!(out, "{:name_width$}", "")?;
        for _ in &self.sides {
            write!(out, " |{:>9}{:>9}{:>9} ", "min", "median", "max")?;
        }
        writeln!(out, " |")?;
        let mut group = "";
        for row in &self.rows {
            if row.what.group != group {
                group = &row.what.group;
                writeln!(out, "{group}")?;
            }
            write!(out, "{:name_width$}", format!("  {}", row.what.name))?;
            for values in &row.values {
                match summary(values) {
                    Some(three) => {
                        write!(out, " |")?;
                        three.iter().try_for_each(|value| write!(out, "{:>9}", short(*value)))?;
                        write!(out, " ")?;
                    }
                    None => write!(out, " |{:^28}", "-")?,
                }
            }
            writeln!(out, "{}", format!(" | {}", row.what.aim).trim_end())?;
        }
        Ok(())
    }
}

/// Minimum, median, maximum.
fn summary(values: &[f64]) -> Option<[f64; 3]> {
    Some([quantile(values, 0, 2)?, quantile(values, 1, 2)?, quantile(values, 2, 2)?])
}

/// The value that `part` of `whole` are not above.
pub(crate) fn quantile(values: &[f64], part: usize, whole: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? * part / whole).copied()
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_real_values() {
        assert_eq!(summary(&[3.0, 1.0, 2.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(summary(&[4.0, 1.0]), Some([1.0, 1.0, 4.0]));
        assert_eq!(summary(&[]), None);
        let thousand: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(quantile(&thousand, 99, 100), Some(989.0));
    }

    #[test]
    fn rows_of_a_group_stand_together() {
        let mut figures = Figures::new(vec!["ours", "theirs"]);
        figures.add(0, Quantity::new("one", "a", "5"), 1.25);
        figures.add(0, Quantity::new("two", "c", ""), 400.0);
        figures.add(1, Quantity::new("one", "b", ""), 12.345);
        let text = figures.to_string();
        let order = ["one", "  a", "  b", "two", "  c"].map(|line| text.find(&format!("\n{line}")).unwrap());
        assert!(order.is_sorted(), "{text}");
        assert!(text.contains("12.3") && text.contains("1.25") && text.contains(" 400"), "{text}");
    }
}
