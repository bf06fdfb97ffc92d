//! One measurement: a backlog is published, the peer works it off, and the clock stops when nothing is pending.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::order::Order;
use crate::peers::{Bench, Peer};
use crate::report::Figures;
use crate::server::Version;
use crate::tally::TALLY;

/// How long a peer may make no progress at all before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(30);

/// Why a peer cannot be measured on this server, where it cannot.
pub fn unfit<P: Peer>(version: &Version) -> Option<String> {
    let (major, minor) = P::REDIS?;
    (!version.is_redis_since(major, minor))
        .then(|| format!("it wants Redis {major}.{minor}, the server is {version}"))
}

pub async fn run<P: Peer>(bench: Bench) -> Result<Figures> {
    let mut conn = bench.connect().await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut conn).await?;
    if keys > 0 {
        return Err("the database is not empty; a measurement deletes what is in it, so it takes an empty one".into());
    }
    let measured = in_empty_database::<P>(&bench, &mut conn).await;
    let emptied: redis::RedisResult<()> = redis::cmd("FLUSHDB")
        .arg("SYNC")
        .query_async(&mut conn)
        .await;
    let figures = measured?;
    emptied?;
    Ok(figures)
}

async fn in_empty_database<P: Peer>(
    bench: &Bench,
    conn: &mut MultiplexedConnection,
) -> Result<Figures> {
    P::publish(bench).await?;
    TALLY.expect(bench.events);

    let stop = CancellationToken::new();
    let (redis, client, begun) = (redis_cpu(conn).await?, client_cpu(), Instant::now());
    let mut work = tokio::spawn(P::work(bench.clone(), stop.clone()));
    tokio::select! {
        settled = settled::<P>(bench, conn) => settled?,
        ended = &mut work => {
            ended??;
            return Err("it ended before it was told to".into());
        }
    }
    let (wall, client) = (begun.elapsed(), client_cpu() - client);
    let redis = redis_cpu(conn).await? - redis;

    stop.cancel();
    let stopped = tokio::time::timeout(STOP, work).await;
    stopped.map_err(|_| format!("it did not stop within {STOP:?}"))???;
    verify::<P>(bench, conn).await?;
    Ok(Figures::new(bench.events, wall, redis, client))
}

/// Ends when every event has been handled and none is left to acknowledge.
async fn settled<P: Peer>(bench: &Bench, conn: &mut MultiplexedConnection) -> Result<()> {
    let mut last = (0, Instant::now());
    loop {
        if tokio::time::timeout(Duration::from_secs(1), TALLY.all())
            .await
            .is_ok()
        {
            break;
        }
        let handled = TALLY.handled();
        if handled > last.0 {
            last = (handled, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            return Err(format!("stuck: {handled} of {} events handled", bench.events).into());
        }
    }
    let handled = Instant::now();
    loop {
        let pending = P::pending(bench, conn).await?;
        if pending == 0 {
            return Ok(());
        }
        if handled.elapsed() > PATIENCE {
            return Err(format!("{pending} events handled and never acknowledged").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn verify<P: Peer>(bench: &Bench, conn: &mut MultiplexedConnection) -> Result<()> {
    let (handled, pending) = (TALLY.handled(), P::pending(bench, conn).await?);
    if handled != bench.events {
        return Err(format!("{handled} calls of the handler for {} events", bench.events).into());
    }
    if P::HANDLES && TALLY.amount() != Order::total(bench.events) {
        return Err("the handled events are not those that were published".into());
    }
    if pending > 0 {
        return Err(format!("{pending} events pending after the end").into());
    }
    Ok(())
}

/// Redis' CPU time as Redis counts it, all its threads together.
async fn redis_cpu(conn: &mut MultiplexedConnection) -> Result<Duration> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(conn).await?;
    let seconds = |name: &str| -> Result<f64> {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line
            .ok_or("INFO does not tell the CPU time")?
            .trim()
            .parse()?)
    };
    Ok(Duration::from_secs_f64(
        seconds("used_cpu_user")? + seconds("used_cpu_sys")?,
    ))
}

/// This process's CPU time as the system counts it.
fn client_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
