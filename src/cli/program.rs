//! The clap tree and what hangs on it: this library's commands, and those a user's crate adds.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::config::ConfigCommand;
use super::globals::Globals;
use super::run::{CommandFuture, Hooks};
use super::terminal::{closed, say};
use super::{
    CommandError, aggregate, alerts, cancel, completions, config, conformance, cron, dlq, doctor,
    entry, exporter, find, health, limit, logging, pause, projection, publish, run, scheduled,
    server, status, stderr, top, topic, web, worker,
};
use crate::admin::topics::grown;
use crate::called;
use crate::config::Settings;
use crate::handler::Registry;
use crate::targets;
use crate::worker::{Observer, Summary};

/// A program: the commands of this library with your handlers, and your own commands beside them.
#[must_use]
pub struct Program {
    name: &'static str,
    version: Option<&'static str>,
    about: Option<&'static str>,
    /// None where there are no handlers, and so nothing to run.
    registry: Option<RegistryMaker>,
    commands: Vec<Command>,
    /// Keys of `[app]` whose values are no secrets.
    app_shown: Vec<&'static str>,
    hooks: Hooks,
}

/// A command of your own.
#[must_use]
pub struct Command {
    clap: clap::Command,
    run: RunCommand,
}

enum RunCommand {
    WithSettings(Box<dyn FnOnce(Settings, clap::ArgMatches) -> CommandFuture>),
    WithRegistry(Box<dyn FnOnce(Settings, Registry, clap::ArgMatches) -> CommandFuture>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("name", &self.clap.get_name())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("commands", &self.commands)
            .field("app_shown", &self.app_shown)
            .finish_non_exhaustive()
    }
}

type RegistryFuture = Pin<Box<dyn Future<Output = Result<Registry, CommandError>> + Send>>;
type RegistryMaker = Box<dyn FnOnce(Settings) -> RegistryFuture + Send>;

#[derive(Parser)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Settings come from config.toml, from the environment (STREAMHAND_WORKER__LEASE=10s is worker.lease) and
from options, the later ones winning. The log goes to standard error: STREAMHAND_LOG=debug tells more,
STREAMHAND_LOG_FORMAT=json is for a collector. Exit codes: 0 done, 1 failed, 2 wrong use or configuration.")]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Builtin,
}

const FIND_HELP: &str = "\
Words that stand side by side must all be met:
  o-1                     an event's or entry's id, its subject, type, source, or the id of its cause
  subject:o-1             a field of the event, id:, type:, tenant: and the like; error:, reason: of a dead letter
  data.items.sku:a-7      a value in its data, in any item of the lists on the way
  data.amount:>100        numbers compared by > >= < <=
  type:order.* \"a b\"     any text in place of *, spaces between quotation marks";

#[derive(Subcommand)]
enum Builtin {
    /// Work: read entries, hand them to handlers, settle them, until SIGTERM, SIGINT or SIGHUP
    Run(run::RunArgs),
    /// Publish an event, or many
    Publish(publish::PublishArgs),
    /// List events that are to be published later, or cancel them
    #[command(subcommand)]
    Scheduled(scheduled::ScheduledCommand),
    /// Cancel an event wherever it stands: scheduled, unread, parked, or with a worker, whose handler is told
    Cancel(cancel::CancelArgs),
    /// List what happens again and again, look ahead, pause it, run it by hand
    #[command(subcommand)]
    Cron(cron::CronCommand),
    /// Find events by what is in them: in streams, dead letters, what was replayed, what is scheduled
    #[command(after_help = FIND_HELP)]
    Find(find::FindArgs),
    /// Show the life of one entry: where it stands, its attempts, what caused it and what it has caused
    Entry(entry::EntryArgs),
    /// Look through dead letters, replay or delete them
    Dlq(dlq::DlqArgs),
    /// Show aggregates and their history, append to them, verify them
    Aggregate(aggregate::AggregateArgs),
    /// Show how far the group is, what waits, and who works
    Status(status::StatusArgs),
    /// Serve the pages to watch and operate a group by
    Web(web::WebArgs),
    /// Tell what is wrong with the group: look once, watch, or print the rules for Prometheus and Grafana
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    /// Show how Redis itself is: its memory, what it does when that is full, what it keeps, what was slow
    Redis(server::ServerArgs),
    /// Look for what will go wrong, or does: the server, its settings and rights, the group, its workers
    Doctor(doctor::DoctorArgs),
    /// Hold what publishers wrote, in any language, against what workers read
    Conformance(conformance::ConformanceArgs),
    /// Stop handling a stream, or one type of its events, in the whole group until it is resumed
    Pause(pause::NewPauseArgs),
    /// Limit how often a handler starts, or how many of it run, in the whole group, until it is cleared
    Limit(limit::LimitArgs),
    /// Go on with what was paused
    Resume(pause::PauseArgs),
    /// Show how many partitions a topic has, or spread it over more
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Watch the group work: streams, types, workers, and what is wrong, in the terminal
    Top(top::TopArgs),
    /// List workers and what they run; quiet or stop them, have them log more, or run more at once
    Worker(worker::WorkerArgs),
    /// List projections, or build one's view anew
    #[command(subcommand)]
    Projection(projection::ProjectionCommand),
    /// Serve the group's gauges, to Prometheus and to scalers
    Exporter(exporter::ExporterArgs),
    /// Say whether the workers of this machine live, for a probe
    Health(health::HealthArgs),
    /// Check the configuration, or show what is in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
}

