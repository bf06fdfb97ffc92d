//! What is read on and on, as a `Stream`.
//!
//! The request under way belongs to the list, and not to whoever waits for it: a wait that is dropped half-way passes
//! nothing over and repeats nothing, for the next one goes on with the same request.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use crate::error::Result;

/// What is read.
pub(super) trait Reads: Send + Sized {
    type Item: Send;

    /// The next item, if it is here already.
    fn here(&mut self) -> Option<Self::Item>;

    /// The next item, None behind the last one. After an error it can be asked again.
    fn read(&mut self) -> impl Future<Output = Result<Option<Self::Item>>> + Send;
}

/// Something that is read, and the read under way.
pub(super) struct Asking<'a, R: Reads> {
    state: State<'a, R>,
    /// What came of a read that nobody has waited for yet.
    came: Option<Result<Option<R::Item>>>,
}

enum State<'a, R: Reads> {
    Idle(Box<R>),
    Reading(Reading<'a, R>),
    /// Between two of them.
    Between,
}

type Read<R> = (Box<R>, Result<Option<<R as Reads>::Item>>);
/// Never locked: whoever has the list alone gets at it. It lets references to a list go between threads.
type Reading<'a, R> = Mutex<Pin<Box<dyn Future<Output = Read<R>> + Send + 'a>>>;

impl<'a, R: Reads + 'a> Asking<'a, R> {
    pub fn of(reader: R) -> Self {
        Asking {
            state: State::Idle(Box::new(reader)),
            came: None,
        }
    }

    /// The next item.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<R::Item>>> {
        if let Some(came) = self.came.take() {
            return Poll::Ready(came.transpose());
        }
        if let State::Idle(reader) = &mut self.state
            && let Some(item) = reader.here()
        {
            return Poll::Ready(Some(Ok(item)));
        }
        let came = ready!(self.poll_read(cx));
        Poll::Ready(came.transpose())
    }

    /// The same, for who has no use for a stream.
    pub async fn next(&mut self) -> Result<Option<R::Item>> {
        std::future::poll_fn(|cx| self.poll_next(cx))
            .await
            .transpose()
    }

    /// What is read, once no read is under way. What that brings is kept.
    ///
    /// # Panics
    /// If a read has panicked.
    pub async fn idle(&mut self) -> &mut R {
        if let State::Reading(_) = self.state {
            let came = std::future::poll_fn(|cx| self.poll_read(cx)).await;
            self.came = Some(came);
        }
        match &mut self.state {
            State::Idle(reader) => reader,
            _ => panic!("a read of it has panicked"),
        }
    }

    /// What is read, if no read is under way.
    pub fn if_idle(&self) -> Option<&R> {
        match &self.state {
            State::Idle(reader) => Some(reader),
            _ => None,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<R::Item>>> {
        if let State::Idle(_) = self.state
            && let State::Idle(mut reader) = std::mem::replace(&mut self.state, State::Between)
        {
            self.state = State::Reading(Mutex::new(Box::pin(async move {
                let came = reader.read().await;
                (reader, came)
            })));
        }
        let State::Reading(reading) = &mut self.state else {
            // A read has panicked.
            return Poll::Ready(Ok(None));
        };
        let reading = reading.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (reader, came) = ready!(reading.as_mut().poll(cx));
        self.state = State::Idle(reader);
        Poll::Ready(came)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::error::{Error, ErrorKind};

    /// Counts to four: two are read at once, each read waits once, and the second one fails at first.
    struct Counting {
        here: Vec<u32>,
        next: u32,
        failed: bool,
    }

    impl Reads for Counting {
        type Item = u32;

        fn here(&mut self) -> Option<u32> {
            self.here.pop()
        }

        async fn read(&mut self) -> Result<Option<u32>> {
            tokio::task::yield_now().await;
            if self.next == 2 && !std::mem::replace(&mut self.failed, true) {
                return Err(Error::new(ErrorKind::Unreachable, "away"));
            }
            if self.next == 4 {
                return Ok(None);
            }
            self.next += 2;
            self.here.push(self.next - 1);
            Ok(Some(self.next - 2))
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_and_a_read_that_fails_lose_and_repeat_nothing() {
        let mut counting = Asking::of(Counting {
            here: Vec::new(),
            next: 0,
            failed: false,
        });
        let (mut seen, mut failures) = (Vec::new(), 0);
        loop {
            // Dropped where it waits, each time before it is waited for.
            let _ = counting.next().now_or_never().map(|next| match next {
                Ok(item) => seen.extend(item),
                Err(_) => failures += 1,
            });
            // What is asked beside it waits for the read, and keeps what that brings.
            counting.idle().await;
            match counting.next().await {
                Ok(Some(item)) => seen.push(item),
                Ok(None) => break,
                Err(_) => failures += 1,
            }
        }
        assert_eq!((seen, failures), (vec![0, 1, 2, 3], 1));
    }
}
