//! Lists that are read a page at a time, as a `Stream`.
//!
//! The request for the next page belongs to the list, and not to whoever waits for it: a wait that is dropped half-way
//! passes nothing over and repeats nothing, for the next one goes on with the same request.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;

use crate::error::Result;

/// Where pages come from.
pub(crate) trait Source: Send + Sized + 'static {
    type Item: Send + 'static;

    /// The next page, which may be empty; None behind the last one. An error leaves it where it was, so that it can be
    /// asked again.
    fn page(&mut self) -> impl Future<Output = Result<Option<Vec<Self::Item>>>> + Send;
}

/// The items of a source, one after the other.
pub(crate) struct Pages<S: Source> {
    state: State<S>,
    page: VecDeque<S::Item>,
}

enum State<S: Source> {
    Idle(S),
    Asking(Asking<S>),
    Done,
}

type Asking<S> = Pin<Box<dyn Future<Output = (S, Page<S>)> + Send>>;
type Page<S> = Result<Option<Vec<<S as Source>::Item>>>;

impl<S: Source> Pages<S> {
    pub fn of(source: S) -> Self {
        Pages {
            state: State::Idle(source),
            page: VecDeque::new(),
        }
    }

    /// The next item, where it is here already.
    pub fn peek(&self) -> Option<&S::Item> {
        self.page.front()
    }
}

/// Nothing in it is ever pinned but what is in a box.
impl<S: Source> Unpin for Pages<S> {}

impl<S: Source> Stream for Pages<S> {
    type Item = Result<S::Item>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(item) = this.page.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            if let State::Idle(_) = this.state {
                this.state = match mem::replace(&mut this.state, State::Done) {
                    State::Idle(source) => State::Asking(Box::pin(ask(source))),
                    other => other,
                };
            }
            let State::Asking(asking) = &mut this.state else {
                return Poll::Ready(None);
            };
            let (source, page) = ready!(asking.as_mut().poll(cx));
            this.state = State::Idle(source);
            match page {
                Ok(Some(items)) => this.page = items.into(),
                Ok(None) => this.state = State::Done,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

async fn ask<S: Source>(mut source: S) -> (S, Page<S>) {
    let page = source.page().await;
    (source, page)
}

impl<S: Source> fmt::Debug for Pages<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Idle(_) => "idle",
            State::Asking(_) => "asking",
            State::Done => "done",
        };
        f.debug_struct("Pages")
            .field("state", &state)
            .field("here", &self.page.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, TryStreamExt};

    use super::*;
    use crate::error::{Error, ErrorKind};

    /// Counts to four by pages of two, waits once in each, and fails once at the second.
    struct Counting {
        next: u32,
        failed: bool,
    }

    impl Source for Counting {
        type Item = u32;

        async fn page(&mut self) -> Result<Option<Vec<u32>>> {
            tokio::task::yield_now().await;
            if self.next == 2 && !mem::replace(&mut self.failed, true) {
                return Err(Error::new(ErrorKind::Unreachable, "away"));
            }
            if self.next == 4 {
                return Ok(None);
            }
            self.next += 2;
            Ok(Some(vec![self.next - 2, self.next - 1]))
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_and_a_page_that_fails_lose_and_repeat_nothing() {
        let mut pages = Pages::of(Counting {
            next: 0,
            failed: false,
        });
        let mut seen = Vec::new();
        let mut failures = 0;
        loop {
            // Dropped where it waits, each time before it is waited for.
            let _ = pages.try_next().now_or_never().map(|next| match next {
                Ok(item) => seen.extend(item),
                Err(_) => failures += 1,
            });
            match pages.try_next().await {
                Ok(Some(item)) => seen.push(item),
                Ok(None) => break,
                Err(_) => failures += 1,
            }
        }
        assert_eq!((seen, failures), (vec![0, 1, 2, 3], 1));
    }
}
