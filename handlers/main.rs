//! The program `shop`: every command of streamhand, with the handlers of a small shop and two commands of its own. A crate
//! of yours looks like this one.

#![forbid(unsafe_code)]

mod counts;
mod demo;
mod events;
mod inventory;
mod order;
mod orders;
mod parcels;

fn main() -> std::process::ExitCode {
    let registry = parcels::registry().unwrap_or_else(|| {
        inventory::registry()
            .aggregate::<order::Order>()
            .projection(counts::OrdersByStatus)
    });
    streamhand::program!(registry)
        .about("A small shop: orders, and the stock that is reserved for them")
        .command(orders::command())
        .command(demo::command())
        .main()
}
