//! A team of threads that walk through the same schedule side by side.
//!
//! The idea: generation has some 33,000 dependent stages for each image, each a few microseconds long,
//! so threads are started once for a batch and wait at a barrier after each stage. The barrier spins
//! for a bounded time, since the others are nearly always about to arrive, and then sleeps. When several waits in a
//! row outlast the spin (another process holds a core), threads spin less for the next 200 barriers: a thread that
//! sleeps gets its core back sooner than one that has spent its time on spinning. It never yields: that would give
//! a core away for as long as the other process likes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Condvar, Mutex};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Turns of the spin loop before a waiting thread sleeps, some tens of microseconds.
const PATIENCE: usize = 1000;
/// A sleep longer than this, longer than any stage, means that another process has had the core.
const IN_VAIN: Duration = Duration::from_millis(1);
/// This many waits in a row that outlasted the full spin mean it too, however short the sleeps were: where threads
/// share a core, the last one arrives as soon as the others sleep. On cores of their own a wait outlasts the spin
/// now and then, seldom twice in a row.
const SLEPT_IN_A_ROW: usize = 4;
/// Turns of the spin loop after such a wait.
const IMPATIENCE: usize = 250;
/// For how many waits it lasts: some milliseconds.
const IMPATIENT_WAITS: usize = 200;

/// A barrier for a fixed number of threads.
pub struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    epoch: AtomicUsize,
    broken: AtomicBool,
    /// Waits for which threads are still impatient.
    impatient: AtomicUsize,
    /// Waits in a row that outlasted the full spin.
    slept: AtomicUsize,
    sleepers: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
}

impl Barrier {
    fn new(threads: usize) -> Barrier {
        Barrier {
            threads,
            arrived: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            impatient: AtomicUsize::new(0),
            slept: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            door: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let epoch = self.epoch.load(Relaxed);
        // AcqRel: the last to arrive has seen what all others wrote before they arrived.
        if self.arrived.fetch_add(1, AcqRel) + 1 == self.threads {
            self.arrived.store(0, Relaxed);
            // SeqCst pairs with the sleepers' count: either this thread sees the sleeper, or the
            // sleeper sees the new epoch before it sleeps.
            self.epoch.store(epoch.wrapping_add(1), SeqCst);
            self.ring();
        } else {
            self.wait_beyond(epoch);
        }
        if self.broken.load(Relaxed) {
            panic!("another thread of the team panicked");
        }
    }

    fn passed(&self, epoch: usize) -> bool {
        self.epoch.load(Acquire) != epoch || self.broken.load(Relaxed)
    }

    fn wait_beyond(&self, epoch: usize) {
        // Only a rule of thumb: that threads may overwrite each other's counts does no harm.
        let impatient = self.impatient.load(Relaxed);
        let spins = if impatient > 0 { IMPATIENCE } else { PATIENCE };
        for _ in 0..spins {
            if self.passed(epoch) {
                if impatient > 0 {
                    self.impatient.store(impatient - 1, Relaxed);
                } else if self.slept.load(Relaxed) > 0 {
                    self.slept.store(0, Relaxed);
                }
                return;
            }
            std::hint::spin_loop();
        }
        let asleep = Instant::now();
        self.sleepers.fetch_add(1, SeqCst);
        let mut door = self.door.lock().unwrap_or_else(|e| e.into_inner());
        while self.epoch.load(SeqCst) == epoch && !self.broken.load(SeqCst) {
            door = self.bell.wait(door).unwrap_or_else(|e| e.into_inner());
        }
        drop(door);
        self.sleepers.fetch_sub(1, SeqCst);
        let slept = if impatient == 0 { self.slept.load(Relaxed) + 1 } else { 0 };
        let in_vain = slept == SLEPT_IN_A_ROW || asleep.elapsed() > IN_VAIN;
        self.slept.store(if in_vain { 0 } else { slept }, Relaxed);
        self.impatient.store(if in_vain { IMPATIENT_WAITS } else { impatient.saturating_sub(1) }, Relaxed);
    }

    fn ring(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            let _door = self.door.lock().unwrap_or_else(|e| e.into_inner());
            self.bell.notify_all();
        }
    }
}

