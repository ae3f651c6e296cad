//! A few threads that share one piece of work after the other.
//!
//! A step of the model is many pieces of microseconds each, so a thread without work looks for more for a moment before
//! it sleeps; between replies all threads sleep. A thread takes the parts of its own share one by one, in their order,
//! because each part's data then follows the last one's in memory; a thread that is done steals from the end of
//! another's share. So a thread that the game's frame has pushed off its core delays the part it has, not its whole
//! share.

use std::{
    any::Any,
    mem,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

/// How often a thread looks for work before it sleeps: longer than the gap between a pass's steps, shorter than a
/// frame.
const LOOKS: u32 = 2_000;

/// Threads that work for the calling thread, which works too. Work must not call its own team: it would wait
/// for itself.
pub(crate) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The number of the current piece of work; one at a time.
    epoch: Mutex<u32>,
}

struct Shared {
    /// One for each thread, the caller's first.
    shares: Vec<Share>,
    /// The current piece: a closure, and the function that calls it with a part's number.
    closure: AtomicPtr<()>,
    call: AtomicPtr<()>,
    done: AtomicU32,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Vec<Sleeper>,
    closing: AtomicBool,
}

/// A thread's parts of the current piece: the piece's number (32 bits), the end (16) and the next (16) of those not
/// taken yet. Alone on its cache lines: other threads look at it only when they have run out.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicU64);

#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

type Call = unsafe fn(*const (), usize);

impl Share {
    fn set(&self, epoch: u32, parts: Range<usize>) {
        // Sequentially consistent against `asleep`: either the sleeper sees this piece, or this thread sees the sleeper.
        self.0.store(u64::from(epoch) << 32 | (parts.end as u64) << 16 | parts.start as u64, Ordering::SeqCst);
    }

    fn is_empty(&self) -> bool {
        let state = self.0.load(Ordering::SeqCst);
        state as u16 >= (state >> 16) as u16
    }

    /// Takes the next part, or for another thread the last one.
    fn take(&self, own: bool) -> Option<usize> {
        let mut state = self.0.load(Ordering::Acquire);
        loop {
            let (next, end) = (state & 0xffff, state >> 16 & 0xffff);
            if next >= end {
                return None;
            }
            let left = if own { state + 1 } else { state - (1 << 16) };
            match self.0.compare_exchange_weak(state, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(if own { next } else { end - 1 } as usize),
                Err(newer) => state = newer,
            }
        }
    }
}

