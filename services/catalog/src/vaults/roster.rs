//! Whose signature a roster claims, before it is verified. Pure.
//!
//! The engine believes a roster only under a key the caller names. For a kit's roster the platform learns that
//! key here, from the first roster of a vault, and from then on only that vault's agents depend on it.

use vault::{
    cbor::{CborError, Fields, Reader},
    keys::RosterAuthority,
};

/// The authority named inside a roster's payload.
pub fn claimed_authority(raw: &[u8]) -> Option<RosterAuthority> {
    read(raw).ok().flatten()
}

fn read(raw: &[u8]) -> Result<Option<RosterAuthority>, CborError> {
    let mut outer = Reader::new(raw);
    let mut fields = Fields::enter(&mut outer)?;
    fields.required(&mut outer, 1)?;
    let payload = outer.bytes()?;
    let mut reader = Reader::new(payload);
    let r = &mut reader;
    let mut fields = Fields::enter(r)?;
    fields.required(r, 1)?;
    r.u64()?;
    for key in [2, 3] {
        fields.required(r, key)?;
        r.bytes()?;
    }
    fields.required(r, 4)?;
    r.u64()?;
    fields.required(r, 5)?;
    r.bytes()?;
    fields.required(r, 6)?;
    for _ in 0..r.array()? {
        for _ in 0..r.array()? {
            r.bytes()?;
        }
    }
    fields.required(r, 7)?;
    let code = r.u8()?;
    fields.required(r, 8)?;
    let key = r.array_of()?;
    Ok(match code {
        1 => Some(RosterAuthority::Kit(key)),
        2 => Some(RosterAuthority::Platform(key)),
        _ => None,
    })
}