/// How far a thread has come, for others that follow it.
#[derive(Default)]
pub struct Progress(AtomicUsize);

impl Progress {
    /// Tells that the thread has come so far. What it wrote before is visible to those that wait for that.
    pub fn reach(&self, place: usize) {
        self.0.store(place, Release);
    }
}

/// One thread of a team.
#[derive(Clone, Copy)]
pub struct Thread<'a> {
    /// Which one, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    barrier: &'a Barrier,
    panicked: &'a AtomicBool,
}

impl Thread<'_> {
    /// Waits until every thread of the team has come here. What any of them wrote before is then
    /// visible to all.
    pub fn barrier(&self) {
        self.barrier.wait();
    }

    /// Waits until another thread of the team has come so far.
    ///
    /// # Panics
    /// If a thread has panicked.
    pub fn follow(&self, progress: &Progress, place: usize) {
        let mut turns = 0;
        while progress.0.load(Acquire) < place {
            assert!(!self.abandoned(), "another thread of the team panicked");
            turns += 1;
            match turns < PATIENCE {
                true => std::hint::spin_loop(),
                // It may be that the other one is waiting for this core.
                false => std::thread::yield_now(),
            }
        }
    }

    /// The same thread as a team of its own.
    pub fn alone(&self) -> Self {
        Thread { index: 0, count: 1, ..*self }
    }

    /// Whether a thread of any team has panicked, so that nobody will see what the others make. The own
    /// team ends at its next barrier; other teams ask.
    pub fn abandoned(&self) -> bool {
        self.panicked.load(Relaxed)
    }

    /// This thread's share of `items`: consecutive, and as even as can be.
    pub fn share(&self, items: usize) -> std::ops::Range<usize> {
        share(items, self.index, self.count)
    }
}

/// Part `index` of `count` of the range `0..items`.
pub fn share(items: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    items * index / count..items * (index + 1) / count
}

/// Breaks the barrier if its thread unwinds, so that the team does not wait for ever, and tells the other
/// teams.
struct Guard<'a> {
    barrier: &'a Barrier,
    panicked: &'a AtomicBool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.panicked.store(true, Relaxed);
            self.barrier.broken.store(true, SeqCst);
            let _door = self.barrier.door.lock().unwrap_or_else(|e| e.into_inner());
            self.barrier.bell.notify_all();
        }
    }
}

/// Where started threads wait until it is known whether all of them could be started.
#[derive(Default)]
struct Gate {
    open: Mutex<Option<bool>>,
    bell: Condvar,
}

impl Gate {
    fn set(&self, go: bool) {
        *self.open.lock().unwrap_or_else(|e| e.into_inner()) = Some(go);
        self.bell.notify_all();
    }

    /// Whether to go on.
    fn pass(&self) -> bool {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            match *open {
                Some(go) => return go,
                None => open = self.bell.wait(open).unwrap_or_else(|e| e.into_inner()),
            }
        }
    }
}

/// Runs `work(team, thread)` on every thread of several teams at once, and waits for all. The calling
/// thread is thread 0 of team 0. A panic of any of them goes on here when all have ended.
///
/// # Errors
/// [`Error::Threads`] if the system will not start that many; then `work` has not run at all.
pub fn run(sizes: &[usize], work: impl Fn(usize, Thread) + Sync) -> Result<()> {
    run_with(sizes, work, |builder, scope, body| builder.spawn_scoped(scope, body).map(drop))
}

type Body<'a> = Box<dyn FnOnce() + Send + 'a>;

