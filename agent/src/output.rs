//! What people and programs see: results on stdout, everything else on stderr.
//!
//! On a terminal a progress bar runs on stderr; otherwise there are quiet lines. With `--json` stdout
//! holds JSON only, one object per line, and nothing that is not a result. Names from snapshots and
//! folders are shown with control characters escaped: a file name must not drive the terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How a command ended, as exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Good,
    Failed,
    Usage,
    /// Done, with exceptions that were listed.
    Exceptions,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Exceptions => 3,
        }
    }
    /// Good, unless there is something to confess.
    pub const fn with_exceptions(count: usize) -> Self {
        if count == 0 { Self::Good } else { Self::Exceptions }
    }
}

/// Where results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

/// The voice of a command.
#[derive(Debug, Clone)]
pub struct Output {
    pub format: Format,
}

impl Output {
    /// One result object; a closed pipe is no error of ours.
    pub fn json(&self, value: &impl Serialize) {
        if let Ok(mut line) = serde_json::to_vec(value) {
            line.push(b'\n');
            let _ = io::stdout().lock().write_all(&line);
        }
    }
    /// A line of a result for people.
    pub fn line(&self, text: impl Display) {
        if self.format == Format::Human {
            let _ = writeln!(io::stdout().lock(), "{text}");
        }
    }
    /// Something worth knowing that is no result.
    pub fn note(&self, text: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
    pub const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// A bar that shows itself on a terminal and stays silent elsewhere.
    pub fn progress(&self, total_bytes: Option<u64>) -> Progress {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        let template = match total_bytes {
            Some(_) => "{spinner} [{elapsed_precise}] {bar:30} {bytes}/{total_bytes} {msg}",
            None => "{spinner} [{elapsed_precise}] {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }
}

/// A progress bar, gone when dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn message(&self, text: String) {
        self.0.set_message(text);
    }
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
    /// Prints a line without tearing the bar.
    pub fn note(&self, text: impl Display) {
        self.0.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// `1.5 GiB`.
pub fn bytes(count: u64) -> impl Display {
    HumanBytes(count)
}

/// A name for a terminal: control characters and direction overrides are shown, not obeyed.
pub fn plain(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(plain("Grüße/файл"), "Grüße/файл");
    }
}
