//! That a handler which does something twice is found, and one that doesn't is not.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use streamhand::{Context, Effect, Failure, Registry, testing};

use super::jobs::{Done, Job, job};
use super::runtime;

#[derive(Clone, Default)]
struct Mail(Arc<Mutex<BTreeSet<String>>>);

async fn careful(mail: Mail, job: Job, ctx: Context) -> Result<(), Failure> {
    ctx.emit(
        "done",
        Done {
            name: job.name.clone(),
        },
    );
    if mail.0.lock().unwrap().insert(job.name.clone()) {
        testing::effect("mail");
    }
    ctx.effect(Effect::incr_by("count", 1));
    Ok(())
}

async fn careless(job: Job, ctx: Context) -> Result<(), Failure> {
    testing::effect("mail");
    ctx.emit("done", Done { name: job.name });
    Ok(())
}

#[test]
fn what_knows_what_it_has_done_passes() {
    let registry = || Registry::new().on_with(Mail::default(), careful);
    runtime().block_on(testing::assert_idempotent(registry, &job("a", [])));
}

#[test]
fn what_is_done_twice_is_said() {
    let registry = || Registry::new().on(careless);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(testing::assert_idempotent(registry, &job("a", [])));
    }));
    let said = *failed.unwrap_err().downcast::<String>().unwrap();
    let expected = "not idempotent: its worker died behind what it did at place 1 of 2, and in the end \"mail\" was done \
                    twice, not once\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("THE WORKER DIES behind mail"), "{said}");
}
