//! The report: sections with figures, tables and charts. The report is stored as JSON.
//! The text on the terminal and in the document is made from the stored report alone.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The figures of all sections that were ever measured in this checkout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub sections: Vec<Section>,
}

/// The figures about one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub name: String,
    pub title: String,
    /// The date and the kind of machine, such as `2026-11-26, 2 cores, x86_64`.
    pub measured: String,
    pub figures: Vec<Figure>,
    pub tables: Vec<Table>,
    pub charts: Vec<Chart>,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// The value that is wanted. It says nothing about whether `make bench` fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Limit>,
    /// If the figure is past its limit, `make bench` fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// The value with which a figure is compared. It was measured in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    pub name: String,
    pub value: f64,
}

/// A bound of a figure: its target or its limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// The bound of the figure's ratio to its baseline.
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

/// Values that are easier to read as a table than as single figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A chart. Its picture is `docs/performance/<file>.svg`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    pub file: String,
    pub title: String,
    pub content: ChartContent,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChartContent {
    /// Horizontal bars. Each group has one bar for each series, side by side or stacked.
    Bars {
        value_label: String,
        stacked: bool,
        groups: Vec<String>,
        series: Vec<BarSeries>,
    },
    Lines {
        x: Axis,
        y: Axis,
        series: Vec<LineSeries>,
    },
}

/// The values of one series, one for each group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    pub name: String,
    pub values: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineSeries {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    pub label: String,
    pub scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    Linear,
    Logarithmic,
}

impl Report {
    /// Reads the report at `path`. If there is none, or if another version of this program
    /// wrote it, the report is empty.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(path, serde_json::to_string_pretty(self)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds a section. An older section with the same name is replaced.
    pub fn replace(&mut self, section: Section) {
        match self.sections.iter_mut().find(|known| known.name == section.name) {
            Some(known) => *known = section,
            None => self.sections.push(section),
        }
    }
}

impl Section {
    /// An empty section that is measured now.
    pub fn new(name: &str, title: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let today = jiff::Zoned::now().date();
        Self {
            name: name.into(),
            title: title.into(),
            measured: format!("{today}, {cores} cores, {}", std::env::consts::ARCH),
            figures: Vec::new(),
            tables: Vec::new(),
            charts: Vec::new(),
        }
    }

    /// The figures that are past their limits.
    pub fn failures(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| !figure.is_within_limit())
    }
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { name: name.into(), value, unit: unit.into(), baseline: None, target: None, limit: None }
    }

    #[must_use]
    pub fn compared_with(self, name: impl Into<String>, value: f64) -> Self {
        Self { baseline: Some(Baseline { name: name.into(), value }), ..self }
    }

    /// Sets the limit. The target is the same, if the figure has no other target.
    #[must_use]
    pub fn within(self, limit: Limit) -> Self {
        Self { limit: Some(limit), target: self.target.or(Some(limit)), ..self }
    }

    /// Sets a target that differs from the limit.
    #[must_use]
    pub fn aiming_at(self, target: Limit) -> Self {
        Self { target: Some(target), ..self }
    }

    /// The value over the value of the baseline.
    pub fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|baseline| self.value / baseline.value)
    }

    /// Returns whether the figure has reached its target.
    pub fn has_reached_target(&self) -> bool {
        self.target.is_none_or(|target| self.is_within(target))
    }

    /// Returns whether the figure keeps its limit.
    pub fn is_within_limit(&self) -> bool {
        self.limit.is_none_or(|limit| self.is_within(limit))
    }

    /// A figure without a baseline is past every bound of its ratio.
    fn is_within(&self, bound: Limit) -> bool {
        let ratio = self.ratio();
        match bound {
            Limit::AtMost(most) => self.value <= most,
            Limit::AtLeast(least) => self.value >= least,
            Limit::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            Limit::RatioAtLeast(least) => ratio.is_some_and(|ratio| ratio >= least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Limit, Report, Section};

    #[test]
    fn a_figure_is_compared_with_its_limit() {
        let init = Figure::new("init", 6.0, "ms").compared_with("hello-world", 4.0);
        assert_eq!(init.ratio(), Some(1.5));
        for (limit, is_within) in [
            (Limit::AtMost(6.0), true),
            (Limit::AtMost(5.9), false),
            (Limit::AtLeast(6.0), true),
            (Limit::AtLeast(6.1), false),
            (Limit::RatioAtMost(1.5), true),
            (Limit::RatioAtMost(1.4), false),
            (Limit::RatioAtLeast(1.5), true),
            (Limit::RatioAtLeast(1.6), false),
        ] {
            assert_eq!(init.clone().within(limit).is_within_limit(), is_within, "{limit:?}");
        }
    }

    #[test]
    fn a_figure_may_keep_its_limit_without_having_reached_its_target() {
        let zip = Figure::new("zip", 2.6, "MB").aiming_at(Limit::AtMost(2.5)).within(Limit::AtMost(2.8));
        assert!(zip.is_within_limit() && !zip.has_reached_target());
        let memory = Figure::new("memory", 8.0, "MB").within(Limit::AtMost(9.0));
        assert!(memory.has_reached_target());
    }

    #[test]
    fn a_limit_of_a_ratio_is_not_met_without_a_baseline() {
        assert!(!Figure::new("init", 1.0, "ms").within(Limit::RatioAtMost(9.0)).is_within_limit());
    }

    #[test]
    fn a_section_that_is_measured_again_replaces_the_older_section() {
        let mut report = Report::default();
        let (first, other) = (Section::new("latency", "Latency"), Section::new("cost", "Cost"));
        let second = Section { figures: vec![Figure::new("init", 1.0, "ms")], ..first.clone() };
        for section in [first, other.clone(), second.clone()] {
            report.replace(section);
        }
        assert_eq!(report.sections, [second, other]);
    }
}