impl Team {
    /// A team of `threads`, the caller's included; each of the others calls `at_start` first.
    pub fn new(threads: usize, at_start: fn()) -> std::io::Result<Self> {
        let helpers = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            shares: (0..=helpers).map(|_| Share::default()).collect(),
            closure: AtomicPtr::default(),
            call: AtomicPtr::default(),
            done: AtomicU32::new(0),
            panic: Mutex::new(None),
            sleepers: (0..helpers).map(|_| Sleeper::default()).collect(),
            closing: AtomicBool::new(false),
        });
        let mut team = Self { shared, threads: Vec::new(), epoch: Mutex::new(0) };
        for index in 0..helpers {
            let shared = team.shared.clone();
            let run = move || {
                at_start();
                shared.help(index);
            };
            team.threads.push(thread::Builder::new().name(format!("elenchus-{}", index + 1)).spawn(run)?);
        }
        Ok(team)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work` once for each item, on all threads; returns when all are done. A panic in `work` is resumed here.
    pub fn each<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync) {
        if items.len() <= 1 || self.threads.is_empty() {
            return items.iter_mut().for_each(work);
        }
        // A piece has at most 2^16 - 1 parts.
        for items in items.chunks_mut(usize::from(u16::MAX)) {
            let first = AtomicPtr::new(items.as_mut_ptr());
            self.run(items.len(), |part| {
                // SAFETY: `part` is below the number of items, and each part is given out once, so this is the one
                // reference to its item; the slice is borrowed until `run` returns.
                work(unsafe { &mut *first.load(Ordering::Relaxed).add(part) });
            });
        }
    }

    fn run<F: Fn(usize) + Sync>(&self, parts: usize, work: F) {
        /// # Safety
        /// `closure` points to an `F`.
        unsafe fn call<F: Fn(usize)>(closure: *const (), part: usize) {
            // SAFETY: by contract.
            unsafe { (*closure.cast::<F>())(part) }
        }
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        *epoch = epoch.wrapping_add(1);
        let shared = &*self.shared;
        shared.closure.store((&raw const work).cast_mut().cast(), Ordering::Relaxed);
        shared.call.store(call::<F> as Call as *mut (), Ordering::Relaxed);
        shared.done.store(0, Ordering::Relaxed);
        let threads = shared.shares.len();
        for (thread, share) in shared.shares.iter().enumerate() {
            share.set(*epoch, parts * thread / threads..parts * (thread + 1) / threads);
        }
        for sleeper in &shared.sleepers {
            if sleeper.asleep.load(Ordering::SeqCst) {
                sleeper.wake();
            }
        }
        while shared.take_part(0) {}
        let mut looks = 0;
        // All parts are taken; the threads that took them are still working on them.
        while shared.done.load(Ordering::Acquire) < parts as u32 {
            looks += 1;
            if looks < LOOKS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        if let Some(panic) = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(epoch);
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// Takes and runs a part of the current piece; `false` if none is left.
    fn take_part(&self, thread: usize) -> bool {
        let others = self.shares[thread + 1..].iter().chain(&self.shares[..thread]);
        let Some(part) =
            self.shares[thread].take(true).or_else(|| others.into_iter().find_map(|share| share.take(false)))
        else {
            return false;
        };
        let (closure, call) = (self.closure.load(Ordering::Relaxed), self.call.load(Ordering::Relaxed));
        let work = || {
            // SAFETY: this part of the current piece was taken, so the piece is not done, and the thread that called
            // `run` waits there with the closure alive. The two words were stored before the share, which the exchange
            // in `take` has read.
            unsafe { mem::transmute::<*mut (), Call>(call)(closure, part) }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(panic);
            } else {
                // Not dropped: a value that panics when it is dropped would leave this part uncounted, and `run` would
                // wait for ever or, on its own thread, return before the others are done with the closure.
                mem::forget(panic);
            }
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    /// The main loop of a helper thread.
    fn help(&self, index: usize) {
        let sleeper = &self.sleepers[index];
        *sleeper.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        let mut looks = 0;
        while !self.closing.load(Ordering::SeqCst) {
            if self.take_part(index + 1) {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
                continue;
            }
            looks = 0;
            sleeper.asleep.store(true, Ordering::SeqCst);
            if self.shares.iter().all(Share::is_empty) && !self.closing.load(Ordering::SeqCst) {
                thread::park();
            }
            sleeper.asleep.store(false, Ordering::SeqCst);
        }
    }
}

impl Sleeper {
    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.sleepers.iter().for_each(Sleeper::wake);
        for thread in self.threads.drain(..) {
            // Only `at_start` can have panicked; all other calls of a helper are caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_item_is_worked_on_once_at_any_pace() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads, || {}).unwrap();
            assert_eq!(team.threads(), threads);
            for round in 0..2_000u64 {
                let mut items: Vec<u64> = (0..round % 37).collect();
                team.each(&mut items, |item| *item = *item * 3 + round);
                assert!(items.iter().enumerate().all(|(at, item)| *item == at as u64 * 3 + round));
                // Some rounds find all threads asleep.
                if round % 500 == 0 {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    #[test]
    fn more_items_than_a_piece_has_parts() {
        let mut items = vec![1u8; 200_000];
        Team::new(3, || {}).unwrap().each(&mut items, |item| *item += 1);
        assert!(items.iter().all(|item| *item == 2));
    }

    #[test]
    fn panics_that_panic_when_they_are_dropped_leave_no_part_uncounted() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("a bomb was dropped");
            }
        }
        let team = Team::new(3, || {}).unwrap();
        let panics = || team.each(&mut [0; 9], |_| std::panic::panic_any(Bomb));
        let panic = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert!(panic.is::<Bomb>());
        mem::forget(panic);
        let mut items = [0; 9];
        team.each(&mut items, |item| *item += 1);
        assert_eq!(items, [1; 9]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_continues() {
        let team = Team::new(2, || {}).unwrap();
        let panics = || team.each(&mut [1, 2, 3, 4], |item| assert!(*item != 3, "three"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let mut items = [1, 2, 3, 4];
        team.each(&mut items, |item| *item += 1);
        assert_eq!(items, [2, 3, 4, 5]);
    }
}
