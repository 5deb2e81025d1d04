//! What people may type as a name, an address or a note.
//!
//! Invariant: nothing with control characters or invisible direction marks gets in, so that a list shown to
//! a person cannot lie about what it lists. Pure.

use crate::problem::Problem;

/// Longest name or label, in characters.
pub const MAX_CHARS: usize = 200;

/// A name of 1 to 200 characters, trimmed.
///
/// # Errors
/// A validation problem for `field`.
pub fn name(field: &str, text: &str) -> Result<String, Problem> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(Problem::validation(field, "must not be empty"));
    }
    note(field, trimmed)
}

/// Like [`name`], but may be empty.
///
/// # Errors
/// A validation problem for `field`.
pub fn note(field: &str, text: &str) -> Result<String, Problem> {
    let trimmed = text.trim();
    if trimmed.chars().count() > MAX_CHARS {
        return Err(Problem::validation(field, format!("at most {MAX_CHARS} characters")));
    }
    if trimmed.chars().any(is_unseen) {
        return Err(Problem::validation(
            field,
            "no control characters, line breaks or invisible direction marks",
        ));
    }
    Ok(trimmed.to_owned())
}

/// Control characters, bidirectional overrides and isolates, zero-width marks, the byte order mark.
const fn is_unseen(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// What two names must differ in to be different.
pub fn key(name: &str) -> String {
    name.to_lowercase()
}

/// An address as typed (trimmed). Checked for shape only; whether it receives mail is not known here.
///
/// # Errors
/// A validation problem for `field`.
pub fn email(field: &str, text: &str) -> Result<String, Problem> {
    let trimmed = text.trim();
    if is_email(trimmed) {
        Ok(trimmed.to_owned())
    } else {
        Err(Problem::validation(field, "an address like name@example.com, at most 254 characters"))
    }
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let plain_local = !local.is_empty()
        && local.len() <= 64
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b));
    let plain_domain = domain.contains('.')
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    text.len() <= 254 && plain_local && plain_domain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_for_shape() {
        for good in ["a@b.example", "lena.hartmann+x@praxis.example", "A@B-C.Example"] {
            assert!(email("email", good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "a",
            "a@",
            "@b.example",
            "a@b",
            "a b@c.example",
            "a@b..example",
            "a@-b.example",
            ".a@b.example",
            "a@b@c.example",
            "a\n@b.example",
            "a@b.example\0",
            "ä@b.example",
            &long,
        ] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_with_unseen_characters_are_refused() {
        for good in ["Praxis Dr. Müller", "東京 支社", "<script>", "O'Neill & Sons", " padded "]
        {
            assert!(name("name", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "   ",
            "a\nb",
            "a\0b",
            "a\u{202e}b",
            "a\u{200b}b",
            "\u{feff}a",
            "a\u{7f}",
            &"x".repeat(201),
        ] {
            assert!(name("name", bad).is_err(), "{bad:?}");
        }
    }
}
