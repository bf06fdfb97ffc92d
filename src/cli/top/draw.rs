//! How it is shown: readable at 80 columns and 24 lines, and with more room more of it.

use std::time::{Duration, SystemTime};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table};

use super::app::{App, Shown, StreamRow, TypeRow, WorkerRow};
use super::lints::Lint;
use crate::cli::text::{printable, rough, time};
use crate::metrics::histogram::{Histogram, index};
use crate::names::shown;

/// The bars of a small histogram.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The bounds of its columns, in seconds: from a tenth of a millisecond to ten seconds, and what is longer.
const BOUNDS: [f64; 8] = [0.000_1, 0.000_5, 0.003, 0.014, 0.07, 0.37, 1.9, 10.0];

const HELP: &[(&str, &str)] = &[
    ("q, Esc", "quit"),
    ("p, space", "hold the picture, or go on"),
    ("s", "sort types by rate, failures, p99 or name"),
    ("r", "the other way round"),
    ("t", "show or hide the partitions of topics"),
    ("↓ j, ↑ k", "scroll workers"),
    ("?, h", "this"),
];

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let seen = &app.shown;
    let area = frame.area();
    let streams = seen
        .streams
        .len()
        .clamp(1, (area.height as usize / 5).max(1)) as u16;
    let types = seen.types.len().clamp(1, (area.height as usize / 3).max(1)) as u16;
    let [title, streams, types, workers, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(streams + 2),
        Constraint::Length(types + 2),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(title_lines(seen)), title);
    draw_streams(frame, streams, &seen.streams);
    draw_types(frame, types, &seen.types);
    draw_workers(frame, workers, seen, app.scrolled);
    frame.render_widget(key_line(app), keys);
    if app.has_help {
        draw_help(frame, area);
    }
}

fn title_lines(seen: &Shown) -> Vec<Line<'static>> {
    let [delivered, done, retried, dead] = seen.rates;
    let workers = match seen.there {
        1 => "1 worker".to_owned(),
        there => format!("{there} workers"),
    };
    let clock = time(seen.now);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let first = Line::from(vec![
        Span::styled(format!("group {}", shown(&seen.group)), bold),
        Span::raw(format!("  {workers}  {clock}")),
    ]);
    let number = |name: &'static str, rate: f64, colour: Color| {
        let style = if rate > 0.0 {
            Style::new().fg(colour)
        } else {
            Style::new()
        };
        vec![
            Span::raw(format!("{name} ")),
            Span::styled(per_second(rate), style),
            Span::raw("  "),
        ]
    };
    let rates = [
        number("in", delivered, Color::Reset),
        number("done", done, Color::Green),
        number("retried", retried, Color::Yellow),
        number("dead", dead, Color::Red),
    ];
    vec![first, Line::from(rates.concat())]
}

fn draw_streams(frame: &mut Frame<'_>, area: Rect, rows: &[StreamRow]) {
    let header = ["STREAM", "LAG", "HELD", "PARKED", "DEAD", "OLDEST", "LINTS"];
    let widths = [
        Constraint::Fill(22),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Fill(19),
    ];
    let rows = rows.iter().map(|row| {
        let cells: Vec<Line<'static>> = vec![
            Line::raw(shown(&row.name).to_string()),
            Line::raw(row.lag.clone()),
            Line::raw(row.pending.to_string()),
            Line::raw(row.parked.to_string()),
            Line::raw(row.dead.to_string()),
            Line::raw(row.oldest.map_or_else(|| "-".to_owned(), rough)),
            lints(&row.lints),
        ];
        Row::new(cells)
    });
    frame.render_widget(table(header, rows, widths), area);
}

