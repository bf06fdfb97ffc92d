//! The report: what was measured on what, how near it came to what is aimed at, and then part by part.

mod eventstore;
mod scale;

use std::fmt::Write;

use crate::data::{Data, Latency, Load, Peers, Publish, Throughput, Watched, Way};
use crate::machine::Machine;
use crate::plots::Plots;
use crate::table::{self, thousands};
use crate::targets;
use eventstore::eventstore_of;
use scale::scale_of;

pub fn report(data: &Data, plots: &Plots) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    text += "`make bench` has measured this and written this page; `docs/benchmarks/` has what it measured. Everything \
             that is compared took turns on one private server, and what is told is the median of the ratios within \
             the rounds: a machine is noisy, but noisy for both.\n";
    text += &measured_on(data);
    section(
        &mut text,
        "What is aimed at",
        &[table::text(&targets::HEADER, &targets::rows(data))],
    );
    if let Some(throughput) = &data.throughput {
        throughput_of(&mut text, throughput);
    }
    if let Some(peers) = &data.peers {
        peers_of(&mut text, peers);
    }
    image(&mut text, &plots.throughput, "messages a second");
    if let Some(watched) = &data.watched {
        watched_of(&mut text, watched);
    }
    if let Some(latency) = &data.latency {
        latency_of(&mut text, latency);
        image(&mut text, &plots.latency, "latency by percentile");
    }
    if let Some(load) = &data.load {
        load_of(&mut text, load);
        image(&mut text, &plots.load, "Redis CPU a message");
    }
    if let Some(scale) = &data.scale {
        scale_of(&mut text, scale);
        image(
            &mut text,
            &plots.scale,
            "Redis CPU a message as things grow",
        );
    }
    if let Some(publish) = &data.publish {
        publish_of(&mut text, publish);
        image(&mut text, &plots.publish, "events published a second");
    }
    if let Some(store) = &data.eventstore {
        eventstore_of(&mut text, store);
        image(&mut text, &plots.eventstore, "updates a second");
    }
    text
}

fn section(text: &mut String, title: &str, paragraphs: &[String]) {
    *text += &format!("\n## {title}\n\n{}\n", paragraphs.join("\n\n"));
}

fn image(text: &mut String, file: &Option<String>, what: &str) {
    if let Some(file) = file {
        *text += &format!("\n![{what}](benchmarks/{file})\n");
    }
}

fn runs(runs: u64) -> String {
    if runs == 1 {
        "one run".to_owned()
    } else {
        format!("{runs} runs in turns")
    }
}

