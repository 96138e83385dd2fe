//! A bounded map that forgets what was used longest ago.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use lru::LruCache;
use parking_lot::Mutex;

/// Into how many parts the map is cut, each with a lock of its own.
const SHARDS: usize = 16;

/// A map bounded by the weight of what it holds. There is no lock over all of it: a key's shard is found by its
/// hash. What weighs more than half of the bound is not kept, so that one entry cannot drive out all others.
///
/// Lock order: one shard at a time.
pub struct ShardedLru<K: Hash + Eq, V> {
    hasher: RandomState,
    shards: [Mutex<Shard<K, V>>; SHARDS],
    weight: AtomicUsize,
    weight_max: usize,
}

type Shard<K, V> = LruCache<K, (V, usize)>;

impl<K: Hash + Eq, V: Clone> ShardedLru<K, V> {
    /// An empty map whose entries weigh at most `weight_max` together.
    pub fn new(weight_max: usize) -> Self {
        ShardedLru {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::new(LruCache::unbounded())),
            weight: AtomicUsize::new(0),
            weight_max,
        }
    }

    /// The value of `key`, which now counts as just used.
    pub fn get(&self, key: &K) -> Option<V> {
        self.shards[self.index(key)].lock().get(key).map(|(value, _)| value.clone())
    }

    /// Puts `value` in place of what may be there.
    pub fn insert(&self, key: K, value: V, weight: usize) {
        self.insert_if(key, value, weight, |_| true);
    }

    /// Puts `value`, unless there is one: for a value that was read before it could be inserted, while a newer one
    /// may have been.
    pub fn insert_if_absent(&self, key: K, value: V, weight: usize) {
        self.insert_if(key, value, weight, |is_there| !is_there);
    }

    /// Takes an entry out.
    pub fn remove(&self, key: &K) {
        if let Some((_, weight)) = self.shards[self.index(key)].lock().pop(key) {
            self.weight.fetch_sub(weight, Relaxed);
        }
    }

    /// Takes out everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some((_, (_, weight))) = shard.pop_lru() {
                self.weight.fetch_sub(weight, Relaxed);
            }
        }
    }

    /// What the entries weigh together.
    pub fn weight(&self) -> usize {
        self.weight.load(Relaxed)
    }

    fn index(&self, key: &K) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    fn insert_if(&self, key: K, value: V, weight: usize, wanted: impl Fn(bool) -> bool) {
        if weight > self.weight_max / 2 {
            return;
        }
        let index = self.index(&key);
        {
            let mut shard = self.shards[index].lock();
            if !wanted(shard.contains(&key)) {
                return;
            }
            self.weight.fetch_add(weight, Relaxed);
            if let Some((_, old)) = shard.put(key, (value, weight)) {
                self.weight.fetch_sub(old, Relaxed);
            }
        }
        // Room is made in the same shard first. What was just put there is the last to go, and stays.
        self.evict(index, 1);
        for step in 1..SHARDS {
            if self.weight() <= self.weight_max {
                break;
            }
            self.evict((index + step) % SHARDS, 0);
        }
    }

    /// Takes the least recently used out of a shard until the map is light enough or the shard has `keep` left.
    fn evict(&self, index: usize, keep: usize) {
        let mut shard = self.shards[index].lock();
        while self.weight() > self.weight_max && shard.len() > keep {
            if let Some((_, (_, old))) = shard.pop_lru() {
                self.weight.fetch_sub(old, Relaxed);
            }
        }
    }
}

impl<K: Hash + Eq, V> fmt::Debug for ShardedLru<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedLru").field("weight_max", &self.weight_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_stays_bounded_whatever_is_inserted() {
        let map = ShardedLru::new(1600);
        for key in 0..1000u32 {
            map.insert(key % 300, key, key as usize % 130);
            assert!(map.weight() <= 1600, "{}", map.weight());
        }
        map.insert(1, 1, 801);
        assert_ne!(map.get(&1), Some(1), "heavier than half of all");
        map.insert(1, 1, 800);
        assert_eq!(map.get(&1), Some(1));
        assert!(map.weight() <= 1600, "{}", map.weight());
        map.insert(2, 5, 1);
        map.insert_if_absent(2, 6, 1);
        assert_eq!(map.get(&2), Some(5));
    }

    #[test]
    fn what_is_taken_out_weighs_nothing() {
        let map = ShardedLru::new(1000);
        for key in 0..10 {
            map.insert(key, key, 10);
        }
        map.remove(&3);
        map.remove(&3);
        assert_eq!((map.get(&3), map.get(&4), map.weight()), (None, Some(4), 90));
        map.clear();
        assert_eq!((map.get(&4), map.weight()), (None, 0));
    }

    #[test]
    fn what_is_used_stays() {
        let map = ShardedLru::new(SHARDS * 4);
        for key in 1..1000u32 {
            map.insert(0, 0, 1);
            map.insert(key, key, 1);
            assert_eq!(map.get(&0), Some(0));
        }
    }
}
