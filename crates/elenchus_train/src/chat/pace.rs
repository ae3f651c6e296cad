//! When the next request may be sent, for all threads together; and the error after which none is sent.

use std::{
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use super::lock::lock;
use crate::Error;

/// Requests spread evenly: each one's place is an interval after the one before.
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
}

/// The error that ends a batch; it wakes all threads that wait.
#[derive(Default)]
pub(super) struct Stop {
    error: Mutex<Option<Error>>,
    told: Condvar,
}

impl Pace {
    pub(super) fn new(requests_per_minute: Option<u32>) -> Self {
        let interval = requests_per_minute.map_or(Duration::ZERO, |count| Duration::from_secs(60) / count.max(1));
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for this request's place; `false` if the batch was ended meanwhile.
    pub(super) fn wait(&self, stop: &Stop) -> bool {
        let now = Instant::now();
        let place = {
            let mut next = lock(&self.next);
            let place = (*next).max(now);
            *next = place + self.interval;
            place
        };
        stop.sleep(place - now)
    }

    /// No request is sent for so long: the server asked for it.
    pub(super) fn hold(&self, wait: Duration) {
        let mut next = lock(&self.next);
        *next = (*next).max(Instant::now() + wait);
    }
}

impl Stop {
    /// Ends the batch; the first reason counts.
    pub(super) fn tell(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.told.notify_all();
    }

    /// Sleeps for so long; `false` if the batch was ended meanwhile.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let waited = self.told.wait_timeout_while(lock(&self.error), time, |error| error.is_none());
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0.is_none()
    }

    pub(crate) fn into_error(self) -> Option<Error> {
        self.error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
