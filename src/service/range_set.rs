//! Sets of byte offsets, as ranges.

use std::{collections::BTreeMap, ops::Range};

/// Offsets, kept as ranges that neither touch nor overlap. Takes memory by the number of ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    /// From each start to its end.
    ranges: BTreeMap<u64, u64>,
}

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> Self {
        let mut set = RangeSet::default();
        set.insert(range);
        set
    }
}

impl RangeSet {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many offsets there are.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// Adds all of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        while let Some((&before, &before_end)) = self.ranges.range(..=end).next_back() {
            if before_end < start {
                break;
            }
            self.ranges.remove(&before);
            (start, end) = (start.min(before), end.max(before_end));
        }
        self.ranges.insert(start, end);
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: &Range<u64>) {
        while let Some(overlap) = self.last_overlap(range) {
            self.ranges.remove(&overlap.start);
            self.insert(overlap.start..range.start.min(overlap.end));
            self.insert(range.end.max(overlap.start)..overlap.end);
        }
    }

    /// Whether all of `range` is in it.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self
                .ranges
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, &end)| end >= range.end)
    }

    /// What of `range` is in it, in order.
    pub fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut left = range.clone();
        while let Some(overlap) = self.last_overlap(&left) {
            let start = overlap.start.max(left.start);
            found.push(start..overlap.end.min(left.end));
            left.end = start;
        }
        found.reverse();
        found
    }

    /// What of `range` is not in it, in order.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for there in self.within(range) {
            if at < there.start {
                gaps.push(at..there.start);
            }
            at = there.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The last range that has something in common with `range`.
    fn last_overlap(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let (&start, &end) = self.ranges.range(..range.end).next_back()?;
        (!range.is_empty() && end > range.start).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..60u64, 0..20u64).prop_map(|(start, len)| start..start + len)
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_its_offsets(
            steps in vec((any::<bool>(), range()), 0..30), asked in range(),
        ) {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for (add, range) in steps {
                match add {
                    true => {
                        model.extend(range.clone());
                        set.insert(range);
                    }
                    false => {
                        model.retain(|offset| !range.contains(offset));
                        set.remove(&range);
                    }
                }
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.contains(&asked), asked.clone().all(|offset| model.contains(&offset)));
            let within: Vec<u64> = set.within(&asked).into_iter().flatten().collect();
            let expected: Vec<u64> = asked.clone().filter(|offset| model.contains(offset)).collect();
            prop_assert_eq!(within, expected);
            let gaps: Vec<u64> = set.gaps(&asked).into_iter().flatten().collect();
            let expected: Vec<u64> = asked.filter(|offset| !model.contains(offset)).collect();
            prop_assert_eq!(gaps, expected);
            // As few ranges as can be.
            let all: Vec<_> = set.within(&(0..u64::MAX));
            prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
