//! Draws charts as SVG pictures. The background is white, so that a picture is readable
//! on a dark page, too.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontTransform, text_anchor},
};

use crate::{
    report::{self, Axis, BarSeries, Chart, ChartContent, Scale},
    table::number,
};

const WIDTH: u32 = 860;
const LINES_HEIGHT: u32 = 440;
/// The height of everything but the bars in a picture with bars.
const BARS_FRAME: u32 = 130;
const BAR: u32 = 20;
/// Colours that people with colour blindness can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];
/// The height of the legend.
const LEGEND: u32 = 24;
const FONT: &str = "sans-serif";
const TITLE: u32 = 18;
const TEXT: u32 = 14;

/// Draws a chart. Returns the text of the SVG file.
///
/// # Errors
///
/// If the chart has no values.
pub fn draw(chart: &Chart) -> Result<String> {
    let height = match &chart.content {
        ChartContent::Bars { groups, series, stacked, .. } => {
            BARS_FRAME + BAR * (groups.len() * (1 + if *stacked { 1 } else { series.len() })) as u32
        }
        ChartContent::Lines { .. } => LINES_HEIGHT,
    };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let area = area.titled(&chart.title, (FONT, TITLE)).map_err(failed)?;
        let names: Vec<_> = match &chart.content {
            ChartContent::Bars { series, .. } => series.iter().map(|one| &one.name).collect(),
            ChartContent::Lines { series, .. } => series.iter().map(|one| &one.name).collect(),
        };
        let (legend_area, area) = area.split_vertically(if names.len() > 1 { LEGEND } else { 0 });
        legend(&legend_area, &names)?;
        match &chart.content {
            ChartContent::Bars { value_label, stacked, groups, series } => {
                bars(&area, value_label, *stacked, groups, series)?;
            }
            ChartContent::Lines { x, y, series } => lines(&area, x, y, series)?,
        }
        area.present().map_err(failed)?;
    }
    Ok(svg + "\n")
}

/// Draws the names of the series beside their colours, in one row. A chart with one series
/// needs no legend.
fn legend(area: &Area<'_>, names: &[&String]) -> Result<()> {
    let mut left = 20;
    for (n, name) in names.iter().enumerate().filter(|_| names.len() > 1) {
        area.draw(&Rectangle::new([(left, 6), (left + 14, 18)], colour(n).filled())).map_err(failed)?;
        area.draw(&Text::new((*name).clone(), (left + 20, 5), (FONT, TEXT))).map_err(failed)?;
        left += 45 + 8 * name.chars().count() as i32;
    }
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("a chart cannot be drawn: {error}")
}

fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

fn bars(area: &Area<'_>, value_label: &str, stacked: bool, groups: &[String], series: &[BarSeries]) -> Result<()> {
    let value = |series: &BarSeries, group: usize| series.values.get(group).copied().unwrap_or_default();
    let sum = |group: usize| series.iter().map(|series| value(series, group)).sum::<f64>();
    let greatest = if stacked {
        (0..groups.len()).map(sum).fold(0.0, f64::max)
    } else {
        series.iter().flat_map(|series| &series.values).copied().fold(0.0, f64::max)
    };
    let longest = groups.iter().map(|group| group.chars().count()).max().unwrap_or_default() as u32;
    // A group takes one unit of height for each of its bars, and one unit as a gap.
    let rows = if stacked { 1 } else { series.len() };
    let group_height = rows as f64 + 1.0;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(60)
        .x_label_area_size(40)
        .y_label_area_size(longest * 8 + 10)
        .build_cartesian_2d(0.0..greatest * 1.08, groups.len() as f64 * group_height..0.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .x_desc(value_label)
        .x_label_formatter(&|value| number(*value))
        .label_style((FONT, TEXT))
        .draw()
        .map_err(failed)?;
    let beside = (FONT, TEXT - 2).into_font().color(&BLACK);
    let beside = beside.pos(text_anchor::Pos::new(text_anchor::HPos::Left, text_anchor::VPos::Center));
    let label = |value: f64, middle: f64| Text::new(format!(" {}", number(value)), (value, middle), beside.clone());
    for group in 0..groups.len() {
        let mut end = 0.0;
        for (n, one) in series.iter().enumerate() {
            let start = if stacked { end } else { 0.0 };
            end = start + value(one, group);
            let top = group as f64 * group_height + 0.5 + if stacked { 0.0 } else { n as f64 };
            let bar = Rectangle::new([(start, top + 0.08), (end, top + 0.92)], colour(n).filled());
            chart.draw_series([bar]).map_err(failed)?;
            if !stacked || n + 1 == series.len() {
                chart.draw_series([label(end, top + 0.5)]).map_err(failed)?;
            }
        }
    }
    // The names of the groups stand left of the axis, in pixels, because labels of an
    // axis with numbers cannot be texts.
    let left_of = (FONT, TEXT).into_font().transform(FontTransform::None).color(&BLACK);
    let left_of = left_of.pos(text_anchor::Pos::new(text_anchor::HPos::Right, text_anchor::VPos::Center));
    for (group, name) in groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(0.0, (group as f64 + 0.5) * group_height));
        let (left, top) = area.get_base_pixel();
        area.draw(&Text::new(name.clone(), (x - left - 8, y - top), left_of.clone())).map_err(failed)?;
    }
    Ok(())
}

