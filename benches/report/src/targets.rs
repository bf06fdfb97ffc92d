//! What is aimed at, and how near the measurements came.

use crate::data::{Data, Rate, Scale, Series};
use crate::table::thousands;

pub const HEADER: [&str; 4] = ["what", "aimed at", "measured", "met"];

/// By how much a cost may grow where the work per entry is the same.
const FLAT: f64 = 1.2;
/// A latency may be so many times the bare loop's, or so many µs more.
const LATENCY: (f64, f64) = (1.2, 100.0);

/// A line for each.
pub fn rows(data: &Data) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    let mut add = |what: String, wanted: &str, measured: String, met: bool| {
        let met = if met { "yes" } else { "**no**" };
        rows.push([what, wanted.to_owned(), measured, met.to_owned()]);
    };
    if let Some(t) = &data.throughput {
        let (ratio, redis, client) = (t.throughput_ratio, t.redis_cpu_ratio, t.client_cpu_ratio);
        add(
            "throughput, of the bare loop's".into(),
            "2.0 or more",
            format!("{ratio:.2}"),
            ratio >= 2.0,
        );
        add(
            "Redis CPU a message, of the bare loop's".into(),
            "1.1 or less",
            format!("{redis:.2}"),
            redis <= 1.1,
        );
        add(
            "client CPU a message, of the bare loop's".into(),
            "0.8 or less",
            format!("{client:.2}"),
            client <= 0.8,
        );
        let busy = format!("{:.0} %", t.redis_busy * 100.0);
        add(
            "Redis busy under it".into(),
            "90 % or more",
            busy,
            t.redis_busy >= 0.9,
        );
    }
    if let Some(watched) = &data.watched {
        let (what, ratio) = (
            "throughput watched by pulse and scrapes, of that unwatched".to_owned(),
            watched.scraped_ratio,
        );
        add(what, "0.95 or more", format!("{ratio:.2}"), ratio >= 0.95);
    }
    if let Some(fastest) = data.peers.as_ref().and_then(|peers| peers.fastest())
        && let Some(of_streamhand) = fastest.of_streamhand
    {
        let times = 1.0 / of_streamhand;
        let what = format!("throughput, of the fastest peer's ({})", fastest.name);
        add(what, "2.0 or more", format!("{times:.2}"), times >= 2.0);
    }
    for rate in data.latency.iter().flat_map(|latency| &latency.rates) {
        let per_second = thousands(rate.per_second as f64);
        for (name, (ratio, more)) in percentiles(rate) {
            let what = format!("{name} at {per_second} a second, of the bare loop's");
            add(
                what,
                "1.2 or less, or 100 µs more",
                compared(ratio, more),
                is_near(ratio, more),
            );
        }
    }
    if let Some(load) = &data.load {
        let (per_second, ratio) = (thousands(load.per_second as f64), load.redis_cpu_ratio);
        let what =
            format!("Redis CPU at {per_second} a second, of reading and acknowledging one by one");
        add(what, "0.5 or less", format!("{ratio:.2}"), ratio <= 0.5);
        let (ratio, more) = (load.p99_ratio, load.p99_more_us);
        let what = "p99 with it, of the bare loop's".to_owned();
        add(
            what,
            "1.2 or less, or 100 µs more",
            compared(ratio, more),
            is_near(ratio, more),
        );
    }
    for series in data.scale.iter().flat_map(|scale| &scale.series) {
        if series.same_work {
            let (redis, commands) = growth(series);
            let measured = format!("{redis:.2} and {commands:.2}");
            let what = format!("Redis CPU and commands a message, {}", series.name);
            add(
                what,
                "grow to 1.2 or less",
                measured,
                redis <= FLAT && commands <= FLAT,
            );
        } else if series.name == "payload" {
            let worst = worst(series.cases.iter().filter_map(|case| case.redis_to_bare));
            let what = "Redis CPU a message at any size of payload, of the bare loop's".to_owned();
            add(what, "1.2 or less", format!("{worst:.2}"), worst <= FLAT);
        }
    }
    if let Some(scale) = &data.scale {
        memory(scale, &mut add);
    }
    if let Some(publish) = &data.publish {
        for (what, ratio) in [
            (
                "publish_many, of XADD in pipelines",
                publish.publish_many_ratio,
            ),
            (
                "publish from NDJSON, of XADD in pipelines",
                publish.ndjson_ratio,
            ),
        ] {
            add(
                what.to_owned(),
                "0.8 or more",
                format!("{ratio:.2}"),
                ratio >= 0.8,
            );
        }
    }
    if let Some(store) = &data.eventstore {
        if let Some(append) = store.append.iter().find(|append| append.at_once == 1) {
            let what = "append, of a bare EVALSHA with one XADD, one after the other".to_owned();
            let met = append.ratio >= 0.8;
            add(what, "0.8 or more", format!("{:.2}", append.ratio), met);
        }
        let (events, ratio) = (thousands(store.events as f64), store.load.ratio);
        let what = format!("load of {events} events, of a bare XRANGE decoded");
        add(what, "0.7 or more", format!("{ratio:.2}"), ratio >= 0.7);
    }
    rows
}

