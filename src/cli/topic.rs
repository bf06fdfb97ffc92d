//! `topic`: how many partitions a topic has, and growing it.

use clap::{Args, Subcommand};

use super::CommandError;
use super::terminal::{print, print_json};

use crate::admin::{Admin, TopicGrowth};
use crate::config::Settings;

#[derive(Subcommand)]
pub(super) enum TopicCommand {
    /// Spread a topic over more partitions; the order of each subject is kept
    Grow(GrowArgs),
    /// Show how many partitions a topic has and had, and which groups are how far
    Show(ShowArgs),
}

#[derive(Args)]
pub(super) struct GrowArgs {
    /// The topic
    topic: String,
    /// How many partitions it is to have
    #[arg(long, value_name = "N")]
    to: u32,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// The topic
    topic: String,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: TopicCommand, settings: Settings) -> Result<(), CommandError> {
    let admin = Admin::new(&settings)?;
    let (growth, json) = match command {
        TopicCommand::Grow(args) => (admin.grow(&args.topic, args.to).await?, args.json),
        TopicCommand::Show(args) => (admin.growth(&args.topic).await?, args.json),
    };
    if json {
        return print_json(&growth);
    }
    print(lines(&growth).join("\n"))
}

fn lines(growth: &TopicGrowth) -> Vec<String> {
    let has = growth.generations.last().copied().unwrap_or_default();
    let mut lines = vec![format!("{}: {has} partitions", growth.topic)];
    let newest = growth.generations.len() as u32;
    for (generation, partitions) in (1..newest).zip(&growth.generations) {
        let through = match growth.through.get(&generation) {
            Some(groups) => format!("settled by {}", groups.join(", ")),
            None => "no group has settled it yet".to_owned(),
        };
        lines.push(format!(
            "  generation {generation}: {partitions} partitions, sealed; {through}"
        ));
    }
    if let Some(to) = growth.growing_to {
        lines.push(format!(
            "  it is being grown to {to}, which was not finished: the same `topic grow` again finishes it"
        ));
    }
    lines
}
