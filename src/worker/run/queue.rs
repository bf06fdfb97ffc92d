//! The queue that all lanes take from. What comes wakes one lane, and not a second one for nothing: each wake of a
//! sleeping thread costs more than an entry does.
//!
//! What a dead worker held comes before all else, but for every eighth turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::sync::lock;

/// So many entries that dead workers held come in a row before one of another kind has its turn.
pub(crate) const IN_A_ROW: usize = 7;

struct Queue<T> {
    inner: Mutex<Inner<T>>,
    came: Notify,
}

struct Inner<T> {
    /// What comes before the rest.
    first: VecDeque<T>,
    /// So many of those were taken since one of the rest was.
    in_a_row: usize,
    items: VecDeque<T>,
    senders: usize,
}

/// Where things come from. Once all of them are dropped, the queue ends behind what is in it.
pub(crate) struct Sender<T>(Arc<Queue<T>>);

/// Where they go to, one to each who asks.
pub(crate) struct Receiver<T>(Arc<Queue<T>>);

/// A queue without a bound.
pub(crate) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let inner = Inner {
        first: VecDeque::new(),
        in_a_row: 0,
        items: VecDeque::new(),
        senders: 1,
    };
    let queue = Arc::new(Queue {
        inner: Mutex::new(inner),
        came: Notify::new(),
    });
    (Sender(queue.clone()), Receiver(queue))
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        lock(&self.inner)
    }
}

impl<T> Inner<T> {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.first.is_empty()
    }

    fn next(&mut self) -> Option<T> {
        if (self.in_a_row < IN_A_ROW || self.items.is_empty())
            && let Some(item) = self.first.pop_front()
        {
            self.in_a_row += 1;
            return Some(item);
        }
        self.in_a_row = 0;
        self.items.pop_front()
    }
}

impl<T> Sender<T> {
    /// Adds one thing.
    pub fn send(&self, item: T) {
        self.0.lock().items.push_back(item);
        self.0.came.notify_one();
    }

    /// Adds one thing that comes before the rest.
    pub fn send_first(&self, item: T) {
        self.0.lock().first.push_back(item);
        self.0.came.notify_one();
    }

    /// Whether something has not been taken yet.
    pub fn holds_any(&self) -> bool {
        !self.0.lock().is_empty()
    }
}

impl<T> Receiver<T> {
    /// The next thing, if there is one.
    pub fn try_recv(&self) -> Option<T> {
        self.0.lock().next()
    }

    /// Gives back one of the rest that was taken: it is the next of them.
    pub fn put_back(&self, item: T) {
        self.0.lock().items.push_front(item);
        self.0.came.notify_one();
    }

    /// Whether one of the rest that was taken already has to wait for what comes first; `coming` if some of that is
    /// still to be fetched. Where it is the turn of the rest, it is had by this.
    pub fn gives_way(&self, coming: bool) -> bool {
        let mut inner = self.0.lock();
        let gives_way = (coming || !inner.first.is_empty()) && inner.in_a_row < IN_A_ROW;
        if !gives_way {
            inner.in_a_row = 0;
        }
        gives_way
    }

    /// Whether there is any of what comes first.
    pub fn holds_first(&self) -> bool {
        !self.0.lock().first.is_empty()
    }

    /// Waits for the next thing; None where nothing more can come.
    pub async fn recv(&self) -> Option<T> {
        loop {
            // Before the look, so that the end can't come unnoticed in between. A thing that does leaves its mark.
            let came = self.0.came.notified();
            {
                let mut inner = self.0.lock();
                if !inner.is_empty() || inner.senders == 0 {
                    return inner.next();
                }
            }
            came.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver(self.0.clone())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = {
            let mut inner = self.0.lock();
            inner.senders -= 1;
            inner.senders
        };
        if left == 0 {
            self.0.came.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_comes_wakes_one_who_waits_and_the_end_wakes_all() {
        let (sender, receiver) = queue();
        let wakes = [(); 3].map(|()| Arc::new(Wakes::default()));
        let wakers = wakes.clone().map(Waker::from);
        let woken = || [0, 1, 2].map(|at: usize| wakes[at].0.load(Ordering::Relaxed));
        let others = [receiver.clone(), receiver.clone()];
        let mut first = Box::pin(receiver.recv());
        let mut second = pin!(others[0].recv());
        let mut third = pin!(others[1].recv());
        let mut contexts = [0, 1, 2].map(|at: usize| Context::from_waker(&wakers[at]));
        assert!(first.as_mut().poll(&mut contexts[0]).is_pending());
        assert!(second.as_mut().poll(&mut contexts[1]).is_pending());
        assert!(third.as_mut().poll(&mut contexts[2]).is_pending());
        sender.send(1);
        assert_eq!(woken(), [1, 0, 0]);
        assert_eq!(first.as_mut().poll(&mut contexts[0]), Poll::Ready(Some(1)));
        drop(first);
        assert_eq!(woken(), [1, 0, 0]);
        // One who is told and does not look passes it on.
        let mut first = Box::pin(receiver.recv());
        sender.send(2);
        assert_eq!(woken(), [1, 1, 0]);
        assert!(first.as_mut().poll(&mut contexts[0]) == Poll::Ready(Some(2)));
        assert!(second.as_mut().poll(&mut contexts[1]).is_pending());
        sender.send(3);
        drop(sender.clone());
        assert!(second.as_mut().poll(&mut contexts[1]).is_pending());
        drop(sender);
        assert_eq!(third.as_mut().poll(&mut contexts[2]), Poll::Ready(Some(3)));
        assert_eq!(second.as_mut().poll(&mut contexts[1]), Poll::Ready(None));
        assert_eq!(receiver.try_recv(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everything_comes_to_somebody_once() {
        let (sender, receiver) = queue();
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let receiver = receiver.clone();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    while let Some(item) = receiver.recv().await {
                        mine.push(item);
                    }
                    mine
                })
            })
            .collect();
        for item in 0..20_000 {
            sender.send(item);
            if item % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(sender);
        let mut all = Vec::new();
        for taker in takers {
            all.extend(taker.await.expect("no panic"));
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..20_000));
    }
}
