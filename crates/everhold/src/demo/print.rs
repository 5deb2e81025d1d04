//! How steps look: a numbered name, what happened, and indented facts. Colours only on a terminal.

use std::{cell::Cell, io::IsTerminal as _, time::Duration};

use super::platform::Dev;

/// Prints numbered steps.
pub struct Printer {
    colours: bool,
    step: Cell<u32>,
}

impl Printer {
    pub fn new() -> Self {
        let colours =
            std::io::stdout().is_terminal() && process::config::variable("NO_COLOR").is_none();
        let printer = Self { colours, step: Cell::new(0) };
        printer.line(&printer.bold("Everhold: from nothing to a restored backup"));
        printer
    }
    pub fn step(&self, name: &str, text: &str) {
        self.step.set(self.step.get() + 1);
        println!("{:>3}  {}  {text}", self.step.get(), self.bold(&format!("{name:<14}")));
    }
    pub fn more(&self, text: &str) {
        println!("{:21}{text}", "");
    }
    pub fn line(&self, text: &str) {
        println!("{text}");
    }
    /// Where to go and how to sign in.
    pub fn signs(&self, dev: &Dev) {
        println!();
        self.line(&format!("The portal is at {}", self.bold(&dev.portal_url)));
        self.line(&format!("  tenant    {}  {}", dev.tenant.email, dev.tenant.password));
        self.line(&format!("  MSP       {}  {}", dev.msp.email, dev.msp.password));
        self.line(&format!("  platform  {}  {}", dev.admin.email, dev.admin.password));
        self.line("Ctrl-C stops everything this started; a second start finds the data again.");
    }
    fn bold(&self, text: &str) -> String {
        if self.colours { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// `1.2 s`, `350 ms`.
pub fn seconds(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", duration.as_secs_f64()) }
}

/// `12 345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `3.4 MiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = number;
    while whole >= 10_240 && unit + 1 < UNITS.len() {
        whole /= 1_024;
        unit += 1;
    }
    format!("{} {}", count(whole), UNITS[unit])
}

/// `1 file`, `2 files`.
pub fn plural(number: usize, word: &str) -> String {
    format!("{} {word}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

/// A value for a query string.
pub fn query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(10_239), "10\u{202f}239 B");
        assert_eq!(bytes(3 << 30), "3\u{202f}072 MiB");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(query("/a b/ü"), "/a%20b/%C3%BC");
        assert_eq!(plural(1, "file"), "1 file");
    }
}
