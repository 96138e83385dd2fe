//! The requests of a guest whose replies are being waited for.

use std::{collections::HashMap, time::Duration};

use parking_lot::{Condvar, Mutex};
use tokio::task::AbortHandle;

use super::{
    super::{errno::Errno, fuse::error_message},
    slot::Slot,
};

/// How many requests of one queue can be waited for. A queue has no room for more.
const TASKS_MAX: usize = super::device::QUEUE_LEN_MAX;

/// How long a queue that is stopped may take to finish what is under way.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What identifies a request: what a guest calls it need not be unique.
pub(super) type Ticket = u64;

/// Whoever takes a request out may reply to it, and nobody else.
#[derive(Default)]
pub(super) struct Pending {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    tasks: HashMap<Ticket, Task>,
    next: Ticket,
}

struct Task {
    queue: usize,
    unique: u64,
    slot: Slot,
    handle: AbortHandle,
}

impl Pending {
    /// Starts the task that waits for the reply to `unique`. A queue that has more requests under way than it has room
    /// for is up to no good: the slot comes back.
    pub(super) fn start(
        &self,
        queue: usize,
        unique: u64,
        slot: Slot,
        spawn: impl FnOnce(Ticket) -> AbortHandle,
    ) -> Result<(), Slot> {
        let mut state = self.state.lock();
        if state.tasks.values().filter(|task| task.queue == queue).count() >= TASKS_MAX {
            return Err(slot);
        }
        state.next += 1;
        let ticket = state.next;
        // It cannot take itself out before it is in: it needs the lock for that.
        let handle = spawn(ticket);
        state.tasks.insert(ticket, Task { queue, unique, slot, handle });
        Ok(())
    }

    /// Takes the slot of a request out, unless somebody else has replied.
    pub(super) fn end(&self, ticket: Ticket) -> Option<Slot> {
        let task = self.state.lock().tasks.remove(&ticket)?;
        self.ended.notify_all();
        Some(task.slot)
    }

    /// Ends the request of that name, if it is waited for.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut state = self.state.lock();
        let found = state.tasks.iter().find(|(_, task)| task.unique == unique);
        let found = found.map(|(ticket, _)| *ticket);
        if let Some(task) = found.and_then(|ticket| state.tasks.remove(&ticket)) {
            drop(state);
            self.ended.notify_all();
            interrupt(task);
        }
    }

    /// Waits until nothing of a queue is under way any more. What takes too long is interrupted.
    pub(super) fn drain(&self, queue: usize) {
        let mut state = self.state.lock();
        let has_any = |state: &mut State| state.tasks.values().any(|task| task.queue == queue);
        self.ended.wait_while_for(&mut state, has_any, STOP_GRACE);
        let late: Vec<Ticket> = (state.tasks.iter())
            .filter(|(_, task)| task.queue == queue)
            .map(|(ticket, _)| *ticket)
            .collect();
        let late: Vec<Task> = late.iter().filter_map(|ticket| state.tasks.remove(ticket)).collect();
        drop(state);
        late.into_iter().for_each(interrupt);
    }

    /// Ends everything, and replies to nobody. Returns how many requests that were.
    pub(super) fn abandon(&self) -> usize {
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        tasks.values().for_each(|task| task.handle.abort());
        tasks.len()
    }
}

fn interrupt(task: Task) {
    task.handle.abort();
    task.slot.reply(&error_message(task.unique, Errno::INTERRUPTED));
}
