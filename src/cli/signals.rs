//! The signals that end a run early.
//!
//! The idea: a signal is a wish that the loop looks at after each row. Whoever asks twice from the keyboard, or
//! with SIGTERM, means at once; a closing terminal sends SIGHUP twice and does not.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// What the signals so far asked for.
pub struct Signals {
    /// Whether the run is to end.
    pub stop: Arc<AtomicBool>,
    /// The signal that said so last.
    which: Arc<AtomicUsize>,
}

impl Signals {
    /// Heeds SIGINT, SIGTERM and SIGHUP from now on; the last not if whoever started the program had it ignored,
    /// as `nohup` does. (A shell has its scripts' background jobs ignore SIGINT, to shield them from the
    /// keyboard; whoever sends it to such a job means it.) Other systems than Unix have no such signals.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn heed() -> Result<Signals> {
        let signals = Signals { stop: Arc::default(), which: Arc::default() };
        signals.register().map_err(Error::io(Path::new("signals"), "handle them"))?;
        Ok(signals)
    }

    #[cfg(unix)]
    fn register(&self) -> io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::flag;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && is_ignored(signal)? {
                continue;
            }
            // In this order: the second signal finds what the first one has set.
            if signal != SIGHUP {
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.stop))?;
            }
            flag::register_usize(signal, Arc::clone(&self.which), signal as usize)?;
            flag::register(signal, Arc::clone(&self.stop))?;
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn register(&self) -> io::Result<()> {
        Ok(())
    }

    /// The exit status of a run that was ended, as shells count it: 128 and the signal.
    pub fn status(&self) -> u8 {
        128 + self.which.load(Ordering::Relaxed) as u8
    }
}

/// Whether the process was started with a signal ignored.
#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the present one, to where there is room for one.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written the action.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}
