//! The story, step by step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use streamhand::Settings;
use streamhand::cli::{CommandError, PrivateServer, print};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::books::{Books, Position};
use super::clerks;
use super::figures::Figures;
use super::fleet::{Fleet, Said};
use super::orders::{self, BROKEN, MENDED, Orders, UNKNOWN};
use super::program::Program;
use super::stage::Stage;

/// Units of what is mended.
const MENDED_UNITS: u64 = 100_000;
/// After so long without any change something is wrong.
const STALLED: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

pub struct Show {
    events: u64,
    stage: Stage,
    settings: Settings,
    program: Program,
    fleet: Fleet,
    books: Books,
    /// Until all is published.
    publishing: Option<JoinHandle<Result<(), CommandError>>>,
    /// The units of each sku there have been; of those alone of which that is known.
    stock: BTreeMap<&'static str, u64>,
}

impl Show {
    pub async fn set_up(server: &PrivateServer, events: u64) -> Result<Self, CommandError> {
        let config = config(&server.url());
        let settings = Settings::from_toml_str(&config)?;
        let books = Books::new(&settings)?;
        let program = Program::new(server, &config)?;
        books.stock_up(events).await?;
        let mut stage = Stage::new();
        stage.say(format_args!(
            "a server of the demo's own runs in {}",
            server.dir().display()
        ));
        Ok(Show {
            events,
            stage,
            fleet: Fleet::new(program.clone()),
            program,
            settings,
            books,
            publishing: None,
            stock: orders::stock(events)
                .into_iter()
                .filter_map(|(sku, units)| Some((sku, units?)))
                .collect(),
        })
    }

    pub async fn start_workers(&mut self) -> Result<(), CommandError> {
        for _ in 0..3 {
            self.fleet.start()?;
        }
        let begin = Instant::now();
        while self.books.waiting().await? < 3 {
            self.fleet.listen()?;
            check_patience(begin, "the workers to start")?;
            sleep(TICK).await;
        }
        self.stage
            .say("three workers run, each a process: `shop run`");
        Ok(())
    }

    /// The events come in, and what can go wrong does.
    pub async fn take_orders(&mut self) -> Result<(), CommandError> {
        let orders = Orders::write(self.program.dir(), self.events)
            .map_err(|error| CommandError::failed(format!("can't write the orders: {error}")))?;
        self.publishing = Some(tokio::spawn(orders.publish(self.program.clone())));
        self.stage.say(format_args!(
            "{} events come in: `shop publish orders --envelopes --file orders-0.ndjson` …",
            self.events
        ));

        self.until("an order to fail twice", |_, said| {
            said.second_attempts_fail()
        })
        .await?;
        self.mend_stock(&[MENDED]).await?;
        self.stage.say(format_args!(
            "the stock of {MENDED:?} says \"n/a\": its orders fail and are retried; mended now"
        ));

        let (third, half) = (self.events * 3 / 10, self.events / 2);
        self.until("a third to be settled", |position, _| {
            position.settled() >= third
        })
        .await?;
        let killed = self.kill(2).await?;
        self.until("half of them to be settled", |position, _| {
            position.settled() >= half
        })
        .await?;
        self.stop(3).await?;

        self.until("what worker 2 held to be taken over", |_, said| {
            said.reclaimed > 0
        })
        .await?;
        let after = killed.elapsed().as_secs_f64();
        self.stage.say(format_args!(
            "the others take over what worker 2 held, {after:.1} s after its end"
        ));

        let events = self.events;
        self.until("all events to be published", |position, _| {
            position.published >= events
        })
        .await?;
        self.stage.say("all of them are published");
        self.until("every event to be settled", |position, _| {
            position.is_settled()
        })
        .await?;
        self.stage.say("every one of them is settled");
        self.stage.clear();
        self.check_empty().await
    }

    /// What can be repaired is repaired, and the dead letters are replayed.
    pub async fn repair_and_replay(&mut self) -> Result<(), CommandError> {
        self.program.show(&["dlq", "stats"]).await?;
        self.program.show(&["dlq", "list", "--limit", "5"]).await?;
        self.mend_stock(&[UNKNOWN, BROKEN]).await?;
        print(format_args!(
            "\nThe shop now knows {UNKNOWN:?}, and the stock of {BROKEN:?} is a number."
        ))?;
        self.program
            .show(&["dlq", "replay", "--all", "--yes"])
            .await?;
        self.until("what was replayed to be settled", |position, _| {
            position.is_settled()
        })
        .await?;
        self.stage.clear();
        self.program.show(&["status"]).await?;
        self.check_empty().await
    }

    /// Counts what became of every event. Fails where one is lost.
    pub async fn figures(&mut self, title: &str) -> Result<Figures, CommandError> {
        let figures = Figures::count(&self.books, &self.stock, self.fleet.listen()?).await?;
        print(format_args!("\n{title}:\n\n{figures}"))?;
        figures.check(self.events)?;
        Ok(figures)
    }

    /// What two do at once to one aggregate, and what the workers make of its events.
    pub async fn two_clerks(&mut self) -> Result<(), CommandError> {
        clerks::decide_at_once(&self.settings, &self.program).await?;
        self.until("the order's events to be settled", |position, _| {
            position.is_settled()
        })
        .await?;
        self.stage.clear();
        self.check_empty().await
    }

