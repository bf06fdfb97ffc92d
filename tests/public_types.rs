//! What is public goes between threads, and stays where it is put only if that has a reason: what `Send`, `Sync` and
//! `Unpin` a type has belongs to its face, and a field inside can take it away unseen.

use futures_util::Stream;

fn goes_anywhere<T: Send + Sync + Unpin>() {}
fn goes_to_another_thread<T: Send + Unpin>() {}
fn is_an_error<T: std::error::Error + Send + Sync + 'static>() {}
fn is_a_list<T: Stream + Send + Unpin>() {}

macro_rules! all {
    ($check:ident: $($type:ty),* $(,)?) => { $($check::<$type>();)* };
}

#[test]
fn public_types_go_between_threads() {
    use streamhand::*;
    all!(goes_anywhere:
        Breaker, Cancelled, Committed, Context, Effect, Entry, EntryId, Envelope, ErrorKind, Failure, FailureKind,
        FailureReason, Fields, Format, NotReplicated, Once, Outcome, Published, Publisher, Refusal, Registry, Scheduled, ScheduledEvent,
        Settings, Settled<'_>, Summary, TraceContext, Unstarted<'_>, retry::Backoff,
    );
    all!(goes_anywhere:
        admin::Admin, admin::AggregateState, admin::Held, admin::NewEvent, admin::PauseRequest, admin::ProjectionStatus,
        admin::RetentionStatus, admin::Status, admin::StreamStatus,
        config::HandlerPolicy, config::HandlerSettings, config::Keep, config::Rate, config::RedisSettings, config::RedisUrl,
        config::Secret, config::Sources, config::WorkerSettings,
        dead_letters::BuriedFor, dead_letters::DeadLetter, dead_letters::DeadLetters, dead_letters::Filter, dead_letters::Reason,
        dead_letters::Selection, dead_letters::Stats, dead_letters::WholeLetter,
        eventstore::AggregateId, eventstore::Append, eventstore::Appended, eventstore::CategoryEvent,
        eventstore::MemoryEventStore, eventstore::Position, eventstore::PublicStreams, eventstore::RedisEventStore,
        eventstore::Snapshot, eventstore::StoredEvent, eventstore::Subscribed,
    );
    // They belong to one who runs them.
    all!(goes_to_another_thread: Worker);
    all!(is_an_error:
        CommitError, DecodeError, Error, NotReplicated, PublishError, config::ConfigError, eventstore::AppendError,
    );
    all!(is_a_list:
        ScheduledEvents, dead_letters::Letters, admin::List<admin::HistoryEvent>, eventstore::Aggregates,
        eventstore::Events<'static, eventstore::RedisEventStore>, eventstore::History, eventstore::Subscription,
    );
}
