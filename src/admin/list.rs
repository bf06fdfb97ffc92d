//! Lists that are read a page at a time, whatever of.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use crate::error::Result;
use crate::pages::{Pages, Source};

/// A list that is read a page at a time: a `Stream`, and [`next`](Self::next) for who has no use for one.
///
/// A wait for the next item can be dropped: nothing is passed over. Behind an error it can be asked again, and goes on
/// there, if that is possible.
#[must_use = "it reads nothing before it is asked"]
pub struct List<T> {
    items: Pin<Box<dyn Stream<Item = Result<T>> + Send>>,
}

impl<T: Send + 'static> List<T> {
    pub(super) fn of(source: impl Source<Item = T>) -> Self {
        List {
            items: Box::pin(Pages::of(source)),
        }
    }
}

impl<T> List<T> {
    /// The next item; None behind the last.
    ///
    /// # Errors
    /// Where Redis can't be read, or what is there can't be.
    pub async fn next(&mut self) -> Result<Option<T>> {
        let items = &mut self.items;
        std::future::poll_fn(|cx| items.as_mut().poll_next(cx))
            .await
            .transpose()
    }
}

impl<T> Stream for List<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").finish_non_exhaustive()
    }
}
