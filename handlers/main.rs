//! The program: every command of streamhand, with the shop's handlers.

use streamhand::{Context, Event, Failure, Registry};

#[derive(serde::Serialize, serde::Deserialize)]
struct OrderCreated {
    order_id: String,
}
impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";
}

async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    tracing::debug!(order = order.order_id, attempt = ctx.attempt());
    if order.order_id.starts_with("bad") {
        return Err("bad order".into());
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    streamhand::cli::run(Registry::new().on(reserve))
}
