//! The text of a report: tables for the terminal, and tables in Markdown.

use comfy_table::{CellAlignment, Table as Terminal, presets};

use crate::report::{Figure, Limit, Section, Table};

/// The columns of the table of a section's figures.
const COLUMNS: [&str; 6] = ["figure", "value", "compared with", "ratio", "target", "limit"];

/// A section's figures and tables, as they are printed to the terminal.
pub fn for_terminal(section: &Section) -> String {
    let tables =
        tables(section).map(|table| format!("{}\n{}\n", table.title, drawn(&table, presets::UTF8_BORDERS_ONLY)));
    format!("{} ({})\n\n{}", section.title, section.measured, tables.collect::<Vec<_>>().join("\n"))
}

/// A section's figures and tables in Markdown.
pub fn for_markdown(section: &Section) -> String {
    let tables = tables(section).map(|table| {
        let title = if table.title.is_empty() { String::new() } else { format!("**{}**\n\n", table.title) };
        format!("{title}{}\n", drawn(&table, presets::ASCII_MARKDOWN))
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// The figures with limits of all sections, in Markdown.
pub fn of_targets(sections: &[Section]) -> String {
    let limited = |section: &Section| {
        let figures = section.figures.iter().filter(|figure| figure.limit.is_some());
        figures.map(|figure| [vec![section.title.clone()], row(figure)].concat()).collect::<Vec<_>>()
    };
    let columns = ["section"].into_iter().chain(COLUMNS).map(Into::into).collect();
    let table = Table { title: String::new(), columns, rows: sections.iter().flat_map(limited).collect() };
    drawn(&table, presets::ASCII_MARKDOWN)
}

fn tables(section: &Section) -> impl Iterator<Item = Table> {
    let figures = (!section.figures.is_empty()).then(|| Table {
        title: String::new(),
        columns: COLUMNS.map(Into::into).into(),
        rows: section.figures.iter().map(row).collect(),
    });
    figures.into_iter().chain(section.tables.iter().cloned())
}

fn row(figure: &Figure) -> Vec<String> {
    let unit = &figure.unit;
    let baseline = figure.baseline.as_ref();
    vec![
        figure.name.clone(),
        format!("{} {unit}", number(figure.value)),
        baseline.map_or_else(String::new, |baseline| format!("{}: {} {unit}", baseline.name, number(baseline.value))),
        figure.ratio().map_or_else(String::new, |ratio| format!("{} ×", number(ratio))),
        figure.target.map_or_else(String::new, |target| {
            let text = bound(target, unit);
            if figure.has_reached_target() { text } else { format!("{text}: not reached") }
        }),
        figure.limit.map_or_else(String::new, |limit| {
            let text = bound(limit, unit);
            if figure.is_within_limit() { text } else { format!("{text}: PAST THE LIMIT") }
        }),
    ]
}

fn bound(bound: Limit, unit: &str) -> String {
    match bound {
        Limit::AtMost(most) => format!("≤ {} {unit}", number(most)),
        Limit::AtLeast(least) => format!("≥ {} {unit}", number(least)),
        Limit::RatioAtMost(most) => format!("≤ {} ×", number(most)),
        Limit::RatioAtLeast(least) => format!("≥ {} ×", number(least)),
    }
}

/// A number with three significant digits, and with all digits before the decimal point.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        0.0 => 0,
        m if m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 1.0 => 2,
        m => (2 - m.log10().floor() as i32).clamp(0, 9) as usize,
    };
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return with_separators(&text);
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number of lines of an order, in words.
pub fn lines_of(lines: usize) -> String {
    if lines == 1 { "1 line".into() } else { format!("{lines} lines") }
}

/// Separates the thousands of a whole number.
fn with_separators(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

fn drawn(table: &Table, preset: &str) -> String {
    let mut drawn = Terminal::new();
    drawn.load_preset(preset).set_header(&table.columns);
    drawn.add_rows(&table.rows);
    for (n, column) in drawn.column_iter_mut().enumerate() {
        let is_number = |row: &Vec<String>| {
            row.get(n)
                .is_some_and(|cell| cell.starts_with(|first: char| first.is_ascii_digit() || "-$".contains(first)))
        };
        if table.rows.iter().all(is_number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    drawn.to_string()
}

#[cfg(test)]
mod tests {
    use super::{for_markdown, number};
    use crate::report::{Figure, Limit, Section};

    #[test]
    fn a_number_has_three_significant_digits_and_no_useless_zeros() {
        for (value, text) in [
            (0.0, "0"),
            (4.0, "4"),
            (4.006, "4.01"),
            (40.0, "40"),
            (0.0625, "0.0625"),
            (0.000_012_34, "0.0000123"),
            (123.4, "123"),
            (1_234_567.8, "1,234,568"),
            (100.0, "100"),
            (-1000.0, "-1,000"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_figure_past_its_limit_is_marked() {
        let figure = Figure::new("init", 6.0, "ms").compared_with("hello-world", 3.0);
        let mut section = Section::new("latency", "Latency");
        section.figures = vec![figure.clone().within(Limit::RatioAtMost(2.0)), figure.within(Limit::RatioAtMost(1.5))];
        let text = for_markdown(&section);
        let marked: Vec<_> = text.lines().filter(|line| line.contains("PAST THE LIMIT")).collect();
        assert_eq!(marked.len(), 1, "{text}");
        assert!(marked[0].contains("≤ 1.5 ×") && marked[0].contains("hello-world: 3 ms"), "{text}");
    }
}
