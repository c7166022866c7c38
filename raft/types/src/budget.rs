//! Memory as a budget in bytes: whatever holds bytes holds a permit.
//!
//! First come, first served: a large request at the head of the queue is not starved by small ones behind it.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// A number of bytes that may be held at one time.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    total: u64,
    free: u64,
    next_ticket: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    bytes: u64,
    granted: bool,
    waker: Option<Waker>,
}

/// The right to hold some bytes; dropping it gives them back.
#[derive(Debug)]
pub struct BytePermit {
    shared: Arc<Mutex<Shared>>,
    bytes: u64,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { total, free: total, next_ticket: 0, queue: VecDeque::new() })) }
    }

    /// Waits until `bytes` may be held. More than the whole budget is granted when everything else was given back,
    /// so that one large request is slow rather than stuck.
    pub fn acquire(&self, bytes: u64) -> Acquire {
        Acquire { shared: Arc::clone(&self.shared), bytes, ticket: None }
    }

    /// The permit, if it can be had at once and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, bytes: u64) -> Option<BytePermit> {
        let mut shared = lock(&self.shared);
        let bytes = bytes.min(shared.total);
        if !shared.queue.is_empty() || shared.free < bytes {
            return None;
        }
        shared.free -= bytes;
        Some(BytePermit { shared: Arc::clone(&self.shared), bytes })
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        let shared = lock(&self.shared);
        shared.total - shared.free
    }

    /// The whole budget.
    #[must_use]
    pub fn total(&self) -> u64 {
        lock(&self.shared).total
    }
}

impl BytePermit {
    /// Bytes this permit stands for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but `bytes`, once the true size is known.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let back = self.bytes - bytes;
            self.bytes = bytes;
            give_back(&self.shared, back);
        }
    }

    /// Makes `more`, a permit of the same budget, part of this one. Whoever waits for more while it holds some must be
    /// able to let go of what it holds: else some holders that all wait wait for ever.
    pub fn absorb(&mut self, mut more: Self) {
        debug_assert!(Arc::ptr_eq(&self.shared, &more.shared), "permits of two budgets");
        self.bytes += std::mem::take(&mut more.bytes);
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        give_back(&self.shared, self.bytes);
    }
}

/// The future of [`ByteBudget::acquire`].
#[derive(Debug)]
pub struct Acquire {
    shared: Arc<Mutex<Shared>>,
    bytes: u64,
    ticket: Option<u64>,
}

impl Future for Acquire {
    type Output = BytePermit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<BytePermit> {
        let handle = Arc::clone(&self.shared);
        let mut shared = lock(&handle);
        let bytes = self.bytes.min(shared.total);
        match self.ticket {
            None if shared.queue.is_empty() && shared.free >= bytes => {
                shared.free -= bytes;
            }
            None => {
                let ticket = shared.next_ticket;
                shared.next_ticket += 1;
                let waker = Some(context.waker().clone());
                shared.queue.push_back(Waiter { ticket, bytes, granted: false, waker });
                self.ticket = Some(ticket);
                return Poll::Pending;
            }
            Some(ticket) => {
                let Some(at) = shared.queue.iter().position(|waiter| waiter.ticket == ticket) else {
                    return Poll::Pending; // taken already: the future was polled after it was ready
                };
                if !shared.queue[at].granted {
                    shared.queue[at].waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                shared.queue.remove(at);
            }
        }
        self.ticket = None;
        drop(shared);
        Poll::Ready(BytePermit { shared: handle, bytes })
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut shared = lock(&self.shared);
        let Some(at) = shared.queue.iter().position(|waiter| waiter.ticket == ticket) else { return };
        let waiter = shared.queue.remove(at);
        let back = waiter.filter(|waiter| waiter.granted).map_or(0, |waiter| waiter.bytes);
        drop(shared);
        // Also with nothing to give back: whoever stood behind may now be first.
        give_back(&self.shared, back);
    }
}

fn give_back(handle: &Mutex<Shared>, bytes: u64) {
    let mut wake = Vec::new();
    {
        let mut shared = lock(handle);
        shared.free += bytes;
        let mut free = shared.free;
        for waiter in shared.queue.iter_mut().filter(|waiter| !waiter.granted) {
            if waiter.bytes > free {
                break;
            }
            free -= waiter.bytes;
            waiter.granted = true;
            wake.extend(waiter.waker.take());
        }
        shared.free = free;
    }
    wake.into_iter().for_each(Waker::wake);
}

/// A panic elsewhere cannot leave the counters half changed: every change is one assignment.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    fn poll(acquire: &mut Acquire) -> Option<BytePermit> {
        let waker = Waker::from(Arc::new(Nobody));
        match Pin::new(acquire).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn permits_are_granted_in_the_order_they_were_asked_for() {
        let budget = ByteBudget::new(10);
        let first = poll(&mut budget.acquire(8)).expect("free");
        let (mut large, mut small) = (budget.acquire(9), budget.acquire(1));
        assert!(poll(&mut large).is_none());
        assert!(poll(&mut small).is_none(), "a small request does not overtake");
        drop(first);
        let large = poll(&mut large).expect("given back");
        let small = poll(&mut small).expect("one byte is left");
        assert_eq!(budget.used(), 10);
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_the_next_one_through() {
        let budget = ByteBudget::new(10);
        let held = poll(&mut budget.acquire(6)).expect("free");
        let (mut large, mut small) = (budget.acquire(9), budget.acquire(2));
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
        drop(large);
        assert!(poll(&mut small).is_some());
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_permit_that_grew_gives_back_all_of_it() {
        let budget = ByteBudget::new(10);
        let mut held = poll(&mut budget.acquire(3)).expect("free");
        held.absorb(poll(&mut budget.acquire(4)).expect("free"));
        assert_eq!((held.bytes(), budget.used()), (7, 7));
        held.shrink(2);
        assert_eq!(budget.used(), 2);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn more_than_the_whole_budget_is_granted_alone() {
        let budget = ByteBudget::new(10);
        let permit = poll(&mut budget.acquire(1_000)).expect("alone");
        assert_eq!(permit.bytes(), 10);
        assert!(budget.try_acquire(1).is_none());
    }
}
