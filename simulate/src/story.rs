//! What a fleet goes through: rest, load, a node's death, and a restart of all workers at once.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::{Counted, Fleet, Simulation};

/// What came of it.
#[derive(Debug)]
pub struct Story {
    fleet: Fleet,
    a_second: f64,
    /// Partitions that a worker reads, and workers that read a partition: the fewest and the most, at rest.
    pub read_by_each: (usize, usize),
    /// The same the other way round.
    pub readers: (usize, usize),
    /// Connections to the node that has most, at rest.
    pub connections: usize,
    /// What was asked, chapter by chapter.
    pub chapters: Vec<Chapter>,
}

/// A part of it.
#[derive(Debug)]
pub struct Chapter {
    /// What goes on.
    pub name: &'static str,
    /// What was asked.
    pub counted: Counted,
    /// How long an event waited at most until somebody read it.
    pub delay: Duration,
    /// How long it took until every partition was read again.
    pub recovered: Option<Duration>,
}

const SECOND: Duration = Duration::from_secs(1);

/// Tells it, with `a_second` events a second.
pub fn tell(fleet: &Fleet, a_second: f64) -> Story {
    let mut it = Simulation::new(fleet.clone());
    let mut chapters = Vec::new();
    it.start(30 * SECOND);
    it.run(180 * SECOND);
    let (read_by_each, readers, connections) = (it.read_by_each(), it.readers(), it.connections());
    let mut chapter = |it: &mut Simulation, name, lasts, recovered| {
        let counted = it.run(lasts);
        chapters.push(Chapter {
            name,
            counted,
            delay: it.longest_delay(),
            recovered,
        });
    };
    chapter(&mut it, "idle", 30 * SECOND, None);
    it.publish(a_second);
    it.run(5 * SECOND);
    it.longest_delay();
    chapter(&mut it, "steady load", 20 * SECOND, None);
    it.kill_node(fleet.nodes - 1);
    let recovered = it.until(30 * SECOND, Simulation::all_are_read);
    chapter(&mut it, "a node dies", 15 * SECOND, recovered);
    it.run(60 * SECOND);
    it.longest_delay();
    it.restart(SECOND);
    // What was a dead worker's whose events have an order is taken when its lease has lapsed, and no sooner.
    let recovered = it.until(fleet.lease + 30 * SECOND, Simulation::all_are_read);
    chapter(&mut it, "all restart", 15 * SECOND, recovered);
    Story {
        fleet: fleet.clone(),
        a_second,
        read_by_each,
        readers,
        connections,
        chapters,
    }
}

impl Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fleet {
            workers,
            partitions,
            nodes,
            ..
        } = &self.fleet;
        writeln!(
            f,
            "{workers} workers, {} partitions, {nodes} nodes, {} events a second",
            partitions.len(),
            self.a_second
        )?;
        let ((a, b), (c, d)) = (self.read_by_each, self.readers);
        writeln!(
            f,
            "a worker reads {a} to {b} partitions, a partition has {c} to {d} readers, a node has up to {} connections",
            self.connections
        )?;
        writeln!(
            f,
            "\n{:<12} {:>12} {:>12} {:>14} {:>10} {:>10}",
            "", "a node/s", "busiest/s", "worst 0.1 s/s", "all read", "longest"
        )?;
        for chapter in &self.chapters {
            let counted = &chapter.counted;
            let busiest = counted.rates().into_iter().fold(0.0, f64::max);
            let recovered = chapter.recovered.map_or("-".to_owned(), shown);
            writeln!(
                f,
                "{:<12} {:>12.0} {:>12.0} {:>14.0} {:>10} {:>10}",
                chapter.name,
                counted.mean(),
                busiest,
                counted.peak(),
                recovered,
                shown(chapter.delay)
            )?;
        }
        writeln!(f)?;
        for chapter in &self.chapters {
            let by_request = chapter.counted.by_request();
            let nodes = *nodes as f64;
            let each = by_request.iter().take(6).map(|(request, rate)| {
                let name = format!("{request:?}").to_lowercase();
                format!("{name} {:.1}", rate / nodes)
            });
            let each = each.collect::<Vec<_>>().join(", ");
            writeln!(f, "{:<12} {each}", chapter.name)?;
        }
        Ok(())
    }
}

fn shown(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