/// What was measured on what: a line for all parts that were measured on one machine on one day.
fn measured_on(data: &Data) -> String {
    let mut lines: Vec<(Vec<&str>, Machine)> = Vec::new();
    for (part, machine) in &data.machines {
        match lines.iter_mut().find(|(_, other)| other.is(machine)) {
            Some((parts, other)) => {
                parts.push(part);
                let loads = [other.load_before, machine.load_before];
                other.load_before = loads.into_iter().flatten().reduce(f64::max);
            }
            None => lines.push((vec![part], machine.clone())),
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let is_one = lines.len() == 1;
    let rows: Vec<_> = lines
        .into_iter()
        .map(|(parts, machine)| {
            let cores = if machine.cores == 1 { "core" } else { "cores" };
            let memory = machine.memory_gib.map(|gib| format!("{gib:.1} GiB"));
            let load = machine.load_before.map(|load| format!("{load:.2}"));
            [
                if is_one {
                    String::new()
                } else {
                    parts.join(", ")
                },
                machine.date,
                format!("{} {cores}, {}", machine.cores, machine.cpu),
                memory.unwrap_or_default(),
                machine.kernel,
                machine.rust,
                load.unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        "measured",
        "date",
        "machine",
        "memory",
        "kernel",
        "Rust",
        "load before",
    ];
    let mut text = format!("\n{}\n", table::text(&header, &rows));
    if let Some(Throughput {
        server, streamhand, ..
    }) = &data.throughput
    {
        let _ = write!(
            text,
            "\nThe server was {server}, streamhand {streamhand}.\n"
        );
    }
    text
}

fn throughput_of(text: &mut String, throughput: &Throughput) {
    let row = |name: &str, figures: &crate::data::Figures| {
        [
            name.to_owned(),
            thousands(figures.per_second),
            format!("{:.2}", figures.redis_us),
            format!("{:.2}", figures.client_us),
            format!("{:.4}", figures.commands),
        ]
    };
    let rows = [
        row("bare loop", &throughput.bare),
        row("streamhand", &throughput.runtime),
        [
            "streamhand, of the bare loop".to_owned(),
            format!("{:.2}", throughput.throughput_ratio),
            format!("{:.2}", throughput.redis_cpu_ratio),
            format!("{:.2}", throughput.client_cpu_ratio),
            String::new(),
        ],
    ];
    let header = ["", "messages/s", "Redis µs", "client µs", "commands"];
    let about = format!(
        "A backlog of {} small events in MessagePack, {}. *Bare loop*: XREADGROUP COUNT 500, the ids moved out of \
         the reply, one XACK, no handler. *streamhand*: a worker process as its users run it, with a typed handler \
         that does nothing. By the message:",
        thousands(throughput.events as f64),
        runs(throughput.runs)
    );
    let busy = format!(
        "Redis, which has one core, was busy for {:.0} % of the time under streamhand.",
        throughput.redis_busy * 100.0
    );
    section(
        text,
        "Throughput",
        &[about, table::text(&header, &rows), busy],
    );
}

fn watched_of(text: &mut String, watched: &Watched) {
    let row = |name: &str, figures: &crate::data::Figures, ratios: Option<(f64, f64)>| {
        let ratio = |ratio: f64| format!("{ratio:.2}");
        [
            name.to_owned(),
            thousands(figures.per_second),
            format!("{:.2}", figures.redis_us),
            format!("{:.2}", figures.client_us),
            ratios.map(|(of, _)| ratio(of)).unwrap_or_default(),
            ratios.map(|(_, cpu)| ratio(cpu)).unwrap_or_default(),
        ]
    };
    let pulse = (watched.pulse_ratio, watched.pulse_cpu_ratio);
    let scraped = (watched.scraped_ratio, watched.scraped_cpu_ratio);
    let rows = [
        row("nobody: nothing is counted", &watched.unwatched, None),
        row("whoever reads the pulse", &watched.pulse, Some(pulse)),
        row(
            "a scraper of `/metrics`, too",
            &watched.scraped,
            Some(scraped),
        ),
    ];
    let header = [
        "who watches",
        "messages/s",
        "Redis µs",
        "client µs",
        "of unwatched",
        "client of it",
    ];
    let about = format!(
        "The same with {} events, {}, by workers that differ in who can watch them. The pulse is on by default. The \
         scraper asks every half second, thirty times as often as Prometheus does. By the message:",
        thousands(watched.events as f64),
        runs(watched.runs)
    );
    section(text, "Being watched", &[about, table::text(&header, &rows)]);
}

fn peers_of(text: &mut String, peers: &Peers) {
    let ratio = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let rows: Vec<_> = peers
        .peers
        .iter()
        .map(|peer| {
            [
                peer.name.clone(),
                peer.version.clone(),
                thousands(peer.per_second),
                ratio(peer.of_bare),
                ratio(peer.of_streamhand),
                format!("{:.2}", peer.redis_cpu_us),
                format!("{:.2}", peer.client_cpu_us),
            ]
        })
        .collect();
    let header = [
        "",
        "version",
        "messages/s",
        "of bare",
        "of streamhand",
        "Redis µs",
        "client µs",
    ];
    let about = format!(
        "The same {} events on one {}, acknowledged after the handler, each crate in the settings it is fastest with:",
        thousands(peers.events as f64),
        peers.server
    );
    let mut settings = String::new();
    for peer in &peers.peers {
        let _ = writeln!(settings, "- {}: {}", peer.name, peer.settings);
    }
    for (what, missing) in [("skipped", &peers.skipped), ("failed", &peers.failed)] {
        for missing in missing {
            let _ = writeln!(settings, "- {} {what}: {}", missing.name, missing.reason);
        }
    }
    section(
        text,
        "Beside other crates",
        &[
            about,
            table::text(&header, &rows),
            settings.trim_end().to_owned(),
        ],
    );
}

fn latency_of(text: &mut String, latency: &Latency) {
    let (mut rows, mut late) = (Vec::new(), Vec::new());
    let apart = latency.rates.iter().map(|rate| (rate, ""));
    let anywhere = latency.anywhere.iter().map(|rate| (rate, ", anywhere"));
    for (rate, place) in apart.chain(anywhere) {
        let at = format!("{}{place}", thousands(rate.per_second as f64));
        late.push(format!(
            "{:.0} and {:.0}",
            rate.sent_late_p50_us, rate.sent_late_p99_us
        ));
        for (name, told, more) in [
            ("bare loop", &rate.bare, None),
            ("streamhand", &rate.runtime, Some(())),
        ] {
            let compared = |ratio, us| {
                more.map(|()| targets::compared(ratio, us))
                    .unwrap_or_default()
            };
            rows.push([
                at.clone(),
                name.to_owned(),
                format!("{:.0}", told.p50_us),
                compared(rate.p50_ratio, rate.p50_more_us),
                format!("{:.0}", told.p99_us),
                compared(rate.p99_ratio, rate.p99_more_us),
                told.p999_us
                    .map(|us| format!("{us:.0}"))
                    .unwrap_or_default(),
            ]);
        }
    }
    let header = [
        "events/s",
        "",
        "p50 µs",
        "of bare",
        "p99 µs",
        "of bare",
        "p99.9 µs",
    ];
    let about = format!(
        "From when an event was due to be published to the start of its handler, {} of {} s at each rate. The \
         publisher keeps to its timetable and waits for no answer, so that an event that had to wait is late by all of \
         it (no coordinated omission). *Bare loop*: XREADGROUP BLOCK and one XACK a reply on one blocking socket. \
         p99.9 where a run has 100,000 samples.",
        runs(latency.runs),
        latency.seconds
    );
    let late = format!(
        "Both include what the publisher itself was late by; p50 and p99 of it at each rate, in µs: {}.",
        late.join("; ")
    );
    let mut parts = vec![about];
    if latency.anywhere.is_some() {
        let places = "The publisher has a CPU of its own, and server and worker have the others, as where the publisher \
                      is on another machine. *Anywhere*: the same once more, with all three wherever the kernel puts \
                      them. A loop's are then most often on one CPU, and its caches stay warm; a worker does more after \
                      it was woken, and that is enough for the kernel to have Redis interrupt the publisher and wake the \
                      worker on a CPU that sleeps.";
        parts.push(places.to_owned());
    }
    parts.extend([table::text(&header, &rows), late]);
    section(text, "Latency", &parts);
}

fn load_of(text: &mut String, load: &Load) {
    let row = |name: &str, way: &Way| {
        [
            name.to_owned(),
            format!("{:.2}", way.redis_us),
            format!("{:.2}", way.commands),
            format!("{:.2}", way.client_us),
            format!("{:.0}", way.latency.p50_us),
            format!("{:.0}", way.latency.p99_us),
            format!("{:.0} %", way.kept_up * 100.0),
        ]
    };
    let rows = [
        row("read one, ack one", &load.one_by_one),
        row("blocking loop, COUNT 500", &load.bare),
        row("streamhand", &load.runtime),
    ];
    let header = [
        "",
        "Redis µs",
        "commands",
        "client µs",
        "p50 µs",
        "p99 µs",
        "kept up",
    ];
    let about = format!(
        "{} events a second, {} of {} s. By the message, without the {:.2} µs that the publisher alone costs \
         Redis (measured in every round by publishing to nobody, and taken off):",
        thousands(load.per_second as f64),
        runs(load.runs),
        load.seconds,
        load.publisher_redis_us
    );
    let calls = |way: &Way| {
        let calls: Vec<String> = way
            .by_command
            .iter()
            .filter(|(_, calls)| **calls >= 0.001)
            .map(|(name, calls)| format!("{name} {calls:.3}"))
            .collect();
        calls.join(", ")
    };
    let commands = format!(
        "Commands a message under streamhand: {}.",
        calls(&load.runtime)
    );
    section(
        text,
        "Middling load",
        &[about, table::text(&header, &rows), commands],
    );
}

fn publish_of(text: &mut String, publish: &Publish) {
    let row = |name: &str, figures: &crate::data::Publishing, ratio: Option<f64>| {
        [
            name.to_owned(),
            thousands(figures.per_second),
            format!("{:.2}", figures.redis_us),
            figures
                .client_us
                .map(|us| format!("{us:.2}"))
                .unwrap_or_default(),
            ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        ]
    };
    let rows = [
        row("XADD in pipelines of 500", &publish.bare, None),
        row(
            "`Publisher::publish_many`",
            &publish.publish_many,
            Some(publish.publish_many_ratio),
        ),
        row(
            "`streamhand publish`, NDJSON",
            &publish.ndjson,
            Some(publish.ndjson_ratio),
        ),
    ];
    let about = format!(
        "{} events, {}. The bare loop writes the same fields, made before the clock starts; `publish_many` encodes \
         typed events and gives each an id and a time; `streamhand publish` reads lines of JSON as well, from the start \
         of its process to the end.",
        thousands(publish.events as f64),
        runs(publish.runs)
    );
    let header = ["", "events/s", "Redis µs", "client µs", "of bare"];
    section(text, "Publishing", &[about, table::text(&header, &rows)]);
}