impl Program {
    /// A program with these handlers.
    ///
    /// It is called like its file, and has no version: [`program!`](crate::program) gives it those of your crate.
    pub fn new(registry: Registry) -> Self {
        Self::made_by(Some(Box::new(|_| Box::pin(async { Ok(registry) }))))
    }

    fn made_by(registry: Option<RegistryMaker>) -> Self {
        Program {
            name: own_name(),
            version: None,
            about: None,
            registry,
            commands: Vec::new(),
            app_shown: Vec::new(),
            hooks: Hooks::default(),
        }
    }

    /// The same program with a name. It is also that of its group, where no other is set.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The same program with a version, for `-V`.
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    /// The same program with a description, for `--help`. An empty one is none.
    pub fn about(mut self, about: &'static str) -> Self {
        self.about = Some(about).filter(|about| !about.is_empty());
        self
    }

    /// A program whose registry is made when a command needs it, from the configuration.
    pub fn with<F, Fut, E>(registry: F) -> Self
    where
        F: FnOnce(Settings) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Registry, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let make = |settings| -> RegistryFuture {
            let made = registry(settings);
            Box::pin(async move {
                made.await.map_err(|error| {
                    let error = error.into();
                    CommandError::failed(format!(
                        "the handlers can't be set up: {}",
                        crate::error::chain(&*error)
                    ))
                })
            })
        };
        Self::made_by(Some(Box::new(make)))
    }

    /// A program without handlers: it operates what others run, publishes, and checks configurations.
    pub fn without_handlers() -> Self {
        Self::made_by(None)
    }

    /// The same program with a command of your own.
    ///
    /// # Panics
    /// Where a command of that name is there already.
    pub fn command(mut self, command: Command) -> Self {
        let name = command.clap.get_name();
        let taken = self
            .tree()
            .get_subcommands()
            .any(|known| known.get_name() == name);
        assert!(!taken, "the program has a command called {name} already");
        self.commands.push(command);
        self
    }

    /// The same program, whose `config show` shows these values of `[app]`, named by their dotted keys below it:
    /// `["greeting", "smtp.host"]`. All others are hidden, for they may be secrets.
    pub fn show_app(mut self, keys: impl IntoIterator<Item = &'static str>) -> Self {
        self.app_shown.extend(keys);
        self
    }

    /// The same program, whose `run` is watched by `observer`.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.hooks.observer = Some(Arc::new(observer));
        self
    }

    /// The same program, whose `run` does this before its worker begins: start an exporter of metrics, migrate a
    /// database. Several are done one after the other; an error ends `run`, and its worker does not begin.
    ///
    /// ```
    /// # use streamhand::{Registry, Settings, Summary, cli::Program};
    /// let program = Program::new(Registry::new())
    ///     .on_start(async |settings: Settings| {
    ///         println!("works for {}", settings.worker.group);
    ///         Ok(())
    ///     })
    ///     .on_stop(async |summary: Summary| {
    ///         println!("{} settled", summary.settled);
    ///         Ok(())
    ///     });
    /// # let _ = program;
    /// ```
    pub fn on_start<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Settings) -> Fut + 'static,
        Fut: Future<Output = Result<(), CommandError>> + 'static,
    {
        self.hooks
            .on_start
            .push(Box::new(|settings| Box::pin(hook(settings))));
        self
    }

    /// The same program, whose `run` does this when its worker has stopped: flush what is to be sent, close what was
    /// opened. Several are done one after the other, each also after another's error; the first error is that of `run`.
    /// Nothing is done where the worker ended with an error.
    pub fn on_stop<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Summary) -> Fut + 'static,
        Fut: Future<Output = Result<(), CommandError>> + 'static,
    {
        self.hooks
            .on_stop
            .push(Box::new(|summary| Box::pin(hook(summary))));
        self
    }

    /// Runs it by the arguments of the process.
    pub fn main(self) -> ExitCode {
        match self.run_from(std::env::args_os()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                if error.code() != 0 {
                    say(format_args!("error: {error}"));
                }
                stderr::flush();
                ExitCode::from(error.code())
            }
        }
    }

    /// Runs it by these arguments, the program's name first. Ends the process where they only ask for help.
    ///
    /// # Errors
    /// Where the command fails; the error has the exit code.
    pub fn run_from(
        self,
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<(), CommandError> {
        let result = self.run(arguments);
        stderr::flush();
        result
    }

    fn run(
        mut self,
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<(), CommandError> {
        let mut tree = self.tree();
        let matches = match tree.try_get_matches_from_mut(arguments) {
            Ok(matches) => matches,
            Err(help) => match end_with(&help)? {},
        };
        let mut globals = Globals::from_arg_matches(&matches)
            .map_err(|error| CommandError::usage(error.to_string()))?;
        globals.group = self.registry.is_some().then_some(self.name);
        called::is(self.name);
        // A line of the log would spoil the screen that `top` has taken.
        let is_quiet = matches.subcommand_name() == Some("top");
        logging::set_up(if is_quiet { "off" } else { "info" })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("streamhand")
            .build()
            .map_err(|error| CommandError::failed(format!("can't start: {error}")))?;
        if let Some((name, arguments)) = matches.subcommand()
            && let Some(at) = self
                .commands
                .iter()
                .position(|command| command.clap.get_name() == name)
        {
            let command = self.commands.swap_remove(at);
            let settings = globals.settings()?;
            let arguments = arguments.clone();
            let result = runtime.block_on(async {
                match command.run {
                    RunCommand::WithSettings(run) => run(settings, arguments).await,
                    RunCommand::WithRegistry(run) => {
                        let registry = made(self.registry, &settings).await?;
                        run(settings, registry, arguments).await
                    }
                }
            });
            runtime.shutdown_background();
            return result;
        }
        let cli = match Cli::from_arg_matches(&matches) {
            Ok(cli) => cli,
            Err(wrong) => match end_with(&wrong)? {},
        };
        let result = runtime.block_on(async {
            match cli.command {
                Builtin::Run(args) => {
                    let settings = globals.settings_with(args.settings())?;
                    let Some(registry) = with_targets(self.registry, &settings) else {
                        return Err(run::no_handlers());
                    };
                    let registry = registry(settings.clone()).await?;
                    run::run(settings, registry, self.version, self.hooks).await
                }
                Builtin::Publish(args) => publish::run(args, globals.settings()?).await,
                Builtin::Scheduled(command) => {
                    scheduled::run(command, grown(globals.settings()?).await).await
                }
                Builtin::Cancel(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    cancel::run(args, settings).await
                }
                Builtin::Cron(command) => {
                    let settings = grown(globals.settings()?).await;
                    let registry = match self.registry {
                        Some(make) => Some(make(settings.clone()).await?),
                        None => None,
                    };
                    cron::run(command, settings, registry.as_ref()).await
                }
                Builtin::Limit(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    limit::run(args, settings).await
                }
                Builtin::Find(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    find::run(args, settings).await
                }
                Builtin::Entry(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    entry::run(args, settings).await
                }
                Builtin::Redis(args) => server::run(&args, &globals.settings()?).await,
                Builtin::Doctor(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    doctor::run(args, &settings).await
                }
                Builtin::Conformance(args) => {
                    let settings = globals.settings()?;
                    let registry = match self.registry {
                        Some(make) => Some(make(settings.clone()).await?),
                        None => None,
                    };
                    conformance::run(args, &settings, registry.as_ref()).await
                }
                Builtin::Dlq(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    let registry = with_targets(self.registry, &settings);
                    dlq::run(args, settings, registry).await
                }
                Builtin::Aggregate(args) => {
                    let settings = globals.settings()?;
                    let registry = made(self.registry, &settings).await?;
                    aggregate::run(args, settings, &registry).await
                }
                Builtin::Web(args) if args.command.is_some() => web::print_hash(),
                Builtin::Web(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    let registry = match with_targets(self.registry, &settings) {
                        Some(make) => Some(make(settings.clone()).await?),
                        None => None,
                    };
                    web::run(args, settings, registry).await
                }
                Builtin::Status(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    status::run(args, settings).await
                }
                Builtin::Alerts(command) => alerts::alerts(command, &globals).await,
                Builtin::Pause(args) => pause::pause(args, grown(globals.settings()?).await).await,
                Builtin::Resume(args) => {
                    pause::resume(args, grown(globals.settings()?).await).await
                }
                Builtin::Topic(command) => topic::run(command, globals.settings()?).await,
                Builtin::Top(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    top::run(args, settings).await
                }
                Builtin::Worker(args) => {
                    let settings = grown(globals.of_a_group(args.group.as_ref())?).await;
                    worker::run(args, settings).await
                }
                Builtin::Projection(command) => {
                    let settings = globals.settings()?;
                    let registry = made(self.registry, &settings).await?;
                    projection::run(command, settings, registry).await
                }
                Builtin::Exporter(args) => {
                    let overrides = args.settings();
                    let settings = globals.of_a_group_with(args.group.as_ref(), overrides)?;
                    let settings = grown(settings).await;
                    exporter::run(settings).await
                }
                Builtin::Health(args) => health::run(args).await,
                Builtin::Config(ConfigCommand::Check(args)) => {
                    let registry = |settings: &Settings| with_targets(self.registry, settings);
                    config::check(args, &globals, registry).await
                }
                Builtin::Config(ConfigCommand::Show) => config::show(&globals, &self.app_shown),
                Builtin::Completions(args) => completions::run(args, tree),
            }
        });
        // A handler that blocks its thread must not keep the process from ending.
        runtime.shutdown_background();
        result
    }

    fn tree(&self) -> clap::Command {
        // The examples of the library's commands are those of this program.
        let tree = Cli::command()
            .name(self.name)
            .about(self.about.unwrap_or("Works on the streams of a Redis"))
            .mut_subcommands(|command| named(command, self.name));
        let tree = match self.version {
            Some(version) => tree.version(version),
            None => tree,
        };
        self.commands
            .iter()
            .fold(tree, |tree, command| tree.subcommand(command.clap.clone()))
    }
}

/// The command, and those below it, with examples of the program of this name.
fn named(command: clap::Command, name: &str) -> clap::Command {
    let command = command.mut_subcommands(|below| named(below, name));
    match command.get_after_help() {
        Some(help) => {
            let help = help.to_string();
            command.after_help(help.replace("streamhand ", &format!("{name} ")))
        }
        None => command,
    }
}

/// What the file of this process is called.
fn own_name() -> &'static str {
    let called = std::env::args_os().next().map(PathBuf::from);
    let stem = called.as_deref().and_then(Path::file_stem);
    let name = stem.map(|stem| stem.to_string_lossy().into_owned());
    name.map_or("worker", |name| String::leak(name))
}

