//! The order in which store paths appear.

use std::collections::HashMap;

use super::{Result, TransferError, Wanted};

/// How far a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// Something that it refers to is being placed.
    Open,
    Placed,
}

/// Puts each path behind all that it refers to, and else keeps the order. What refers to nothing in `wanted` does not
/// matter here. Uses no stack: a chain of references may be as long as the list.
pub(super) fn references_first<W: Wanted>(wanted: Vec<W>) -> Result<Vec<W>> {
    let places: HashMap<_, _> =
        wanted.iter().enumerate().map(|(at, one)| (one.store_path().digest(), at)).collect();
    let references = |at: usize| -> Vec<usize> {
        let references = wanted[at].references();
        references.iter().filter_map(|digest| places.get(digest).copied()).collect()
    };
    let mut states = vec![State::New; wanted.len()];
    let mut order = Vec::with_capacity(wanted.len());
    // The paths on the way to where we are, each with those of its references that were not looked at yet.
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    for first in 0..wanted.len() {
        if states[first] == State::New {
            states[first] = State::Open;
            open.push((first, references(first)));
        }
        while let Some((at, left)) = open.last_mut() {
            let at = *at;
            match left.pop() {
                Some(next) if states[next] == State::New => {
                    states[next] = State::Open;
                    open.push((next, references(next)));
                }
                Some(next) if states[next] == State::Open && next != at => {
                    return Err(TransferError::Circle(wanted[next].store_path().clone()));
                }
                Some(_) => {}
                None => {
                    states[at] = State::Placed;
                    order.push(at);
                    open.pop();
                }
            }
        }
    }
    let mut wanted: Vec<_> = wanted.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| wanted[at].take()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::{StorePath, StorePathDigest};

    struct Path(StorePath, Vec<u8>);

    impl Wanted for Path {
        fn store_path(&self) -> &StorePath {
            &self.0
        }

        fn references(&self) -> Vec<StorePathDigest> {
            self.1.iter().map(|number| StorePathDigest::from([*number; 20])).collect()
        }

        fn name_of(&self, reference: &StorePathDigest) -> String {
            reference.to_string()
        }
    }

    fn path(number: u8, references: &[u8]) -> Path {
        let digest = StorePathDigest::from([number; 20]);
        Path(StorePath::new(digest, "x").expect("legal"), references.to_vec())
    }

    fn numbers(paths: &[Path]) -> Vec<u8> {
        paths.iter().map(|path| path.0.digest().as_bytes()[0]).collect()
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let paths = vec![path(1, &[1, 2, 3]), path(2, &[4]), path(3, &[9]), path(4, &[3, 4])];
        assert_eq!(numbers(&references_first(paths).expect("no circle")), [3, 4, 2, 1]);
        let apart = vec![path(3, &[]), path(1, &[]), path(2, &[])];
        assert_eq!(numbers(&references_first(apart).expect("no circle")), [3, 1, 2]);
    }

    #[test]
    fn a_circle_is_refused() {
        let paths = vec![path(1, &[2]), path(2, &[3]), path(3, &[2])];
        assert!(matches!(references_first(paths), Err(TransferError::Circle(_))));
    }

    #[test]
    fn a_long_chain_takes_no_stack() {
        let chain = |number: u32| {
            let digest = |number: u32| {
                let mut bytes = [0; 20];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                StorePathDigest::from(bytes)
            };
            Chain(StorePath::new(digest(number), "x").expect("legal"), digest(number + 1))
        };
        struct Chain(StorePath, StorePathDigest);
        impl Wanted for Chain {
            fn store_path(&self) -> &StorePath {
                &self.0
            }
            fn references(&self) -> Vec<StorePathDigest> {
                vec![self.1]
            }
            fn name_of(&self, reference: &StorePathDigest) -> String {
                reference.to_string()
            }
        }
        let ordered = references_first((0..200_000).map(chain).collect()).expect("no circle");
        assert_eq!(ordered.len(), 200_000);
        assert_eq!(ordered[0].0.digest().as_bytes()[..4], 199_999_u32.to_be_bytes());
    }
}
