//! Bounds the bodies that an isolate keeps in memory before their calls are judged.
//!
//! Room is reserved before a body is read, so that clients that send slowly, or not at all, cannot
//! exhaust the isolate's memory.

use std::collections::{BTreeMap, HashMap};

/// Maximum of all bodies together, in bytes.
pub const ISOLATE_BYTES: usize = 32 << 20;
/// Maximum of the bodies of one key, in bytes: at least one of the largest `TOKEN_BODY_BYTES`.
pub const KEY_BYTES: usize = 8 << 20;
/// How long a body may take to arrive, in milliseconds.
pub const READ_DEADLINE: u32 = 30_000;
/// A reservation that is not released ends after so many milliseconds. The runtime may drop the
/// work for a client that has left, and with it the release. Longer than [`READ_DEADLINE`] and the
/// object's requests, of which none takes more than 30 s.
pub const LONGEST_RESERVATION: u64 = 180_000;

/// How many bytes a body of this `Content-Length` may take, of which at most `limit` are read.
#[must_use]
pub fn room_of(declared: Option<u64>, limit: usize) -> usize {
    declared.and_then(|length| usize::try_from(length).ok()).map_or(limit, |length| length.min(limit))
}

#[derive(Debug)]
struct Reservation {
    key: String,
    bytes: usize,
    until: u64,
}

/// The room that is reserved in an isolate.
#[derive(Debug, Default)]
pub struct BodyBudget {
    /// By number, the oldest first.
    open: BTreeMap<u64, Reservation>,
    /// By key.
    reserved: HashMap<String, usize>,
    total: usize,
    last: u64,
}

impl BodyBudget {
    /// Reserves room for a body of this key. Returns the reservation's number; `None` if there is
    /// no room.
    pub fn reserve(&mut self, key: &str, bytes: usize, now: u64) -> Option<u64> {
        self.expire(now);
        let of_key = self.reserved.get(key).copied().unwrap_or_default().saturating_add(bytes);
        let total = self.total.saturating_add(bytes);
        if of_key > KEY_BYTES || total > ISOLATE_BYTES {
            return None;
        }
        self.reserved.insert(key.to_owned(), of_key);
        self.total = total;
        self.last = self.last.wrapping_add(1);
        let until = now.saturating_add(LONGEST_RESERVATION);
        self.open.insert(self.last, Reservation { key: key.to_owned(), bytes, until });
        Some(self.last)
    }

    /// Releases what a reservation has above this many bytes.
    pub fn shrink(&mut self, number: u64, bytes: usize) {
        let Some(reservation) = self.open.get_mut(&number) else { return };
        let freed = reservation.bytes.saturating_sub(bytes);
        reservation.bytes = reservation.bytes.saturating_sub(freed);
        let key = reservation.key.clone();
        self.free(&key, freed);
    }

    /// Releases a reservation, unless it has ended.
    pub fn release(&mut self, number: u64) {
        if let Some(Reservation { key, bytes, .. }) = self.open.remove(&number) {
            self.free(&key, bytes);
        }
    }

    fn expire(&mut self, now: u64) {
        while let Some(oldest) = self.open.first_entry()
            && oldest.get().until <= now
        {
            let Reservation { key, bytes, .. } = oldest.remove();
            self.free(&key, bytes);
        }
    }

    fn free(&mut self, key: &str, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(of_key) = self.reserved.get_mut(key) {
            *of_key = of_key.saturating_sub(bytes);
            if *of_key == 0 {
                self.reserved.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const NOW: u64 = 1_000_000;

    #[test]
    fn a_body_takes_its_declared_length_and_at_most_the_limit() {
        let rooms = [Some(0), Some(7), Some(100), Some(101), Some(u64::MAX), None].map(|length| room_of(length, 100));
        assert_eq!(rooms, [0, 7, 100, 100, 100, 100]);
    }

    #[test]
    fn a_key_has_room_for_8_mib_and_an_isolate_for_32() {
        let mut budget = BodyBudget::default();
        for key in ["a", "b", "c", "d"] {
            for _ in 0..8 {
                assert!(budget.reserve(key, MIB, NOW).is_some());
            }
            assert_eq!(budget.reserve(key, 1, NOW), None);
        }
        assert_eq!(budget.reserve("e", 1, NOW), None);
        assert!(budget.reserve("e", 0, NOW).is_some());
    }

    #[test]
    fn the_longest_body_fits_alone() {
        assert!(BodyBudget::default().reserve("a", KEY_BYTES, NOW).is_some());
    }

    #[test]
    fn what_is_released_has_room_again_once() {
        let mut budget = BodyBudget::default();
        let all = budget.reserve("a", KEY_BYTES, NOW).unwrap();
        budget.shrink(all, MIB);
        budget.shrink(all, 2 * MIB);
        assert_eq!(budget.reserve("a", 7 * MIB + 1, NOW), None);
        let rest = budget.reserve("a", 7 * MIB, NOW).unwrap();
        budget.release(all);
        budget.release(all);
        assert_eq!(budget.reserve("a", MIB + 1, NOW), None);
        budget.release(rest);
        assert!(budget.open.is_empty() && budget.reserved.is_empty() && budget.total == 0);
    }

    #[test]
    fn a_reservation_that_nobody_releases_ends() {
        let mut budget = BodyBudget::default();
        let lost = budget.reserve("a", KEY_BYTES, NOW).unwrap();
        assert_eq!(budget.reserve("a", 1, NOW + LONGEST_RESERVATION - 1), None);
        let next = budget.reserve("a", KEY_BYTES, NOW + LONGEST_RESERVATION);
        assert!(next.is_some());
        // Its late release takes nothing from others.
        budget.release(lost);
        budget.shrink(lost, 0);
        assert_eq!(budget.reserve("a", 1, NOW + LONGEST_RESERVATION), None);
    }
}
