//! The plots. Each is drawn from the data alone, where the part it shows was measured.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::Error;
use crate::data::{Data, Latency, Scale, Series};
use crate::table::thousands;

const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const OTHERS: RGBColor = RGBColor(0x95, 0xa5, 0xa6);
const LINES: [RGBColor; 6] = [
    RGBColor(0x29, 0x80, 0xb9),
    RGBColor(0x27, 0xae, 0x60),
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0x8e, 0x44, 0xad),
    RGBColor(0xd3, 0x54, 0x00),
    RGBColor(0x2c, 0x3e, 0x50),
];

/// The files that were written, by the part they show.
#[derive(Default)]
pub struct Plots {
    pub throughput: Option<String>,
    pub latency: Option<String>,
    pub load: Option<String>,
    pub scale: Option<String>,
    pub publish: Option<String>,
    pub eventstore: Option<String>,
}

/// A bar: its name, its length, and whether it is ours.
struct Bar(String, f64, bool);

/// A line: its name, its points, and whether it is what ours is measured against.
struct Line(String, Vec<(f64, f64)>, bool);

pub fn draw(data: &Data, directory: &Path) -> Result<Plots, Error> {
    let mut plots = Plots::default();
    let bars = throughput(data);
    if !bars.is_empty() {
        let title = "messages a second, a backlog of small events";
        plots.throughput = Some(draw_bars(directory, "throughput", title, &bars)?);
    }
    if let Some(latency) = &data.latency {
        plots.latency = Some(draw_latency(directory, latency)?);
    }
    if let Some(load) = &data.load {
        let bars = [
            Bar(
                "read one, ack one".to_owned(),
                load.one_by_one.redis_us,
                false,
            ),
            Bar(
                "blocking loop, COUNT 500".to_owned(),
                load.bare.redis_us,
                false,
            ),
            Bar("streamhand".to_owned(), load.runtime.redis_us, true),
        ];
        let title = format!(
            "µs of Redis CPU a message at {} a second",
            thousands(load.per_second as f64)
        );
        plots.load = Some(draw_bars(directory, "load", &title, &bars)?);
    }
    if let Some(scale) = &data.scale {
        plots.scale = draw_scale(directory, scale)?;
    }
    if let Some(publish) = &data.publish {
        let bars = [
            Bar(
                "XADD in pipelines of 500".to_owned(),
                publish.bare.per_second,
                false,
            ),
            Bar(
                "Publisher::publish_many".to_owned(),
                publish.publish_many.per_second,
                true,
            ),
            Bar(
                "streamhand publish, NDJSON".to_owned(),
                publish.ndjson.per_second,
                true,
            ),
        ];
        let title = "events published a second";
        plots.publish = Some(draw_bars(directory, "publish", title, &bars)?);
    }
    if let Some(store) = &data.eventstore {
        let bar = |update: &crate::data::Update| {
            let writers = update.writers;
            let name = format!(
                "{writers} {}",
                if writers == 1 { "writer" } else { "writers" }
            );
            Bar(name, update.figures.per_second, true)
        };
        let bars: Vec<_> = store.update.iter().map(bar).collect();
        let title = "updates a second, all writers on one aggregate";
        plots.eventstore = Some(draw_bars(directory, "eventstore", title, &bars)?);
    }
    Ok(plots)
}

/// The peers' own runs where there are any, or else those of the two ways.
fn throughput(data: &Data) -> Vec<Bar> {
    if let Some(peers) = data.peers.as_ref().filter(|peers| !peers.peers.is_empty()) {
        let bar = |peer: &crate::data::Peer| {
            Bar(
                peer.name.clone(),
                peer.per_second,
                peer.name == "streamhand",
            )
        };
        return peers.peers.iter().map(bar).collect();
    }
    let Some(throughput) = &data.throughput else {
        return Vec::new();
    };
    vec![
        Bar(
            "bare loop, COUNT 500".to_owned(),
            throughput.bare.per_second,
            false,
        ),
        Bar("streamhand".to_owned(), throughput.runtime.per_second, true),
    ]
}

