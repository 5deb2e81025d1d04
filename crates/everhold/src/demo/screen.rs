//! How the main job looks: numbered steps with figures, colours on a terminal only (and not with NO_COLOR).

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use tokio::time::Instant;

/// Where steps are printed.
pub struct Screen {
    colours: bool,
    step: u32,
    started: Instant,
}

impl Screen {
    pub fn new() -> Self {
        let wanted = process::config::variable("NO_COLOR").is_none();
        Self {
            colours: wanted && std::io::stdout().is_terminal(),
            step: 0,
            started: Instant::now(),
        }
    }

    pub fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    /// Begins the next step.
    pub fn step(&mut self, text: impl Display) {
        self.step += 1;
        let number = format!("{:>2}", self.step);
        println!("\n{}  {}", self.paint("1;36", &number), self.paint("1", &text.to_string()));
        self.started = Instant::now();
    }

    /// A finding of the step.
    pub fn say(&self, text: impl Display) {
        println!("    {text}");
        // A reader on the other side of a pipe follows along.
        let _ = std::io::stdout().flush();
    }

    /// The step went well.
    pub fn done(&self, text: impl Display) {
        let took = format!("({})", duration(self.started.elapsed()));
        println!("    {} {text} {}", self.paint("32", "✓"), self.paint("2", &took));
        let _ = std::io::stdout().flush();
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// `1.2 s`, `350 ms`.
pub fn duration(took: Duration) -> String {
    let ms = took.as_millis();
    if ms < 1_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) }
}

/// `12 345 678` bytes as people read them: `11.7 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut tenths = count.saturating_mul(10) / 1_024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `12 345`.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(5 * 1_073_741_824), "5.0 GiB");
        assert_eq!(number(1_234_567), "1 234 567");
        assert_eq!(number(12), "12");
        assert_eq!(duration(Duration::from_millis(1_250)), "1.2 s");
    }
}
