//! PURE. Plain text tables: columns as wide as they need to be, two spaces between them.

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self::with_titles(titles.map(str::to_owned).into())
    }

    /// [`Table::new`] for titles that are known only at run time.
    pub fn with_titles(titles: Vec<String>) -> Self {
        Self { rows: vec![titles] }
    }

    /// Adds a row. Line breaks and other control characters in a cell become spaces: what a server or a manifest
    /// says can neither break a row nor drive a terminal.
    pub fn row(&mut self, cells: Vec<String>) {
        let plain = |cell: String| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    /// Whether it has no row but the titles.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Lines without trailing spaces, each ended by a line feed.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(column) {
                    Some(known) => *known = width.max(*known),
                    None => widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["SERVER", "TOOL", "WHO"]);
        table.row(["files", "read_text_file", "ada, grace*"].map(str::to_owned).into());
        table.row(["", "größe", ""].map(str::to_owned).into());

        let expected = "SERVER  TOOL            WHO\nfiles   read_text_file  ada, grace*\n        größe\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_cell_cannot_break_its_row_or_drive_the_terminal() {
        let mut table = Table::new(["A", "B"]);
        table.row(vec!["x\ny".to_owned(), "\u{1b}[31mred".to_owned()]);

        let text = table.render();

        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_table_without_rows_says_so() {
        assert!(Table::new(["A"]).is_empty());
    }
}
