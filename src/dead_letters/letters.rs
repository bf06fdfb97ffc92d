//! Going through the letters of a selection, a page at a time: however many there are, few are in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use futures_util::Stream;

use super::filter::Filter;
use super::letter::DeadLetter;
use super::of_group::DeadLetters;
use super::reason::Reason;
use crate::error::Result;
use crate::event::EntryId;
use crate::pages::{Pages, Source};
use crate::stream::{Browse, Page, Ticket};

/// The letters of a [`Selection`](super::Selection), one after the other: a `Stream`, and [`next`](Self::next) for who has no use for one.
///
/// A wait for the next one can be dropped: nothing is passed over. Behind an error it can be asked again, and goes on.
#[derive(Debug)]
#[must_use = "it reads nothing before it is asked"]
pub struct Letters {
    pages: Pages<Browsing>,
    left: u64,
    strangers: u64,
    missing: Vec<EntryId>,
}

/// Which letters are meant.
#[derive(Debug)]
pub(super) enum What {
    /// What the filter lets through of these streams, each up to an id.
    Filtered(Filter, Vec<(usize, EntryId)>),
    /// These letters of one stream.
    Picked(usize, Vec<EntryId>),
}

/// What a page has on it.
#[expect(clippy::large_enum_variant, reason = "nearly all are letters")]
enum Found {
    /// A letter, and of which stream.
    Letter(usize, DeadLetter),
    /// Entries that no worker wrote.
    Strangers(u64),
    /// An id that was picked and that no letter has.
    Missing(EntryId),
}

/// Where the next page begins.
struct Browsing {
    dead: DeadLetters,
    what: Arc<What>,
    /// Which stream, or which id, is looked at.
    turn: usize,
    /// Where to go on within it; None to begin.
    from: Option<String>,
    /// Streams that have not been left out.
    others: usize,
}

impl Letters {
    pub(super) fn of(dead: DeadLetters, what: Arc<What>) -> Self {
        Self::behind(dead, what, None, 0)
    }

    /// Those that come behind this one, which are as many fewer as were had before.
    pub(super) fn behind(
        dead: DeadLetters,
        what: Arc<What>,
        last: Option<EntryId>,
        had: u64,
    ) -> Self {
        let left = match &*what {
            What::Filtered(filter, _) => filter
                .limit
                .map_or(u64::MAX, |most| most.saturating_sub(had)),
            What::Picked(..) => u64::MAX,
        };
        let (turn, from) = match (&*what, last) {
            (_, None) => (0, None),
            (What::Filtered(..), Some(last)) => (0, Some(format!("({last}"))),
            (What::Picked(_, ids), Some(last)) => {
                let place = ids.iter().position(|id| *id == last);
                (place.map_or(0, |place| place + 1), None)
            }
        };
        let others = match &*what {
            What::Filtered(_, bounds) => bounds.len(),
            What::Picked(..) => 1,
        };
        let pages = Pages::of(Browsing {
            dead,
            what,
            turn,
            from,
            others,
        });
        Letters {
            pages,
            left,
            strangers: 0,
            missing: Vec::new(),
        }
    }

