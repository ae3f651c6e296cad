//! A few threads that take parts of one piece of work after the other.
//!
//! A step of the model is many pieces of microseconds each, so a thread without work looks for more for a moment before
//! it sleeps; between replies everybody sleeps. Parts are taken one by one from a counter: a thread that the game's frame
//! has pushed off its core holds up the part it has, not its whole share.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

/// How often a thread looks for work before it sleeps: longer than the steps of a pass are apart, shorter than a frame.
const LOOKS: u32 = 2_000;

/// Threads that work on behalf of the one that asks; that one works too. Work must not ask its own team: it would wait
/// for itself.
pub(crate) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Which piece of work this is; one at a time.
    epoch: Mutex<u32>,
}

struct Shared {
    /// Of the present piece: its number (32 bits), its parts (16), and how many were taken (16).
    state: AtomicU64,
    /// The present piece: a closure, and the function that calls it with a part's number.
    closure: AtomicPtr<()>,
    call: AtomicPtr<()>,
    done: AtomicU32,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Vec<Sleeper>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

type Call = unsafe fn(*const (), usize);

fn pack(epoch: u32, parts: u16, taken: u16) -> u64 {
    u64::from(epoch) << 32 | u64::from(parts) << 16 | u64::from(taken)
}

fn unpack(state: u64) -> (u32, u16, u16) {
    ((state >> 32) as u32, (state >> 16) as u16, state as u16)
}

impl Team {
    /// A team of `threads`, the caller's included; each of the others calls `at_start` first.
    pub fn new(threads: usize, at_start: fn()) -> std::io::Result<Self> {
        let helpers = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
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

    /// Calls `work` once for each item, on all threads; returns when all are done. A panic in `work` goes on here.
    pub fn each<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync) {
        if items.len() <= 1 || self.threads.is_empty() {
            return items.iter_mut().for_each(work);
        }
        // A piece has at most 2^16 - 1 parts.
        for items in items.chunks_mut(usize::from(u16::MAX)) {
            let first = AtomicPtr::new(items.as_mut_ptr());
            self.run(items.len() as u16, |part| {
                // SAFETY: `part` is below the number of items, and each part is given out once, so this is the one
                // reference to its item; the slice is borrowed until `run` returns.
                work(unsafe { &mut *first.load(Ordering::Relaxed).add(part) });
            });
        }
    }

    fn run<F: Fn(usize) + Sync>(&self, parts: u16, work: F) {
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
        // Sequentially consistent against `asleep`: either the sleeper sees this piece, or this thread sees the sleeper.
        shared.state.store(pack(*epoch, parts, 0), Ordering::SeqCst);
        for sleeper in &shared.sleepers {
            if sleeper.asleep.load(Ordering::SeqCst) {
                sleeper.wake();
            }
        }
        while shared.take_part() {}
        let mut looks = 0;
        // All parts are taken; those who took them are at work on them.
        while shared.done.load(Ordering::Acquire) < u32::from(parts) {
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
    /// Takes and does a part of the present piece; `false` where none is left.
    fn take_part(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        let part = loop {
            let (epoch, parts, taken) = unpack(state);
            if taken >= parts {
                return false;
            }
            let next = pack(epoch, parts, taken + 1);
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break taken,
                Err(newer) => state = newer,
            }
        };
        let (closure, call) = (self.closure.load(Ordering::Relaxed), self.call.load(Ordering::Relaxed));
        let work = || {
            // SAFETY: this part of the present piece was taken, so the piece is not done, and the thread that asked for
            // it waits in `run` with the closure alive. The two words were stored before the piece's number, which the
            // exchange above has read.
            unsafe { mem::transmute::<*mut (), Call>(call)(closure, usize::from(part)) }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(panic);
            } else {
                // Not dropped: a value that panics when it is dropped would leave this part uncounted, and `run` would
                // wait for ever or, on its own thread, leave before the others are done with the closure.
                mem::forget(panic);
            }
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    /// The life of a helper.
    fn help(&self, index: usize) {
        let sleeper = &self.sleepers[index];
        *sleeper.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        let mut looks = 0;
        while !self.closing.load(Ordering::SeqCst) {
            if self.take_part() {
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
            let (_, parts, taken) = unpack(self.state.load(Ordering::SeqCst));
            if taken >= parts && !self.closing.load(Ordering::SeqCst) {
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
            // Only `at_start` can have panicked; what else a helper calls is caught.
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
                // Some rounds find everybody asleep.
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
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(2, || {}).unwrap();
        let panics = || team.each(&mut [1, 2, 3, 4], |item| assert!(*item != 3, "three"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let mut items = [1, 2, 3, 4];
        team.each(&mut items, |item| *item += 1);
        assert_eq!(items, [2, 3, 4, 5]);
    }
}
