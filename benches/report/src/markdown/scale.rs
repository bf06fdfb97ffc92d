//! What grows with a fleet and with what lies around.

use super::{runs, section};
use crate::data::{Case, Scale};
use crate::table::{self, thousands};

pub(super) fn scale_of(text: &mut String, scale: &Scale) {
    let mut paragraphs = vec![format!(
        "By the message, {}; growth is in terms of the first line of a table. Where events come by a timetable, \
         what the publisher alone costs Redis is taken off.",
        runs(scale.runs)
    )];
    let header = [
        "",
        "messages/s",
        "Redis µs",
        "growth",
        "commands",
        "growth",
        "client µs",
        "peak MiB",
        "p99 µs",
        "Redis, of bare",
    ];
    for series in &scale.series {
        let row = |case: &Case| {
            let or_nothing = |figure: Option<String>| figure.unwrap_or_default();
            [
                case.name.clone(),
                thousands(case.figures.per_second),
                format!("{:.2}", case.figures.redis_us),
                format!("{:.2}", case.redis_growth),
                format!("{:.4}", case.figures.commands),
                format!("{:.2}", case.commands_growth),
                format!("{:.2}", case.figures.client_us),
                or_nothing(case.figures.peak_mb.map(|mb| format!("{mb:.1}"))),
                or_nothing(
                    case.latency
                        .as_ref()
                        .map(|latency| format!("{:.0}", latency.p99_us)),
                ),
                or_nothing(case.redis_to_bare.map(|ratio| format!("{ratio:.2}"))),
            ]
        };
        let rows: Vec<_> = series.cases.iter().map(row).collect();
        paragraphs.push(format!("**{}**: {}", series.name, series.about));
        paragraphs.push(table::text(&header, &rows));
    }
    if !scale.idle.is_empty() {
        let rows: Vec<_> = scale
            .idle
            .iter()
            .map(|idle| {
                [
                    idle.name.clone(),
                    format!("{:.2}", idle.redis_ms_per_second),
                    format!("{:.1}", idle.commands_per_second),
                    idle.memory_mb
                        .map(|mb| format!("{mb:.1}"))
                        .unwrap_or_default(),
                ]
            })
            .collect();
        paragraphs.push(
            "**idle**: a worker that has nothing to do, with a lease of 5 s in place of 30 s"
                .to_owned(),
        );
        paragraphs.push(table::text(
            &["beside", "Redis ms/s", "commands/s", "MiB"],
            &rows,
        ));
    }
    section(text, "Scale", &paragraphs);
}
