//! Rows in columns, for people.

use std::fmt;

/// A table with a head. What others named is shown without what a terminal would obey.
pub struct Table {
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    /// `empty` is said when there are no rows.
    pub fn new(head: &[&str], empty: &'static str) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()], empty }
    }
    #[must_use]
    pub fn rows<T>(mut self, items: &[T], row: impl Fn(&T) -> Vec<String>) -> Self {
        self.rows
            .extend(items.iter().map(|item| row(item).iter().map(|cell| shown(cell)).collect()));
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.len() == 1 {
            return f.write_str(self.empty);
        }
        let columns = self.rows[0].len();
        let width =
            |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            let end = if i + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What others wrote, without what a terminal would obey.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A moment as people read it, to the minute, in UTC; `-` for none.
pub fn moment(at: Option<domain::Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string()[..16].replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_and_obey_nothing() {
        let table = Table::new(&["NAME", "ID"], "none")
            .rows(&["a", "longer\u{1b}[2J"], |name| vec![(*name).to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "NAME        ID\na           x\nlonger\u{fffd}[2J  x");
        assert_eq!(Table::new(&["NAME"], "none").to_string(), "none");
    }
}
