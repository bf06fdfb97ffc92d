//! Two clerks who decide about one order at once: what the event store makes of it.

use std::time::{Duration, Instant};

use streamhand::cli::{CommandError, print};
use streamhand::{Publisher, Settings};
use tokio::time::sleep;

use super::program::Program;
use crate::counts;
use crate::orders::{OrderError, Orders};

const ORDER: &str = "o-two-clerks";
/// A worker that has just died has its projection for a lease.
const PATIENCE: Duration = Duration::from_secs(30);

/// One clerk ships an order while another cancels it: the second to be stored finds out, and decides anew.
pub async fn decide_at_once(settings: &Settings, program: &Program) -> Result<(), CommandError> {
    print(
        "\nTwo clerks decide about one order at once. It is an aggregate: its events are what it is.",
    )?;
    program
        .show(&[
            "order", "create", ORDER, "--amount", "1250", "--item", "pot=1",
        ])
        .await?;
    print("\nOne of them has it shipped. While that is decided, the other one cancels it:")?;
    let orders = Orders::new(Publisher::new(&settings.redis)?)?;
    let mut decisions = Vec::new();
    let shipped = orders.update(ORDER, |order| {
        let decision = order.ship(ORDER);
        decisions.push(match &decision {
            Ok(_) => format!("as it was {:?}: ship it", order.status),
            Err(reason) => format!("as it was {:?}: {reason}", order.status),
        });
        if decisions.len() == 1 {
            let other =
                tokio::task::block_in_place(|| program.show_now(&["order", "cancel", ORDER]));
            decisions.extend(other.err().map(|error| error.to_string()));
        }
        decision
    });
    match shipped.await {
        Err(OrderError::Refused(_)) if decisions.len() == 2 => {}
        other => {
            let other = other.map(|loaded| loaded.version());
            return Err(CommandError::failed(format!(
                "a conflict was expected, and there came {other:?} of {decisions:?}"
            )));
        }
    }
    print(format_args!(
        "\n  the first decision, {}\n  … could not be stored: {ORDER} was no longer at version 1\n  the second decision, {}",
        decisions[0], decisions[1]
    ))?;
    program
        .show(&["aggregate", "history", &format!("order:{ORDER}")])
        .await?;
    program
        .show(&["aggregate", "show", &format!("order:{ORDER}")])
        .await?;
    counted(settings).await?;
    print("\nA projection, which the workers run, counts orders by their events:")?;
    program.show(&["order", "counts"]).await
}

/// Waits until the projection has seen that the order was cancelled.
async fn counted(settings: &Settings) -> Result<(), CommandError> {
    let begin = Instant::now();
    while counts::read(settings).await?.get("cancelled") != Some(&1) {
        if begin.elapsed() > PATIENCE {
            let message = format!("the projection has not counted the order in {PATIENCE:?}");
            return Err(CommandError::failed(message));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