    /// The next letter; None after the last.
    ///
    /// # Errors
    /// Where Redis can't be reached.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>> {
        Ok(self.next_with_place().await?.map(|(_, letter)| letter))
    }

    /// Entries passed over so far because no worker wrote them.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// The ids picked, so far, of which there is no letter.
    pub fn missing(&self) -> &[EntryId] {
        &self.missing
    }

    /// The next letter, and of which stream it is.
    pub(super) async fn next_with_place(&mut self) -> Result<Option<(usize, DeadLetter)>> {
        std::future::poll_fn(|cx| self.poll(cx)).await.transpose()
    }

    /// Some letters of one stream; None after the last. What is left of a page makes a smaller lot.
    pub(super) async fn lot(&mut self, most: usize) -> Result<Option<(usize, Vec<Ticket>)>> {
        let Some((at, first)) = self.next_with_place().await? else {
            return Ok(None);
        };
        let mut lot = vec![first.ticket()];
        while lot.len() < most
            && matches!(self.pages.peek(), Some(Found::Letter(of, _)) if *of == at)
        {
            match self.next_with_place().await? {
                Some((_, letter)) => lot.push(letter.ticket()),
                None => break,
            }
        }
        Ok(Some((at, lot)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(usize, DeadLetter)>>> {
        while self.left > 0 {
            match ready!(Pin::new(&mut self.pages).poll_next(cx)) {
                None => break,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Found::Strangers(more))) => self.strangers += more,
                Some(Ok(Found::Missing(id))) => self.missing.push(id),
                Some(Ok(Found::Letter(at, letter))) => {
                    self.left -= 1;
                    return Poll::Ready(Some(Ok((at, letter))));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Stream for Letters {
    type Item = Result<DeadLetter>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.get_mut().poll(cx));
        Poll::Ready(next.map(|next| next.map(|(_, letter)| letter)))
    }
}

impl Source for Browsing {
    type Item = Found;

    async fn page(&mut self) -> Result<Option<Vec<Found>>> {
        let dead = &self.dead;
        match &*self.what {
            What::Picked(at, ids) => {
                let Some(id) = ids.get(self.turn) else {
                    return Ok(None);
                };
                let found = pick(dead, *at, *id).await?;
                self.turn += 1;
                Ok(Some(found))
            }
            What::Filtered(filter, bounds) => {
                let Some(bound) = bounds.get(self.turn) else {
                    return Ok(None);
                };
                let page = filtered(dead, filter, *bound, self.from.as_deref()).await;
                let page = dead.or_left_out(bound.0, page, &mut self.others)?;
                let (found, next) = page.unwrap_or_default();
                if next.is_none() {
                    self.turn += 1;
                }
                self.from = next;
                Ok(Some(found))
            }
        }
    }
}

/// The letter of this id.
async fn pick(dead: &DeadLetters, at: usize, id: EntryId) -> Result<Vec<Found>> {
    let keys = &dead.streams[at];
    let id_text = id.to_string();
    let browse = Browse {
        from: &id_text,
        to: &id_text,
        event_type: None,
        reason: None,
        about: None,
        fingerprint: None,
        brief: false,
        masked: false,
    };
    let page = dead.pool.browse(keys, &browse).await?;
    let mut found = found(page, at, &keys.stream, |_| true);
    if !found.iter().any(|found| matches!(found, Found::Letter(..))) {
        found.push(Found::Missing(id));
    }
    Ok(found)
}

/// Letters of one stream up to a bound, and where to go on.
async fn filtered(
    dead: &DeadLetters,
    filter: &Filter,
    (at, newest): (usize, EntryId),
    from: Option<&str>,
) -> Result<(Vec<Found>, Option<String>)> {
    let keys = &dead.streams[at];
    let last = filter.until.map_or(newest, |until| {
        let ms = millis(until);
        newest.min(EntryId { ms, seq: u64::MAX })
    });
    let first = format!("{}-0", filter.since.map_or(0, millis));
    let browse = Browse {
        from: from.unwrap_or(&first),
        to: &last.to_string(),
        event_type: filter.event_type.as_deref(),
        reason: filter.reason.map(Reason::as_str),
        about: filter.about.as_deref(),
        fingerprint: filter.fingerprint.as_deref(),
        brief: filter.brief,
        masked: filter.masked,
    };
    let mut page = dead.pool.browse(keys, &browse).await?;
    let next = page.next.take();
    let is_meant = |letter: &DeadLetter| {
        let regex = filter.error.as_ref();
        regex.is_none_or(|regex| regex.is_match(&letter.error))
    };
    Ok((found(page, at, &keys.stream, is_meant), next))
}

/// What is on a page.
fn found(
    page: Page,
    at: usize,
    stream: &str,
    is_meant: impl Fn(&DeadLetter) -> bool,
) -> Vec<Found> {
    let strangers = (page.strangers > 0).then_some(Found::Strangers(page.strangers));
    let heads = page.heads.into_iter();
    let letters = heads
        .filter_map(|head| DeadLetter::new(stream, head))
        .filter(is_meant)
        .map(|letter| Found::Letter(at, letter));
    strangers.into_iter().chain(letters).collect()
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
