//! Which views were given an inode, and how often.

/// A view of a tree. Another may get the same number once this one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViewId(u32);

/// The numbers of the views that there are.
#[derive(Debug, Default)]
pub(super) struct ViewIds {
    free: Vec<ViewId>,
    next: u32,
}

impl ViewIds {
    /// One that no view has.
    pub(super) fn take(&mut self) -> ViewId {
        self.free.pop().unwrap_or_else(|| {
            let id = ViewId(self.next);
            self.next += 1;
            id
        })
    }

    /// The view has ended, and nothing refers to it any more.
    pub(super) fn give_back(&mut self, id: ViewId) {
        self.free.push(id);
    }
}

/// One view that was given an inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    view: ViewId,
    /// How often, without being forgotten. What has reached the end is held until the view ends.
    lookups: u32,
}

/// All views that were given an inode: hardly ever more than one, which takes no room of its own.
#[derive(Debug)]
pub(super) enum Holders {
    One(Holder),
    /// In the order of their ids. None at all once the last has let go.
    Many(Box<[Holder]>),
}

/// What is left after a view has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The view still holds it, or never did.
    Unchanged,
    /// Others hold it.
    Others,
    /// Nobody holds it.
    Nobody,
}

impl Holders {
    /// The view was given the inode, which nobody held.
    pub(super) fn new(view: ViewId) -> Self {
        Holders::One(Holder { view, lookups: 1 })
    }

    fn all(&self) -> &[Holder] {
        match self {
            Holders::One(holder) => std::slice::from_ref(holder),
            Holders::Many(holders) => holders,
        }
    }

    fn place(&self, view: ViewId) -> Result<usize, usize> {
        self.all().binary_search_by_key(&view, |holder| holder.view)
    }

    fn at(&mut self, place: usize) -> &mut Holder {
        match self {
            Holders::One(holder) => holder,
            Holders::Many(holders) => &mut holders[place],
        }
    }

    /// Whether the view holds the inode.
    pub(super) fn has(&self, view: ViewId) -> bool {
        self.place(view).is_ok()
    }

    /// The view was given the inode once more. `true` if it did not hold it before.
    pub(super) fn add(&mut self, view: ViewId) -> bool {
        match self.place(view) {
            Ok(place) => {
                let holder = self.at(place);
                holder.lookups = holder.lookups.saturating_add(1);
                false
            }
            Err(place) => {
                let mut holders = self.all().to_vec();
                holders.insert(place, Holder { view, lookups: 1 });
                *self = Holders::Many(holders.into());
                true
            }
        }
    }

    /// The view takes back `count` of the times it was given the inode.
    pub(super) fn forget(&mut self, view: ViewId, count: u64) -> Left {
        let Ok(place) = self.place(view) else { return Left::Unchanged };
        let holder = self.at(place);
        if holder.lookups == u32::MAX {
            return Left::Unchanged;
        }
        holder.lookups = holder.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        match holder.lookups {
            0 => self.remove(place),
            _ => Left::Unchanged,
        }
    }

    /// The view takes all of them back.
    pub(super) fn forget_all(&mut self, view: ViewId) -> Left {
        match self.place(view) {
            Ok(place) => self.remove(place),
            Err(_) => Left::Unchanged,
        }
    }

    fn remove(&mut self, place: usize) -> Left {
        let mut holders = self.all().to_vec();
        holders.remove(place);
        match holders[..] {
            [] => return Left::Nobody,
            [one] => *self = Holders::One(one),
            _ => *self = Holders::Many(holders.into()),
        }
        Left::Others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_view_holds_by_itself() {
        let mut ids = ViewIds::default();
        let views: Vec<_> = (0..5).map(|_| ids.take()).collect();
        let mut holders = Holders::new(views[3]);
        for view in [views[1], views[4], views[1]] {
            holders.add(view);
        }
        assert_eq!(
            views.iter().map(|view| holders.has(*view)).collect::<Vec<_>>(),
            [false, true, false, true, true]
        );
        assert_eq!(holders.forget(views[0], u64::MAX), Left::Unchanged);
        assert_eq!(holders.forget(views[1], 1), Left::Unchanged);
        assert!(holders.has(views[1]));
        assert_eq!(holders.forget(views[1], 1), Left::Others);
        assert_eq!(holders.forget_all(views[3]), Left::Others);
        assert!(!holders.has(views[1]) && !holders.has(views[3]) && holders.has(views[4]));
        assert_eq!(holders.forget(views[4], u64::MAX), Left::Nobody);
    }

    #[test]
    fn what_was_given_more_often_than_can_be_counted_is_held_until_the_view_ends() {
        let mut ids = ViewIds::default();
        let view = ids.take();
        let mut holders = Holders::One(Holder { view, lookups: u32::MAX - 1 });
        holders.add(view);
        holders.add(view);
        assert_eq!(holders.forget(view, u64::MAX), Left::Unchanged);
        assert!(holders.has(view));
        assert_eq!(holders.forget_all(view), Left::Nobody);
    }

    #[test]
    fn one_holder_takes_no_room_of_its_own() {
        assert_eq!(size_of::<Holders>(), 16);
    }

    #[test]
    fn a_number_is_given_again_only_after_it_was_given_back() {
        let mut ids = ViewIds::default();
        let (first, second) = (ids.take(), ids.take());
        assert_ne!(first, second);
        ids.give_back(first);
        assert_eq!(ids.take(), first);
        assert!(ids.take() > second);
    }
}