fn draw_bars(directory: &Path, name: &str, title: &str, bars: &[Bar]) -> Result<String, Error> {
    let file = format!("{name}.svg");
    let path = directory.join(&file);
    let root = SVGBackend::new(&path, (760, 90 + 34 * bars.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let longest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 18))
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(210)
        .build_cartesian_2d(0.0..longest * 1.18, (0..bars.len() - 1).into_segmented())?;
    let name_of = |at: &SegmentValue<usize>| match at {
        // The first stands on top.
        SegmentValue::CenterOf(at) if *at < bars.len() => bars[bars.len() - 1 - at].0.clone(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(bars.len())
        .y_label_formatter(&name_of)
        .x_label_formatter(&|value| short(*value))
        .label_style((FONT, 14))
        .draw()?;
    for (at, Bar(_, length, ours)) in bars.iter().rev().enumerate() {
        let colour = if *ours { OURS } else { OTHERS };
        let corners = [
            (0.0, SegmentValue::Exact(at)),
            (*length, SegmentValue::Exact(at + 1)),
        ];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(6, 6, 0, 0);
        chart.draw_series([bar])?;
        let label = if *length >= 1_000.0 {
            thousands(*length)
        } else {
            format!("{length:.2}")
        };
        let style = (FONT, 14).into_text_style(&root);
        let place = (*length + longest * 0.01, SegmentValue::CenterOf(at));
        let offset = EmptyElement::at(place) + Text::new(label, (0, -7), style);
        chart.draw_series([offset])?;
    }
    root.present()?;
    Ok(file)
}

fn draw_latency(directory: &Path, latency: &Latency) -> Result<String, Error> {
    let mut lines = Vec::new();
    for rate in &latency.rates {
        let name = |way: &str| format!("{way}, {} a second", thousands(rate.per_second as f64));
        // By the number of nines.
        let points = |curve: &[(f64, f64)]| {
            let point = |(share, us): &(f64, f64)| (-(1.0 - share).log10(), *us);
            curve.iter().map(point).collect::<Vec<_>>()
        };
        lines.push(Line(name("bare loop"), points(&rate.curves.bare), true));
        lines.push(Line(
            name("streamhand"),
            points(&rate.curves.runtime),
            false,
        ));
    }
    let file = "latency.svg";
    let path = directory.join(file);
    let root = SVGBackend::new(&path, (760, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "µs from publication to the start of the handler, by percentile";
    let (across, up) = ranges(&lines);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 18))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(28)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..across.end.max(2.0), up.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(5)
        .x_label_formatter(&|nines| percentile(*nines))
        .y_label_formatter(&|us| short(*us))
        .label_style((FONT, 14))
        .draw()?;
    for (at, Line(name, points, bare)) in lines.into_iter().enumerate() {
        let style = LINES[at / 2 % LINES.len()].stroke_width(2);
        let drawn = if bare {
            chart.draw_series(DashedLineSeries::new(points, 4, 4, style))?
        } else {
            chart.draw_series(LineSeries::new(points, style))?
        };
        drawn.label(name).legend(move |(x, y)| {
            let end = if bare { x + 8 } else { x + 20 };
            PathElement::new([(x, y), (end, y)], style)
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .label_font((FONT, 13))
        .draw()?;
    root.present()?;
    Ok(file.to_owned())
}

/// Redis CPU by the message as things grow, a small plot for each series.
fn draw_scale(directory: &Path, scale: &Scale) -> Result<Option<String>, Error> {
    let drawn: Vec<&Series> = scale
        .series
        .iter()
        .filter(|series| series.same_work && series.cases.len() > 2)
        .filter(|series| series.cases.iter().all(|case| case.value > 0.0))
        .collect();
    if drawn.is_empty() {
        return Ok(None);
    }
    let file = "scale.svg";
    let path = directory.join(file);
    let rows = drawn.len().div_ceil(2);
    let root = SVGBackend::new(&path, (760, 230 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, series) in root.split_evenly((rows, 2)).iter().zip(drawn) {
        draw_series(area, series)?;
    }
    root.present()?;
    Ok(Some(file.to_owned()))
}

fn draw_series(area: &DrawingArea<SVGBackend<'_>, Shift>, series: &Series) -> Result<(), Error> {
    let points: Vec<(f64, f64)> = series
        .cases
        .iter()
        .map(|case| (case.value, case.redis_growth))
        .collect();
    let last = points.last().map_or(1.0, |point| point.0);
    let highest = points.iter().map(|point| point.1).fold(1.5, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: Redis CPU a message", series.name), (FONT, 15))
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(40)
        .build_cartesian_2d((1.0..last).log_scale(), 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|growth| format!("{growth:.1}"))
        .label_style((FONT, 12))
        .draw()?;
    let flat = [(1.0, 1.2), (last, 1.2)];
    chart.draw_series(DashedLineSeries::new(flat, 4, 4, OTHERS.stroke_width(1)))?;
    chart.draw_series(LineSeries::new(points.clone(), OURS.stroke_width(2)))?;
    chart.draw_series(
        points
            .into_iter()
            .map(|point| Circle::new(point, 3, OURS.filled())),
    )?;
    Ok(())
}

/// What the points cover: from nothing across, and with some room up and down.
fn ranges(lines: &[Line]) -> (Range<f64>, Range<f64>) {
    let points = || lines.iter().flat_map(|line| &line.1);
    let across = points().map(|point| point.0).fold(0.0, f64::max);
    let lowest = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let highest = points().map(|point| point.1).fold(1.0, f64::max);
    (
        0.0..across,
        lowest.min(highest).max(1.0) * 0.7..highest * 1.5,
    )
}

/// The percentile with so many nines.
fn percentile(nines: f64) -> String {
    match nines.round() as i32 {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        nines => format!("99.{} %", "9".repeat(nines as usize - 2)),
    }
}

/// A number for an axis.
fn short(value: f64) -> String {
    match value {
        1_000_000.0.. => {
            format!("{:.3}", value / 1e6)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + " M"
        }
        10_000.0.. => format!("{:.0} k", value / 1e3),
        0.0 => "0".to_owned(),
        ..10.0 if value.fract() != 0.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_short_numbers() {
        let numbers = [0.0, 0.5, 100.0, 25_000.0, 1_500_000.0, 2_000_000.0];
        assert_eq!(
            numbers.map(short),
            ["0", "0.5", "100", "25 k", "1.5 M", "2 M"]
        );
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }
}
