//! `make simulate`: prints what a fleet asks of each node of a cluster.

#![forbid(unsafe_code)]

use std::time::Duration;

use clap::Parser;
use simulate::Fleet;

/// What a fleet of workers asks of each node of a cluster: at rest, under load, when a node dies, when all restart.
#[derive(Parser)]
struct Args {
    /// How many workers
    #[arg(long, default_value_t = 1000)]
    workers: usize,
    /// How many partitions their topic has
    #[arg(long, default_value_t = 1000)]
    partitions: usize,
    /// How many masters the cluster has
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// How many events are published a second
    #[arg(long, default_value_t = 5000.0)]
    events: f64,
    /// worker.lease, in seconds
    #[arg(long, default_value_t = 30)]
    lease: u64,
    /// Every worker reads every partition, as if there were no duties
    #[arg(long)]
    all_read_all: bool,
    /// The topic has `order = "subject"`
    #[arg(long)]
    ordered: bool,
    /// What chance goes by
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

fn main() {
    let args = Args::parse();
    let fleet = Fleet {
        lease: Duration::from_secs(args.lease),
        all_read_all: args.all_read_all,
        ordered: args.ordered,
        seed: args.seed,
        ..Fleet::new(args.workers, args.partitions, args.nodes)
    };
    print!("{}", simulate::story::tell(&fleet, args.events));
}
