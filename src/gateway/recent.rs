//! A bounded map that drops entries not used recently.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map in two halves. When the younger half is full, the older one is dropped as a whole.
/// A used entry moves to the younger half.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// An empty map for at most `capacity` values.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: capacity / 2 }
    }

    /// The value of this name, which becomes young.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, name: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if self.young.contains_key(name) {
            return self.young.get_mut(name);
        }
        let (name, value) = self.old.remove_entry(name)?;
        Some(self.add(name, value))
    }

    /// The value of this name. Inserts the result of `make` if there is none.
    pub fn get_or_put<Q>(&mut self, name: &Q, make: impl FnOnce() -> V) -> &mut V
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let value = self.young.remove(name).or_else(|| self.old.remove(name)).unwrap_or_else(make);
        self.add(name.to_owned(), value)
    }

    /// Inserts or replaces a value.
    pub fn put<Q>(&mut self, name: &Q, value: V)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        self.old.remove(name);
        self.add(name.to_owned(), value);
    }

    fn add(&mut self, name: K, value: V) -> &mut V {
        if self.young.len() >= self.half && !self.young.contains_key(&name) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(name).insert_entry(value).into_mut()
    }

    /// Removes and returns a value.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.young.remove(name).or_else(|| self.old.remove(name))
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len().saturating_add(self.old.len())
    }

    /// Whether the map has no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_what_is_in_use_stays() {
        let mut recent = Recent::<String, _>::new(100);
        recent.put("used", 7);
        for n in 0..10_000 {
            recent.put(&n.to_string(), n);
            assert!(recent.len() <= 100);
            assert_eq!(recent.get("used").copied(), Some(7));
        }
        assert_eq!(recent.get("0"), None);
        assert_eq!(recent.get("9999").copied(), Some(9_999));
        for n in 0..1_000 {
            recent.put("one", n);
        }
        assert_eq!(recent.get("9999").copied(), Some(9_999), "putting one again makes no room");
        assert_eq!(recent.remove("one"), Some(999));
        assert_eq!(recent.get("one"), None);
        recent.clear();
        assert!(recent.is_empty());
    }

    #[test]
    fn half_of_it_is_there_although_nothing_is_used() {
        let mut recent = Recent::<String, _>::new(100);
        assert!(recent.is_empty());
        (0..3).for_each(|n| recent.put(&n.to_string(), n));
        assert!(recent.len() == 3 && !recent.is_empty());
        (0..1_000).for_each(|n| recent.put(&n.to_string(), n));
        assert!((950..1_000).all(|n| recent.get(&n.to_string()).copied() == Some(n)));
    }

    #[test]
    fn a_value_is_made_once() {
        let mut recent = Recent::<String, _>::new(4);
        *recent.get_or_put("a", || 1) += 1;
        for name in ["b", "c", "a", "d"] {
            recent.get_or_put(name, || 10);
            assert_eq!(recent.get_or_put("a", || 1), &mut 2);
        }
        assert!(recent.len() <= 4);
    }
}