fn lines(area: &Area<'_>, x: &Axis, y: &Axis, series: &[report::LineSeries]) -> Result<()> {
    let points = || series.iter().flat_map(|series| &series.points);
    let range = |scale: Scale, values: &mut dyn Iterator<Item = f64>| {
        let (least, greatest) = values
            .map(|value| scale.position(value))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), value| {
                (least.min(value), greatest.max(value))
            });
        match scale {
            Scale::Linear => 0.0..greatest * 1.05,
            Scale::Logarithmic => least.floor()..(greatest + 0.15).ceil(),
        }
    };
    let x_range = range(x.scale, &mut points().map(|(x, _)| *x));
    let y_range = range(y.scale, &mut points().map(|(_, y)| *y));
    if !(x_range.start < x_range.end && y_range.start < y_range.end) {
        return Err(anyhow!("a chart has no values"));
    }
    let ticks = |scale: Scale, range: &std::ops::Range<f64>| match scale {
        Scale::Linear => 10,
        Scale::Logarithmic => (range.end - range.start) as usize + 1,
    };
    let (x_ticks, y_ticks) = (ticks(x.scale, &x_range), ticks(y.scale, &y_range));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(20)
        .x_label_area_size(45)
        .y_label_area_size(75)
        .build_cartesian_2d(x_range, y_range)
        .map_err(failed)?;
    let (x_scale, y_scale) = (x.scale, y.scale);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(x_ticks)
        .y_labels(y_ticks)
        .x_desc(&x.label)
        .y_desc(&y.label)
        .x_label_formatter(&|at| x_scale.label(*at))
        .y_label_formatter(&|at| y_scale.label(*at))
        .label_style((FONT, TEXT))
        .draw()
        .map_err(failed)?;
    for (n, one) in series.iter().enumerate() {
        let style = colour(n).stroke_width(2);
        let on_chart: Vec<_> = one.points.iter().map(|(x, y)| (x_scale.position(*x), y_scale.position(*y))).collect();
        let line = LineSeries::new(on_chart.clone(), style);
        chart.draw_series(line).map_err(failed)?;
        chart.draw_series(on_chart.iter().map(|point| Circle::new(*point, 3, colour(n).filled()))).map_err(failed)?;
    }
    Ok(())
}

impl Scale {
    /// The position of a value on the axis. A logarithmic axis has a tick for each power
    /// of two.
    fn position(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(f64::MIN_POSITIVE).log2(),
        }
    }

    /// The value at a position of the axis, as the label of a tick.
    fn label(self, position: f64) -> String {
        match self {
            Self::Linear => number(position),
            Self::Logarithmic if (position - position.round()).abs() < 1e-6 => number(position.exp2()),
            Self::Logarithmic => String::new(),
        }
    }
}
