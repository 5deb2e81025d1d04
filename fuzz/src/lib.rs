//! What the fuzz targets share: the parsers of the smoke test (`crates/vault/tests/engine/smoke.rs`), by name,
//! and the one of request signatures.

use std::cell::RefCell;

#[path = "../../crates/vault/tests/engine/parsers.rs"]
mod parsers;
// By its file: the crate around it would bring the whole HTTP stack.
#[path = "../../crates/api/src/signature.rs"]
mod signature;

thread_local! {
    static FIXTURE: RefCell<Option<parsers::Fixture>> = const { RefCell::new(None) };
}

/// Hands bytes to the parser of this name.
///
/// # Panics
/// When there is no such parser, and when the parser has a bug.
pub fn feed(name: &str, bytes: &[u8]) {
    FIXTURE.with_borrow_mut(|fixture| {
        let fixture = fixture.get_or_insert_with(parsers::Fixture::of_a_hostile_member);
        let parser = parsers::ALL.iter().find(|parser| parser.name == name).expect("a known name");
        (parser.feed)(fixture, bytes);
    });
}

/// The headers of a signed request.
pub fn signature_headers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = signature::parse_signature(text);
    if let Ok(params) = signature::SignatureParams::parse(text) {
        let _ = signature::signature_base("GET", "http://localhost/", "sha-256=:x:", &params);
    }
    let _ = text.parse::<domain::Timestamp>();
}