/// Says what clap has to say, help or a refusal, and ends the process.
fn end_with(what: &clap::Error) -> Result<Infallible, CommandError> {
    if what.use_stderr() {
        let text = what.render();
        match logging::is_colourful() {
            true => say(text.ansi().to_string().trim_end()),
            false => say(text.to_string().trim_end()),
        }
    } else {
        what.print().map_err(closed)?;
    }
    stderr::flush();
    std::process::exit(what.exit_code())
}

/// The registry, an empty one where there are no handlers.
async fn made(
    registry: Option<RegistryMaker>,
    settings: &Settings,
) -> Result<Registry, CommandError> {
    match with_targets(registry, settings) {
        Some(registry) => registry(settings.clone()).await,
        None => Ok(Registry::new()),
    }
}

/// The same handlers, and those that are targets by the settings; None where there are neither.
fn with_targets(registry: Option<RegistryMaker>, settings: &Settings) -> Option<RegistryMaker> {
    if !targets::any(settings) {
        return registry;
    }
    Some(Box::new(|settings| {
        Box::pin(async move {
            let own = match registry {
                Some(make) => make(settings.clone()).await?,
                None => Registry::new(),
            };
            Ok(targets::register(own, &settings)?)
        })
    }))
}

impl Command {
    /// A command described by `clap`, such as `clap::Command::new("order")` or a derived `Args` type's. `?` ends it with
    /// any error.
    pub fn new<F, Fut>(clap: clap::Command, run: F) -> Self
    where
        F: FnOnce(Settings, clap::ArgMatches) -> Fut + 'static,
        Fut: Future<Output = Result<(), CommandError>> + 'static,
    {
        Command {
            clap,
            run: RunCommand::WithSettings(Box::new(|settings, arguments| {
                Box::pin(run(settings, arguments))
            })),
        }
    }

    /// As [`new`](Self::new), with the program's registry: for a command that runs a worker beside something else, or
    /// hands events to handlers.
    pub fn with_registry<F, Fut>(clap: clap::Command, run: F) -> Self
    where
        F: FnOnce(Settings, Registry, clap::ArgMatches) -> Fut + 'static,
        Fut: Future<Output = Result<(), CommandError>> + 'static,
    {
        Command {
            clap,
            run: RunCommand::WithRegistry(Box::new(|settings, registry, arguments| {
                Box::pin(run(settings, registry, arguments))
            })),
        }
    }
}
