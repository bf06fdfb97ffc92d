//! What an event does to a view: effects on keys that are the view's own.

use crate::effects::Effect;

/// Most effects of one event, and bytes of them.
const MOST: usize = 1000;
const MOST_BYTES: usize = 1 << 20;

/// What an event is to do to a view. Keys are the view's own: `counts` is a key of it, and where it is in Redis is its
/// own business (see [`ProjectionView`](super::ProjectionView)).
///
/// ```
/// use streamhand::{Effect, eventstore::View};
///
/// let mut view = View::new();
/// view.hincr_by("counts", "shipped", 1).sadd("open", "o-1");
/// assert_eq!(view.effects()[0], Effect::hincr_by("counts", "shipped", 1));
/// ```
#[derive(Debug, Default)]
pub struct View {
    effects: Vec<Effect>,
}

impl View {
    /// A view of which nothing is known, as a projection is given it.
    pub fn new() -> Self {
        View::default()
    }

    /// Has an effect take place, on a key of the view. Guards are not for views: an event has happened.
    pub fn effect(&mut self, effect: Effect) -> &mut Self {
        self.effects.push(effect);
        self
    }

    /// [`Effect::set`].
    pub fn set(&mut self, key: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.effect(Effect::set(key, value))
    }

    /// [`Effect::del`].
    pub fn del(&mut self, key: &str) -> &mut Self {
        self.effect(Effect::del(key))
    }

    /// [`Effect::incr_by`].
    pub fn incr_by(&mut self, key: &str, by: i64) -> &mut Self {
        self.effect(Effect::incr_by(key, by))
    }

    /// [`Effect::hset`].
    pub fn hset(
        &mut self,
        key: &str,
        field: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.effect(Effect::hset(key, field, value))
    }

    /// [`Effect::hdel`].
    pub fn hdel(&mut self, key: &str, field: impl AsRef<[u8]>) -> &mut Self {
        self.effect(Effect::hdel(key, field))
    }

    /// [`Effect::hincr_by`].
    pub fn hincr_by(&mut self, key: &str, field: impl AsRef<[u8]>, by: i64) -> &mut Self {
        self.effect(Effect::hincr_by(key, field, by))
    }

    /// [`Effect::zadd`].
    pub fn zadd(&mut self, key: &str, score: f64, member: impl AsRef<[u8]>) -> &mut Self {
        self.effect(Effect::zadd(key, score, member))
    }

    /// [`Effect::zrem`].
    pub fn zrem(&mut self, key: &str, member: impl AsRef<[u8]>) -> &mut Self {
        self.effect(Effect::zrem(key, member))
    }

    /// [`Effect::sadd`].
    pub fn sadd(&mut self, key: &str, member: impl AsRef<[u8]>) -> &mut Self {
        self.effect(Effect::sadd(key, member))
    }

    /// [`Effect::srem`].
    pub fn srem(&mut self, key: &str, member: impl AsRef<[u8]>) -> &mut Self {
        self.effect(Effect::srem(key, member))
    }

    /// What has been asked for so far.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// The effects, or why they can't be.
    pub(super) fn into_effects(self) -> Result<Vec<Effect>, String> {
        if self.effects.len() > MOST {
            let count = self.effects.len();
            return Err(format!("{count} effects of one event: at most {MOST}"));
        }
        let bytes: usize = self.effects.iter().map(Effect::size).sum();
        if bytes > MOST_BYTES {
            return Err(format!(
                "{bytes} bytes of effects of one event: at most {MOST_BYTES}"
            ));
        }
        for effect in &self.effects {
            effect.check()?;
            if effect.is_guarded() {
                return Err(format!(
                    "the effect {effect}: a view's effects have no guards"
                ));
            }
        }
        Ok(self.effects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_t_be_done_to_a_view_is_refused() {
        let refused = |effect: Effect| {
            let mut view = View::new();
            view.effect(effect);
            view.into_effects().unwrap_err()
        };
        assert_eq!(
            refused(Effect::incr_by("n", 1).at_least(0)),
            "the effect INCRBY n 1, at least 0: a view's effects have no guards"
        );
        assert!(refused(Effect::set("n", "1").if_absent()).contains("have no guards"));
        assert!(refused(Effect::zadd("z", f64::NAN, "a")).contains("a score is a number"));
        assert!(refused(Effect::set("n", vec![b'x'; MOST_BYTES + 1])).contains("at most 1048576"));
        let mut many = View::new();
        (0..=MOST).for_each(|_| {
            many.incr_by("n", 1);
        });
        assert!(many.into_effects().unwrap_err().contains("1001 effects"));
    }
}