/// [`run`] with a way to start threads, which a test makes fail.
fn run_with(
    sizes: &[usize],
    work: impl Fn(usize, Thread) + Sync,
    start: impl for<'s, 'e> Fn(Builder, &'s Scope<'s, 'e>, Body<'s>) -> std::io::Result<()>,
) -> Result<()> {
    let barriers: Vec<Barrier> = sizes.iter().map(|&n| Barrier::new(n)).collect();
    let (gate, panicked) = (Gate::default(), AtomicBool::new(false));
    let body = |team: usize, index: usize| {
        if gate.pass() {
            let (barrier, panicked) = (&barriers[team], &panicked);
            let _guard = Guard { barrier, panicked };
            work(team, Thread { index, count: barrier.threads, barrier, panicked });
        }
    };
    let body = &body;
    std::thread::scope(|scope| {
        for (team, &size) in sizes.iter().enumerate() {
            for index in usize::from(team == 0)..size {
                let started = start(Builder::new(), scope, Box::new(move || body(team, index)));
                if let Err(source) = started {
                    gate.set(false);
                    return Err(Error::Threads { threads: sizes.iter().sum(), source });
                }
            }
        }
        gate.set(true);
        body(0, 0);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_orders_writes_for_any_number_of_threads() {
        for threads in [1, 2, 3, 5] {
            let cells: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            run(&[threads], |_, thread| {
                for round in 1..=300 {
                    cells[thread.index].store(round, Relaxed);
                    thread.barrier();
                    assert!(cells.iter().all(|c| c.load(Relaxed) == round));
                    thread.barrier();
                }
            })
            .expect("threads start");
        }
    }

    #[test]
    fn a_sleeping_thread_is_woken() {
        run(&[2], |_, thread| {
            for _ in 0..3 {
                if thread.index == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(30));
                }
                thread.barrier();
            }
        })
        .expect("threads start");
    }

    #[test]
    fn waits_that_slept_in_a_row_make_impatient() {
        let woken = AtomicUsize::new(0);
        run(&[2], |_, thread| {
            for wait in 1..=SLEPT_IN_A_ROW {
                if thread.index == 0 {
                    // Until the other sleeps, and no longer.
                    while woken.load(SeqCst) < wait - 1 || thread.barrier.sleepers.load(SeqCst) == 0 {
                        std::thread::yield_now();
                    }
                }
                thread.barrier();
                if thread.index == 1 {
                    woken.fetch_add(1, SeqCst);
                }
            }
            if thread.index == 1 {
                assert_ne!(thread.barrier.impatient.load(Relaxed), 0);
            }
        })
        .expect("threads start");
    }

    #[test]
    fn a_panic_ends_the_whole_team() {
        let result = std::panic::catch_unwind(|| {
            run(&[3], |_, thread| {
                assert!(thread.index != 1, "planted");
                thread.barrier();
            })
        });
        assert!(result.is_err());
    }

    #[test]
    fn a_panic_is_told_to_the_other_teams() {
        let told = AtomicUsize::new(0);
        let result = std::panic::catch_unwind(|| {
            run(&[2, 1, 2], |team, thread| {
                assert!(team != 1, "planted");
                let start = Instant::now();
                while !thread.abandoned() && start.elapsed() < Duration::from_secs(60) {
                    std::thread::yield_now();
                }
                // These teams are whole: they can still pass their barriers, and end in their own time.
                thread.barrier();
                told.fetch_add(usize::from(thread.abandoned()), Relaxed);
            })
        });
        assert!(result.is_err());
        assert_eq!(told.into_inner(), 4);
    }

    #[test]
    fn a_thread_that_cannot_be_started_ends_all_before_they_begin() {
        let started = AtomicUsize::new(0);
        let refused = run_with(
            &[2, 3],
            |_, _| panic!("must not run"),
            |builder, scope, body| match started.fetch_add(1, SeqCst) {
                2 => Err(std::io::ErrorKind::WouldBlock.into()),
                _ => builder.spawn_scoped(scope, body).map(drop),
            },
        );
        assert!(refused.unwrap_err().to_string().starts_with("cannot start 5 threads: "));
    }

    #[test]
    fn shares_cover_everything_once() {
        for (items, count) in [(0, 3), (1, 2), (10, 2), (7, 3), (3, 5)] {
            let all: Vec<usize> = (0..count).flat_map(|i| share(items, i, count)).collect();
            assert_eq!(all, (0..items).collect::<Vec<_>>());
        }
    }
}
