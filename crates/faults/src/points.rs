//! Fault points: one call before every change of state outside the process's memory.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
    time::Duration,
};

#[cfg(feature = "points")]
use std::sync::{Arc, PoisonError, RwLock};

/// What becomes of a change of state.
#[cfg(feature = "points")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It happens.
    Pass,
    /// It does not happen, and this is the error's number.
    Fail(i32),
    /// Of a write the first half happens, of anything else nothing.
    Tear,
    /// It happens after this many milliseconds.
    Delay(u64),
}

/// Asked by name at every point.
#[cfg(feature = "points")]
pub type Judge = Arc<dyn Fn(&'static str) -> Verdict + Send + Sync>;

#[cfg(feature = "points")]
static JUDGE: RwLock<Option<Judge>> = RwLock::new(None);

/// From now on `judge` decides, for the whole process.
#[cfg(feature = "points")]
pub fn watch(judge: Judge) {
    *JUDGE.write().unwrap_or_else(PoisonError::into_inner) = Some(judge);
}

#[cfg(feature = "points")]
fn verdict(name: &'static str) -> Verdict {
    let judge = JUDGE.read().unwrap_or_else(PoisonError::into_inner).clone();
    let verdict = judge.map_or(Verdict::Pass, |judge| judge(name));
    if let Verdict::Delay(ms) = verdict {
        std::thread::sleep(Duration::from_millis(ms));
    }
    verdict
}

/// What a torn operation ends with.
#[cfg(feature = "points")]
const EIO: i32 = 5;

/// Before a change of state of this name.
///
/// # Errors
/// What a test decided; never without the feature `points`.
#[cfg(feature = "points")]
pub fn point(name: &'static str) -> io::Result<()> {
    match verdict(name) {
        Verdict::Pass | Verdict::Delay(_) => Ok(()),
        Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
        Verdict::Tear => Err(io::Error::from_raw_os_error(EIO)),
    }
}

/// Before a change of state of this name.
///
/// # Errors
/// What a test decided; never without the feature `points`.
#[cfg(not(feature = "points"))]
#[inline]
pub const fn point(_: &'static str) -> io::Result<()> {
    Ok(())
}

/// Writes all of `bytes`, as a change of state of this name.
///
/// # Errors
/// What the system says, or a test decided.
#[inline]
pub fn write_all(name: &'static str, file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_pieces(name, file, std::iter::once(bytes))
}

/// The same with bytes in pieces: all of it is one change of state.
///
/// # Errors
/// What the system says, or a test decided.
pub fn write_pieces<'a>(
    name: &'static str,
    file: &mut impl Write,
    mut pieces: impl Iterator<Item = &'a [u8]> + Clone,
) -> io::Result<()> {
    #[cfg(feature = "points")]
    match verdict(name) {
        Verdict::Pass | Verdict::Delay(_) => {}
        Verdict::Fail(errno) => return Err(io::Error::from_raw_os_error(errno)),
        Verdict::Tear => {
            let mut left = pieces.clone().map(<[u8]>::len).sum::<usize>() / 2;
            for piece in pieces {
                let half = &piece[..piece.len().min(left)];
                file.write_all(half)?;
                left -= half.len();
            }
            return Err(io::Error::from_raw_os_error(EIO));
        }
    }
    let _ = name;
    pieces.try_for_each(|piece| file.write_all(piece))
}

/// Writes all of `bytes` at an offset, as a change of state of this name.
///
/// # Errors
/// What the system says, or a test decided.
#[inline]
pub fn write_all_at(name: &'static str, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(feature = "points")]
    match verdict(name) {
        Verdict::Pass | Verdict::Delay(_) => {}
        Verdict::Fail(errno) => return Err(io::Error::from_raw_os_error(errno)),
        Verdict::Tear => {
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::from_raw_os_error(EIO));
        }
    }
    let _ = name;
    file.write_all_at(bytes, offset)
}

/// A pause between tries; a thousandth of it where faults are enumerated.
#[inline]
#[must_use]
pub const fn hurry(pause: Duration) -> Duration {
    if cfg!(feature = "points") { scaled(pause, 1_000) } else { pause }
}

/// How often something is made safe: as usual, or at every opportunity where a test asked for that.
#[cfg(feature = "points")]
#[must_use]
pub fn every(usual: Duration) -> Duration {
    if EAGER.load(std::sync::atomic::Ordering::Relaxed) { Duration::ZERO } else { usual }
}

/// How often something is made safe: as usual.
#[cfg(not(feature = "points"))]
#[inline]
#[must_use]
pub const fn every(usual: Duration) -> Duration {
    usual
}

/// From now on everything is made safe at every opportunity, or as usual again; for the whole process.
#[cfg(feature = "points")]
pub fn make_eager(eager: bool) {
    EAGER.store(eager, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "points")]
static EAGER: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// A bound on waiting for somebody else; a thirtieth of it where faults are enumerated.
#[inline]
#[must_use]
pub const fn sooner(bound: Duration) -> Duration {
    if cfg!(feature = "points") { scaled(bound, 30) } else { bound }
}

const fn scaled(duration: Duration, by: u64) -> Duration {
    #[expect(clippy::cast_possible_truncation, reason = "pauses are below a day")]
    Duration::from_nanos(duration.as_nanos() as u64 / by)
}