fn draw_types(frame: &mut Frame<'_>, area: Rect, rows: &[TypeRow]) {
    let header = [
        "TYPE",
        "DONE",
        "RETRY",
        "DEAD",
        "P50",
        "P99",
        "0.1ms-10s",
        "LINTS",
    ];
    let widths = [
        Constraint::Fill(15),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Fill(17),
    ];
    let rows = rows.iter().map(|row| {
        let part = |part| {
            row.durations
                .quantile(part)
                .map_or_else(|| "-".to_owned(), seconds)
        };
        let cells: Vec<Line<'static>> = vec![
            Line::raw(shown(&row.name).to_string()),
            Line::raw(per_second(row.done)),
            Line::raw(per_second(row.retried)),
            Line::raw(per_second(row.dead)),
            Line::raw(part(0.5)),
            Line::raw(part(0.99)),
            Line::styled(small(&row.durations), Style::new().fg(Color::Cyan)),
            lints(&row.lints),
        ];
        Row::new(cells)
    });
    frame.render_widget(table(header, rows, widths), area);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, seen: &Shown, scrolled: usize) {
    let header = [
        "WORKER",
        "VERSION",
        "RUN",
        "CPU",
        "MEM",
        "LONGEST RUN",
        "LINTS",
    ];
    let widths = [
        Constraint::Fill(14),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Fill(19),
        Constraint::Fill(17),
    ];
    if seen.workers.is_empty() {
        let text = "no worker has told of itself: streamhand run starts one";
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let rows = seen
        .workers
        .iter()
        .skip(scrolled)
        .map(|row| worker(row, seen.now));
    frame.render_widget(table(header, rows, widths), area);
}

fn worker(row: &WorkerRow, now: SystemTime) -> Row<'static> {
    let worker = &row.worker;
    let longest = worker.runs.first().map_or_else(
        || "-".to_owned(),
        |run| {
            let lasts = run
                .since
                .map(|since| now.duration_since(since).unwrap_or_default());
            let of = run
                .event_type
                .as_deref()
                .map_or_else(|| "?".to_owned(), |of| shown(of).to_string());
            match lasts {
                Some(lasts) => format!("{} {of}", rough(lasts)),
                None => of,
            }
        },
    );
    let cells: Vec<Line<'static>> = vec![
        Line::raw(format!("{}:{}", printable(&worker.host), worker.pid)),
        Line::raw(printable(&worker.version).to_string()),
        Line::raw(format!("{}/{}", worker.running, worker.slots)),
        Line::raw(format!("{:.0}%", worker.cpu * 100.0)),
        Line::raw(match worker.memory {
            0 => "-".to_owned(),
            bytes => format!("{}M", bytes >> 20),
        }),
        Line::raw(longest),
        lints(&row.lints),
    ];
    Row::new(cells)
}

fn table<'a, const N: usize>(
    header: [&'static str; N],
    rows: impl Iterator<Item = Row<'a>>,
    widths: [Constraint; N],
) -> Table<'a> {
    let style = Style::new().add_modifier(Modifier::BOLD | Modifier::DIM);
    Table::new(rows, widths)
        .header(Row::new(header).style(style))
        .column_spacing(1)
}

fn lints(lints: &[Lint]) -> Line<'static> {
    let mut spans = Vec::new();
    for lint in lints {
        if !spans.is_empty() {
            spans.push(Span::raw(", "));
        }
        let style = match lint.is_bad {
            true => Style::new().fg(Color::Red),
            false => Style::new().fg(Color::Yellow),
        };
        spans.push(Span::styled(lint.text.clone(), style));
    }
    Line::from(spans)
}

fn key_line(app: &App) -> Paragraph<'static> {
    if let Some(trouble) = &app.trouble {
        let text = printable(trouble).to_string();
        return Paragraph::new(text).style(Style::new().fg(Color::Red));
    }
    let order = if app.is_reversed { ", reversed" } else { "" };
    let held = if app.is_paused { "PAUSED  " } else { "" };
    let text = format!(
        "{held}q quit  p pause  s sort: {}{order}  r reverse  ? help",
        app.sort.name()
    );
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::DIM))
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(keys, what)| Line::raw(format!(" {keys:<10} {what}")))
        .collect();
    let (width, height) = (
        58.min(area.width),
        (lines.len() as u16 + 2).min(area.height),
    );
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" keys ")),
        place,
    );
}

/// `0`, `0.3`, `12.4`, `1204`, `35k`.
fn per_second(rate: f64) -> String {
    match rate {
        rate if rate <= 0.0 => "0/s".to_owned(),
        rate if rate < 100.0 => format!("{rate:.1}/s"),
        rate if rate < 10_000.0 => format!("{rate:.0}/s"),
        rate => format!("{:.0}k/s", rate / 1000.0),
    }
}

/// `350us`, `12ms`, `1.4s`, `2m 5s`.
fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.001 => format!("{:.0}us", seconds * 1e6),
        seconds if seconds < 0.1 => format!("{:.1}ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0}ms", seconds * 1e3),
        seconds if seconds < 100.0 => format!("{seconds:.1}s"),
        seconds => rough(Duration::from_secs_f64(seconds.min(1e9))),
    }
}

