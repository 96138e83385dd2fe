//! A bounded map that forgets what was used longest ago.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
};

use lru::LruCache;
use parking_lot::Mutex;

/// Into how many parts the map is cut, each with a lock of its own.
const SHARDS: usize = 16;

/// A map bounded by the weight of what it holds. There is no lock over all of it: a key's shard is found by its
/// hash, and each shard has an equal part of the bound. What weighs more than such a part is not kept.
pub struct ShardedLru<K: Hash + Eq, V> {
    hasher: RandomState,
    shards: [Mutex<Shard<K, V>>; SHARDS],
    shard_weight_max: usize,
}

struct Shard<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    weight: usize,
}

impl<K: Hash + Eq, V: Clone> ShardedLru<K, V> {
    /// An empty map whose entries weigh at most `weight_max` together.
    pub fn new(weight_max: usize) -> Self {
        ShardedLru {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard { entries: LruCache::unbounded(), weight: 0 })
            }),
            shard_weight_max: weight_max.div_ceil(SHARDS),
        }
    }

    /// The value of `key`, which now counts as just used.
    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).lock().entries.get(key).map(|(value, _)| value.clone())
    }

    /// Puts `value` in place of what may be there.
    pub fn insert(&self, key: K, value: V, weight: usize) {
        if weight <= self.shard_weight_max {
            self.shard(&key).lock().insert(key, value, weight, self.shard_weight_max);
        }
    }

    /// Puts `value`, unless there is one: for a value that was read before it could be inserted, while a newer one
    /// may have been.
    pub fn insert_if_absent(&self, key: K, value: V, weight: usize) {
        if weight <= self.shard_weight_max {
            let mut shard = self.shard(&key).lock();
            if !shard.entries.contains(&key) {
                shard.insert(key, value, weight, self.shard_weight_max);
            }
        }
    }

    /// What the entries weigh together.
    pub fn weight(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().weight).sum()
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    fn insert(&mut self, key: K, value: V, weight: usize, weight_max: usize) {
        self.weight += weight;
        if let Some((_, old)) = self.entries.put(key, (value, weight)) {
            self.weight -= old;
        }
        while self.weight > weight_max {
            let Some((_, (_, old))) = self.entries.pop_lru() else { break };
            self.weight -= old;
        }
    }
}

impl<K: Hash + Eq, V> fmt::Debug for ShardedLru<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedLru").field("shard_weight_max", &self.shard_weight_max).finish()
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
        map.insert(1, 1, 101);
        assert_ne!(map.get(&1), Some(1), "heavier than a shard");
        map.insert(2, 5, 1);
        map.insert_if_absent(2, 6, 1);
        assert_eq!(map.get(&2), Some(5));
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
