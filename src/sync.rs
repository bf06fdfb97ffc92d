//! Taking a lock, in one place: no lock here is ever poisoned, because nothing that can panic runs while it is held.

use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What every lock here is taken with.
const NEVER_POISONED: &str = "no panic while it is locked";

/// Locks.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect(NEVER_POISONED)
}

/// Locks for reading.
#[inline]
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect(NEVER_POISONED)
}

/// Locks for writing.
#[inline]
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect(NEVER_POISONED)
}