fn memory(scale: &Scale, add: &mut impl FnMut(String, &str, String, bool)) {
    let backlog = scale.series.iter().find(|series| series.name == "backlog");
    if let Some(backlog) = backlog {
        let grown = worst(backlog.cases.iter().filter_map(|case| case.memory_growth));
        let largest = backlog.cases.last().map_or("", |case| &case.name);
        let what = format!("memory with a backlog of {largest}, of that with the shortest");
        if grown > 0.0 {
            add(what, "1.2 or less", format!("{grown:.2}"), grown <= FLAT);
        }
    }
    if let Some(mb) = scale.idle.first().and_then(|idle| idle.memory_mb) {
        add(
            "memory of an idle worker".to_owned(),
            "15 MiB or less",
            format!("{mb:.1} MiB"),
            mb <= 15.0,
        );
    }
}

fn percentiles(rate: &Rate) -> [(&'static str, (f64, f64)); 2] {
    [
        ("p50", (rate.p50_ratio, rate.p50_more_us)),
        ("p99", (rate.p99_ratio, rate.p99_more_us)),
    ]
}

pub fn compared(ratio: f64, more_us: f64) -> String {
    format!("{ratio:.2}, {more_us:+.0} µs")
}

fn is_near(ratio: f64, more_us: f64) -> bool {
    ratio <= LATENCY.0 || more_us <= LATENCY.1
}

/// The most that Redis CPU and commands grow to in a series; cases that do other work than the first are left out.
fn growth(series: &Series) -> (f64, f64) {
    let same = || {
        series
            .cases
            .iter()
            .filter(|case| !case.name.contains("lease over"))
    };
    (
        worst(same().map(|case| case.redis_growth)),
        worst(same().map(|case| case.commands_growth)),
    )
}

fn worst(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_near_by_its_ratio_or_by_its_difference() {
        assert!(is_near(1.2, 5_000.0));
        assert!(is_near(3.0, 99.0));
        assert!(!is_near(1.3, 101.0));
    }

    #[test]
    fn a_series_is_as_flat_as_its_worst_case_that_does_the_same_work() {
        let text = |name: &str, redis: f64, commands: f64| {
            format!(
                r#"{{"name":"{name}","value":1,"redis_growth":{redis},"commands_growth":{commands},
                "figures":{{"per_second":1,"redis_us":1,"client_us":1,"commands":1}}}}"#
            )
        };
        let cases = [
            text("0", 1.0, 1.0),
            text("9", 1.1, 1.3),
            text("9, lease over", 5.0, 5.0),
        ];
        let series = format!(
            r#"{{"name":"dead","about":"","same_work":true,"cases":[{}]}}"#,
            cases.join(",")
        );
        let series: Series = serde_json::from_str(&series).unwrap();
        assert_eq!(growth(&series), (1.1, 1.3));
    }
}
