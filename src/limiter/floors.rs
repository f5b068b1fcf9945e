//! How much of each hold can still be in a bucket.
//!
//! # Why the least level says it
//! Let `level` be that of a bucket since a hold of `units` was added, and `other` that of a bucket
//! which never got them. Both drain alike, but not below nothing, so their difference begins at
//! `units` and shrinks only while `other` is empty: at any time it is the smaller of `units` and the
//! least value that `level` has had since. So that is what can be given back, and then the level is
//! what it would be without the hold, exactly. To give back a part of the hold is the same.
//!
//! # One number for each hold
//! Between two additions a level only sinks, so the values right before additions are enough. Holds
//! are in the order in which they were made. Each has the least level from then on until the next
//! one was made, the last one until now; the least since a hold was made is the least of its own
//! number and all later ones. So an addition changes the last number alone.
//!
//! What is given back of a hold was never there in the history of the others: each number since it
//! was made sinks by what the hold accounted for of that level.

/// The least level of a bucket while a hold was the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) hold: u64,
    pub(crate) least: u128,
}

/// The holds of a bucket, in the order in which they were made. None that nothing is left of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    floors: Vec<Floor>,
}

impl Floors {
    /// In the same order.
    pub(crate) fn from_kept(floors: Vec<Floor>) -> Self {
        Self { floors }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Floor> + '_ {
        self.floors.iter().copied()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.floors.is_empty()
    }

    /// The level is `level` now, before anything is added.
    pub(crate) fn note(&mut self, level: u128) {
        let Some(last) = self.floors.last_mut() else { return };
        last.least = last.least.min(level);
        if last.least == 0 {
            self.floors.clear();
        }
    }

    /// A hold was added, to a level that is `level` with it.
    pub(crate) fn begin(&mut self, hold: u64, level: u128) {
        self.floors.push(Floor { hold, least: level });
    }

    /// Takes a hold out, and gives back `amount` of it. Says by how much the level sinks, which was
    /// [noted](Self::note) just now.
    pub(crate) fn end(&mut self, hold: u64, amount: u128) -> u128 {
        let Some(index) = self.floors.iter().position(|floor| floor.hold == hold) else { return 0 };
        let mut left = amount;
        for floor in self.floors.iter_mut().skip(index) {
            left = left.min(floor.least);
            floor.least -= left;
        }
        let ended = self.floors.remove(index);
        if let Some(before) = index.checked_sub(1).and_then(|before| self.floors.get_mut(before)) {
            before.least = before.least.min(ended.least);
        }
        // What is at nothing hides all that was made before.
        let hidden = self.floors.iter().rposition(|floor| floor.least == 0).map_or(0, |last| last + 1);
        self.floors.drain(..hidden);
        left
    }

    /// Of each hold the least level since it was made.
    pub(crate) fn since_each(&self) -> impl Iterator<Item = Floor> + '_ {
        let mut least = u128::MAX;
        self.floors.iter().rev().map(move |floor| {
            least = least.min(floor.least);
            Floor { hold: floor.hold, least }
        })
    }

    /// A level of `old` is one of `new` from now on. What can be given back is rounded down.
    pub(crate) fn rescale(&mut self, old: u128, new: u128) {
        for floor in &mut self.floors {
            floor.least = floor.least / old * new + floor.least % old * new / old;
        }
        let hidden = self.floors.iter().rposition(|floor| floor.least == 0).map_or(0, |last| last + 1);
        self.floors.drain(..hidden);
    }
}
