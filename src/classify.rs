//! What errors mean, by their type: said once for a registry, and asked of every failure whose handler said nothing.

use std::any::TypeId;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::failure::{Failure, FailureKind, panic_message, with_sources};

/// The meanings of error types.
#[derive(Clone, Default)]
pub(crate) struct Classifiers(Vec<(TypeId, Arc<Classifier>)>);

/// What an error means, if it is of the type that this is about.
type Classifier = dyn Fn(&(dyn StdError + 'static)) -> Option<FailureKind> + Send + Sync;

impl Classifiers {
    /// What errors of type `E` mean. False where that was said before.
    pub fn add<E: StdError + 'static>(
        &mut self,
        meaning: impl Fn(&E) -> FailureKind + Send + Sync + 'static,
    ) -> bool {
        let of = TypeId::of::<E>();
        let is_new = self.0.iter().all(|(known, _)| *known != of);
        if is_new {
            let classifier = move |error: &(dyn StdError + 'static)| {
                let error = error.downcast_ref::<E>()?;
                // It is called where entries are settled, and a panic there would be no handler's.
                match catch_unwind(AssertUnwindSafe(|| meaning(error))) {
                    Ok(kind) => Some(kind),
                    Err(panic) => {
                        let (panic, of) = (panic_message(panic), std::any::type_name::<E>());
                        tracing::error!(
                            "the classifier of {of} panicked, so it is retried: {panic}"
                        );
                        None
                    }
                }
            };
            self.0.push((of, Arc::new(classifier)));
        }
        is_new
    }

    /// Gives a failure the meaning of its error, or of the first of its sources that has one, unless its handler has
    /// said what it means.
    pub fn apply(&self, failure: &mut Failure) {
        if self.0.is_empty() {
            return;
        }
        failure.unless_chosen(|error| {
            with_sources(error)
                .find_map(|error| self.0.iter().find_map(|(_, classify)| classify(error)))
        });
    }
}
