//! How the parts of one service are put together.
//!
//! Parts that follow each other and are far share one front: the cache, and what is kept in memory. What is here already
//! stands beside it. So `read = ["disk", "lan", "bucket"]` becomes: the disk, then a cache before the network and the
//! bucket.

use std::sync::Arc;

use crate::service::blob::layer::Verify;

/// A part of a service, open.
pub(super) struct Piece<S: ?Sized> {
    /// What its part is called.
    pub(super) name: String,
    pub(super) service: Arc<S>,
    /// What is believed of it, if it is far.
    pub(super) far: Option<Verify>,
}

/// Makes one that reads from several and writes to one, as errors call it by the text.
pub(super) type Routed<S> = fn(&str, Vec<Arc<S>>, Option<Arc<S>>) -> Arc<S>;

/// How services of one kind are made of others.
pub(super) struct Joints<S: ?Sized, F> {
    pub(super) routed: Routed<S>,
    /// What stands before a far one.
    pub(super) front: F,
}

/// Parts that have one front, or one that needs none.
struct Group<S: ?Sized> {
    pieces: Vec<(String, Arc<S>)>,
    far: Option<Verify>,
}

impl<S: ?Sized> Group<S> {
    fn has(&self, name: &str) -> bool {
        self.pieces.iter().any(|(piece, _)| piece == name)
    }
}

/// Puts the pieces of a service together, in the order in which they are asked. What is written passes the front behind
/// which it is read again, lest something there stand for what was before.
pub(super) fn join<S: ?Sized, F: Fn(Arc<S>, Verify) -> Arc<S>>(
    endpoint: &str,
    pieces: Vec<Piece<S>>,
    target: Option<Piece<S>>,
    joints: &Joints<S, F>,
) -> Arc<S> {
    let groups = grouped(pieces);
    let home = target.as_ref().and_then(|target| {
        let has_it = groups.iter().position(|group| group.has(&target.name));
        let last_far = || groups.iter().rposition(|group| group.far.is_some());
        has_it.or_else(|| target.far.and_then(|_| last_far()))
    });
    let mut built = Vec::new();
    for (at, group) in groups.into_iter().enumerate() {
        let target = target.as_ref().filter(|_| home == Some(at));
        built.push(front(endpoint, group, target, joints));
    }
    match (home, target) {
        (Some(0), _) if built.len() == 1 => built.remove(0),
        (Some(home), _) => {
            let write = built[home].clone();
            (joints.routed)(endpoint, built, Some(write))
        }
        (None, target) => {
            let write = target.map(|target| match target.far {
                Some(verify) => (joints.front)(target.service, verify),
                None => target.service,
            });
            (joints.routed)(endpoint, built, write)
        }
    }
}

fn grouped<S: ?Sized>(pieces: Vec<Piece<S>>) -> Vec<Group<S>> {
    let mut groups: Vec<Group<S>> = Vec::new();
    for Piece { name, service, far } in pieces {
        match groups.last_mut() {
            Some(group) if far.is_some() && group.far == far => group.pieces.push((name, service)),
            _ => groups.push(Group { pieces: vec![(name, service)], far }),
        }
    }
    groups
}

fn front<S: ?Sized, F: Fn(Arc<S>, Verify) -> Arc<S>>(
    endpoint: &str,
    group: Group<S>,
    target: Option<&Piece<S>>,
    joints: &Joints<S, F>,
) -> Arc<S> {
    let is_its_own_target =
        target.is_none_or(|target| group.pieces.iter().all(|(name, _)| *name == target.name));
    let mut services: Vec<_> = group.pieces.into_iter().map(|(_, service)| service).collect();
    let bottom = match services.len() {
        1 if is_its_own_target => services.remove(0),
        _ => (joints.routed)(endpoint, services, target.map(|target| target.service.clone())),
    };
    match group.far {
        Some(verify) => (joints.front)(bottom, verify),
        None => bottom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &str, far: Option<Verify>) -> Piece<str> {
        Piece { name: name.to_owned(), service: name.into(), far }
    }

    /// What stands where, in words.
    fn joined(pieces: Vec<Piece<str>>, target: Option<Piece<str>>) -> String {
        let routed = |_: &str, read: Vec<Arc<str>>, write: Option<Arc<str>>| -> Arc<str> {
            format!("[{}]>{}", read.join(","), write.as_deref().unwrap_or("-")).into()
        };
        let front = |far: Arc<str>, verify| -> Arc<str> {
            match verify {
                Verify::Source => format!("c({far})").into(),
                Verify::Strict => format!("C({far})").into(),
            }
        };
        join("test", pieces, target, &Joints { routed, front }).to_string()
    }

    #[test]
    fn parts_that_are_far_share_a_cache_and_others_stand_beside_it() {
        let (source, strict) = (Some(Verify::Source), Some(Verify::Strict));
        let a = || piece("a", source);
        for (pieces, target, expected) in [
            (vec![a()], Some(a()), "c(a)"),
            (vec![piece("d", None)], Some(piece("d", None)), "d"),
            (vec![a()], None, "[c(a)]>-"),
            (vec![a(), piece("b", source)], Some(a()), "c([a,b]>a)"),
            (vec![a(), piece("b", source)], Some(piece("w", source)), "c([a,b]>w)"),
            (vec![a()], Some(piece("w", source)), "c([a]>w)"),
            (vec![a(), piece("b", strict)], Some(a()), "[c(a),C(b)]>c(a)"),
            (vec![piece("d", None), a()], Some(piece("d", None)), "[d,c(a)]>d"),
            (vec![piece("d", None), a()], Some(a()), "[d,c(a)]>c(a)"),
            (vec![piece("d", None), a()], Some(piece("w", strict)), "[d,c([a]>w)]>c([a]>w)"),
            (vec![piece("d", None)], Some(piece("w", strict)), "[d]>C(w)"),
            (vec![a(), piece("d", None), piece("b", source)], None, "[c(a),d,c(b)]>-"),
        ] {
            assert_eq!(joined(pieces, target), expected);
        }
    }
}