/// A histogram in nine columns.
fn small(durations: &Histogram) -> String {
    let mut columns = [0u64; BOUNDS.len() + 1];
    columns[0] = durations.zero();
    for (at, count) in durations.buckets() {
        let fits = |up_to: &f64| index(*up_to).is_some_and(|up_to| *at <= up_to);
        let column = BOUNDS.iter().position(fits);
        columns[column.unwrap_or(BOUNDS.len())] += count;
    }
    let most = columns.iter().copied().max().unwrap_or(0);
    let bar = |count: &u64| match (*count, most) {
        (0, _) | (_, 0) => ' ',
        // What is there at all is seen.
        (count, most) => BARS[((count as f64 / most as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    columns.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::*;
    use crate::admin::Fleet;
    use crate::cli::top::lints;
    use crate::event::EntryId;
    use crate::pulse::fleet;
    use crate::pulse::message::{Breaker, Pulse, Run};
    use crate::pulse::slot::Came;

    const NOW_MS: u64 = 1_796_005_300_000;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(NOW_MS)
    }

    fn durations(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    fn kind(name: &str, done: f64, retried: f64, dead: f64, durations: Histogram) -> TypeRow {
        TypeRow {
            name: name.to_owned(),
            done,
            retried,
            dead,
            durations,
            lints: lints::of_type(done * 60.0, retried * 60.0, dead * 60.0),
        }
    }

    fn workers() -> Vec<WorkerRow> {
        let mut known = fleet::Fleet::default();
        for (pid, version, running) in [(4711, "1.4.0", 64), (812, "1.3.9", 3)] {
            let mut pulse = Pulse {
                every_ms: 30_000,
                ..Pulse::default()
            };
            (pulse.who.host, pulse.who.pid) = ("web-1".to_owned(), pid);
            (pulse.who.version, pulse.who.streams) =
                (version.to_owned(), vec!["orders".to_owned()]);
            (
                pulse.now.slots,
                pulse.now.running,
                pulse.now.cpu,
                pulse.now.memory,
            ) = (64, running, 310, 48 << 20);
            pulse.now.runs = vec![Run {
                stream: "orders".to_owned(),
                id: EntryId { ms: 1, seq: 0 },
                event_type: "invoice.rendered".to_owned(),
                attempt: 1,
                for_ms: 95_000,
            }];
            if pid == 812 {
                pulse.now.breakers = vec![Breaker {
                    name: "payments".to_owned(),
                    open_for_ms: Some(20_000),
                }];
            }
            known.heard(&Came {
                ms: NOW_MS,
                worker: format!("sh2-30000-web-1-{pid}-00ff"),
                number: 1,
                pulse: Ok(pulse),
            });
        }
        let fleet = Fleet::of("fulfilment", &["orders".to_owned()], &known, now());
        let margin = |pid| if pid == 812 { Some(2.0) } else { Some(20.0) };
        let row = |worker: &crate::admin::FleetWorker| WorkerRow {
            worker: worker.clone(),
            lints: lints::of_worker(worker, margin(worker.pid)),
        };
        fleet.there().map(row).collect()
    }

    fn app() -> App {
        let streams = [
            ("orders", "1204", 3, 12, 2),
            ("payments.{eu}.incoming-and-outgoing", "0", 0, 0, 0),
        ];
        let stream = |(name, lag, pending, parked, dead): (&str, &str, u64, u64, u64)| StreamRow {
            name: name.to_owned(),
            lag: lag.to_owned(),
            pending,
            parked,
            dead,
            oldest: (pending > 0).then(|| Duration::from_secs(95)),
            lints: if pending > 0 {
                Vec::new()
            } else {
                vec![Lint {
                    text: "no worker".to_owned(),
                    is_bad: true,
                }]
            },
        };
        App::showing(Shown {
            group: "fulfilment".to_owned(),
            now: now(),
            streams: streams.into_iter().map(stream).collect(),
            types: vec![
                kind(
                    "order.created",
                    120.4,
                    0.3,
                    0.0,
                    durations(&[0.002, 0.003, 0.003, 0.004, 0.02, 0.3]),
                ),
                kind(
                    "invoice.rendered",
                    0.4,
                    1.2,
                    0.1,
                    durations(&[1.4, 2.5, 9.0, 95.0]),
                ),
                kind("mail.sent", 0.0, 0.0, 0.0, Histogram::default()),
            ],
            workers: workers(),
            rates: [121.0, 120.8, 1.5, 0.1],
            there: 2,
        })
    }

    fn screen(app: &App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_group_at_80_by_24() {
        insta::assert_snapshot!(screen(&app(), 80, 24), @r#"
        "group fulfilment  2 workers  2026-11-30T02:21:40Z                               "
        "in 121/s  done 121/s  retried 1.5/s  dead 0.1/s                                 "
        "STREAM                 LAG      HELD   PARKED DEAD   OLDEST  LINTS              "
        "orders                 1204     3      12     2      1m 35s                     "
        "payments.{eu}.incoming 0        0      0      0      -       no worker          "
        "                                                                                "
        "TYPE            DONE    RETRY   DEAD   P50    P99    0.1ms-10s LINTS            "
        "order.created   120/s   0.3/s   0/s    2.9ms  310ms    █▃▃▃                     "
        "invoice.rendere 0.4/s   1.2/s   0.1/s  2.5s   94.5s        ▄█▄ retries over half"
        "mail.sent       0/s     0/s     0/s    -      -                                 "
        "                                                                                "
        "WORKER         VERSION  RUN     CPU  MEM   LONGEST RUN         LINTS            "
        "web-1:4711     1.4.0    64/64   31%  48M   1m 35s invoice.rend all slots taken  "
        "web-1:812      1.3.9    3/64    31%  48M   1m 35s invoice.rend lease margin low,"
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "PAUSED  q quit  p pause  s sort: rate  r reverse  ? help                        "
        "#);
    }

    #[test]
    fn a_group_at_140_by_20() {
        insta::assert_snapshot!(screen(&app(), 140, 20), @r#"
        "group fulfilment  2 workers  2026-11-30T02:21:40Z                                                                                           "
        "in 121/s  done 121/s  retried 1.5/s  dead 0.1/s                                                                                             "
        "STREAM                                                 LAG      HELD   PARKED DEAD   OLDEST  LINTS                                          "
        "orders                                                 1204     3      12     2      1m 35s                                                 "
        "payments.{eu}.incoming-and-outgoing                    0        0      0      0      -       no worker                                      "
        "                                                                                                                                            "
        "TYPE                                        DONE    RETRY   DEAD   P50    P99    0.1ms-10s LINTS                                            "
        "order.created                               120/s   0.3/s   0/s    2.9ms  310ms    █▃▃▃                                                     "
        "invoice.rendered                            0.4/s   1.2/s   0.1/s  2.5s   94.5s        ▄█▄ retries over half, dead over 1 %                 "
        "mail.sent                                   0/s     0/s     0/s    -      -                                                                 "
        "                                                                                                                                            "
        "WORKER                          VERSION  RUN     CPU  MEM   LONGEST RUN                                LINTS                                "
        "web-1:4711                      1.4.0    64/64   31%  48M   1m 35s invoice.rendered                    all slots taken                      "
        "web-1:812                       1.3.9    3/64    31%  48M   1m 35s invoice.rendered                    lease margin low, breaker payments   "
        "                                                                                                                                            "
        "                                                                                                                                            "
        "                                                                                                                                            "
        "                                                                                                                                            "
        "                                                                                                                                            "
        "PAUSED  q quit  p pause  s sort: rate  r reverse  ? help                                                                                    "
        "#);
    }

    #[test]
    fn with_help_paused_and_sorted_otherwise() {
        let mut app = app();
        for key in ['s', 's', 's', 'r', '?'] {
            app.pressed(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
        }
        insta::assert_snapshot!(screen(&app, 80, 24), @r#"
        "group fulfilment  2 workers  2026-11-30T02:21:40Z                               "
        "in 121/s  done 121/s  retried 1.5/s  dead 0.1/s                                 "
        "STREAM                 LAG      HELD   PARKED DEAD   OLDEST  LINTS              "
        "orders                 1204     3      12     2      1m 35s                     "
        "payments.{eu}.incoming 0        0      0      0      -       no worker          "
        "                                                                                "
        "TYPE            DONE    RETRY   DEAD   P50    P99    0.1ms-10s LINTS            "
        "order.creat┌ keys ──────────────────────────────────────────────────┐           "
        "mail.sent  │ q, Esc     quit                                        │           "
        "invoice.ren│ p, space   hold the picture, or go on                  │s over half"
        "           │ s          sort types by rate, failures, p99 or name   │           "
        "WORKER     │ r          the other way round                         │           "
        "web-1:4711 │ t          show or hide the partitions of topics       │ots taken  "
        "web-1:812  │ ↓ j, ↑ k   scroll workers                              │margin low,"
        "           │ ?, h       this                                        │           "
        "           └────────────────────────────────────────────────────────┘           "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "                                                                                "
        "PAUSED  q quit  p pause  s sort: name, reversed  r reverse  ? help              "
        "#);
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_to() {
        for (width, height) in [(1, 1), (20, 5), (300, 3), (40, 100)] {
            screen(&app(), width, height);
        }
    }

    #[test]
    fn figures_are_short() {
        let rates = [0.0, 0.25, 12.34, 120.4, 9999.0, 35_000.0].map(per_second);
        assert_eq!(
            rates,
            ["0/s", "0.2/s", "12.3/s", "120/s", "9999/s", "35k/s"]
        );
        let durations = [0.0002, 0.0123, 0.34, 1.43, 125.0].map(seconds);
        assert_eq!(durations, ["200us", "12.3ms", "340ms", "1.4s", "2m 5s"]);
        assert_eq!(small(&durations_of_all()), "▁ ▂     █");
        assert_eq!(small(&Histogram::default()), "         ");
    }

    fn durations_of_all() -> Histogram {
        durations(&[
            0.0, 0.001, 0.002, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0,
        ])
    }
}
