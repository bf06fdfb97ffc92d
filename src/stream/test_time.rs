//! The time of a test on a real server: a key says what time it is, in place of the server's clock. It is a server of the
//! test's own. The scripts are those that are always used, but that what asks for TIME asks for the key; without the
//! feature `testing` there is nothing of this.
//!
//! Time passes there all at once: keys that expire do so sooner, and what is pending has been idle for longer. Ids that
//! Redis makes go on by its own clock.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

/// How a script asks what time it is, and how long something has been pending; and how it asks for that of a test.
const ASKS: [(&str, &str); 2] = [
    ("redis.call('TIME')", "test_time()"),
    ("redis.call('XPENDING', ", "test_pending("),
];
const TIME: &str = include_str!("test_time/time.lua");

thread_local! {
    /// Scripts that are called on this thread go by a test's time.
    static IS_HERE: Cell<usize> = const { Cell::new(0) };
    /// What is to be done before a handler asks its Redis something on this thread.
    static BEFORE: RefCell<Vec<Arc<dyn Fn() + Send + Sync>>> = const { RefCell::new(Vec::new()) };
}

/// The text of a script in a test's time, if it has to do with time.
pub(super) fn script(text: &str) -> Option<String> {
    let is_asked = ASKS.iter().any(|(asks, _)| text.contains(asks));
    is_asked.then(|| {
        let replaced = |text: String, (asks, of_test): &(&str, &str)| text.replace(asks, of_test);
        let text = ASKS.iter().fold(text.to_owned(), replaced);
        format!("{TIME}{text}")
    })
}

pub(super) fn is_here() -> bool {
    IS_HERE.get() > 0
}

/// While it lasts, scripts that are called on this thread go by the test's time.
pub(crate) struct TestTime {
    of_handlers: bool,
    /// It is this thread's.
    _here: PhantomData<*const ()>,
}

impl TestTime {
    /// For what is called by the test kit itself.
    pub fn of_steps() -> Self {
        Self::begins(false)
    }

    /// For handlers, on a thread whose time stands still: it does so while they wait for an answer. This is done before
    /// they ask, for time may have passed since.
    pub fn of_handlers(before: Arc<dyn Fn() + Send + Sync>) -> Self {
        BEFORE.with_borrow_mut(|all| all.push(before));
        Self::begins(true)
    }

    fn begins(of_handlers: bool) -> Self {
        IS_HERE.set(IS_HERE.get() + 1);
        TestTime {
            of_handlers,
            _here: PhantomData,
        }
    }
}

impl Drop for TestTime {
    fn drop(&mut self) {
        IS_HERE.set(IS_HERE.get() - 1);
        if self.of_handlers {
            BEFORE.with_borrow_mut(|all| drop(all.pop()));
        }
    }
}

/// Waits for an answer. If this thread's time is a test's, it does not jump meanwhile to when the answer would be too late.
pub(super) async fn awaited<T>(doing: impl Future<Output = T>) -> T {
    let before = BEFORE.with_borrow(Vec::clone);
    if before.is_empty() {
        return doing.await;
    }
    before.iter().for_each(|before| before());
    // Tokio's time stands while something blocks.
    let (over, waits) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || {
        let _ = waits.recv();
    });
    let done = doing.await;
    drop(over);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_asks_for_a_tests_time_where_it_asks_for_the_time() {
        let text = "local t = redis.call('TIME')\nreturn t[1]";
        let there = format!("{TIME}local t = test_time()\nreturn t[1]");
        assert_eq!(script(text), Some(there));
        assert!(script("return 1").is_none());
    }

    #[test]
    fn it_lasts_as_long_as_it_is_held() {
        let outer = TestTime::of_steps();
        drop(TestTime::of_handlers(Arc::new(|| {})));
        assert!(is_here());
        drop(outer);
        assert!(!is_here());
        assert!(BEFORE.with_borrow(Vec::is_empty));
    }
}