    pub async fn end(&mut self) -> Result<(), CommandError> {
        self.fleet.disband().await?;
        print(
            "\nNothing was handled more than once, whatever was killed: what a handler does to the stock, and what it\n\
             answers, leaves in one step with the acknowledgement.",
        )?;
        print(
            "\nWhat is still dead is malformed, or of a type that nobody handles: no repair of the stock helps.\n\
             An operator would keep a copy and delete it: shop dlq purge --all --export letters.ndjson",
        )
    }

    /// A worker is killed that holds events, and another takes its place. Answers when it died.
    async fn kill(&mut self, number: usize) -> Result<Instant, CommandError> {
        let pid = self.fleet.pid(number);
        loop {
            self.until_busy(number).await?;
            // Frozen first: what it has sent by then is done when the second question is answered, and what it still
            // holds it can't get rid of before it dies.
            self.fleet.freeze(number)?;
            self.books.held_by(pid).await?;
            if self.books.held_by(pid).await? > 0 {
                break;
            }
            self.fleet.thaw(number)?;
        }
        self.fleet.kill(number).await?;
        let died = Instant::now();
        let held = self.books.held_by(pid).await?;
        let next = self.fleet.start()?;
        self.stage.say(format_args!(
            "SIGKILL for worker {number}, which holds {held} events; worker {next} replaces it"
        ));
        Ok(died)
    }

    /// A worker is told to stop while it works, and another takes its place.
    async fn stop(&mut self, number: usize) -> Result<(), CommandError> {
        self.until_busy(number).await?;
        let (pid, begin) = (self.fleet.pid(number), Instant::now());
        let status = self.fleet.stop(number).await?;
        let took = begin.elapsed().as_millis();
        let held = self.books.held_by(pid).await?;
        let next = self.fleet.start()?;
        self.stage.say(format_args!(
            "SIGTERM for worker {number}: gone in {took} ms, holding {held} events; worker {next} replaces it"
        ));
        if status.success() && held == 0 {
            return Ok(());
        }
        Err(CommandError::failed(format!(
            "worker {number} did not stop well: {status}, holding {held} events"
        )))
    }

    /// Waits until a worker holds much; after a while, until it holds anything.
    async fn until_busy(&mut self, number: usize) -> Result<(), CommandError> {
        let pid = self.fleet.pid(number);
        let (mut much, mut looks) = (self.events / 100, 0);
        while self.books.held_by(pid).await? < much {
            if self.publishing.is_none() && self.books.position().await?.is_settled() {
                let more = self.events * 4;
                return Err(CommandError::failed(format!(
                    "worker {number} was never met at work, so fast is this machine: try --events {more}"
                )));
            }
            looks += 1;
            if looks % 20 == 0 {
                self.look().await?;
                much = (much * 9 / 10).max(1);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn mend_stock(&mut self, skus: &[&'static str]) -> Result<(), CommandError> {
        self.stock
            .extend(skus.iter().map(|sku| (*sku, MENDED_UNITS)));
        self.books.mend_stock(skus, MENDED_UNITS).await
    }

    /// Waits for something, and shows how far it is meanwhile.
    async fn until(
        &mut self,
        what: &str,
        done: impl Fn(&Position, &Said) -> bool,
    ) -> Result<(), CommandError> {
        let (mut last, mut changed) = (Position::default(), Instant::now());
        loop {
            let position = self.look().await?;
            if done(&position, self.fleet.listen()?) {
                return Ok(());
            }
            if position != last {
                (last, changed) = (position, Instant::now());
            }
            check_patience(changed, what)?;
            sleep(TICK).await;
        }
    }

    /// Looks how far it is, and shows it. Fails where a worker has ended by itself, or where publishing has failed.
    async fn look(&mut self) -> Result<Position, CommandError> {
        if let Some(publishing) = self
            .publishing
            .take_if(|publishing| publishing.is_finished())
        {
            publishing
                .await
                .map_err(|error| CommandError::failed(error.to_string()))??;
        }
        let position = self.books.position().await?;
        let said = self.fleet.listen()?;
        let (retried, reclaimed, dead) = (said.retried(), said.reclaimed, position.dead);
        let besides = format!("{retried} retried, {reclaimed} reclaimed, {dead} dead");
        self.stage
            .progress(position.settled(), self.events, besides);
        Ok(position)
    }

    /// Asks the program itself whether there is anything left to do for the group.
    async fn check_empty(&self) -> Result<(), CommandError> {
        let status = self.program.json(&["status", "--json"]).await?;
        let stream = &status["streams"][0];
        let left = [
            &stream["group"]["lag"],
            &stream["group"]["pending"],
            &stream["parked"],
            &stream["replayed"],
        ];
        if left.iter().all(|left| left.as_u64() == Some(0)) {
            return Ok(());
        }
        Err(CommandError::failed(format!(
            "the group is not empty: {status}"
        )))
    }
}

/// The demo's workers are quicker to give up than any in earnest.
fn config(url: &str) -> String {
    format!(
        r#"[redis]
url = "{url}"

[worker]
group = "fulfilment"
streams = ["orders"]
lease = "2s"
unhandled_after = "2s"

[retry]
max_attempts = 4
backoff = {{ initial = "500ms", factor = 2.0 }}
"#
    )
}

fn check_patience(since: Instant, what: &str) -> Result<(), CommandError> {
    if since.elapsed() < STALLED {
        return Ok(());
    }
    Err(CommandError::failed(format!(
        "nothing has moved for {STALLED:?} while waiting for {what}"
    )))
}
