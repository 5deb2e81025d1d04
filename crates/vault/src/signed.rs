//! Signed objects: a payload and an Ed25519 signature over a domain and the payload's exact bytes.
//!
//! Owns the envelope `{1: payload, 2: signature}`. Invariant: a payload is only looked at as bytes until its
//! signature was checked strictly, and a signature for one kind of object is none for another.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::cbor::{CborError, Fields, MapWriter, Reader};

/// Largest signed object anyone has to read: a manifest of a vault with some 100 000 packs.
pub const MAX_SIGNED_BYTES: usize = 64 << 20;

fn message(domain: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(domain.len() + 1 + payload.len());
    message.extend_from_slice(domain.as_bytes());
    message.push(0);
    message.extend_from_slice(payload);
    message
}

/// Payload and signature, not verified yet.
#[derive(Clone)]
pub(crate) struct Envelope {
    pub payload: Vec<u8>,
    pub signature: [u8; 64],
}

impl Envelope {
    pub(crate) fn sign(domain: &str, payload: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(&message(domain, &payload)).to_bytes();
        Self { payload, signature }
    }
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).bytes(&self.payload);
        map.field(2).bytes(&self.signature);
        map.finish()
    }
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(CborError::OutOfBounds);
        }
        let mut reader = Reader::new(bytes);
        let mut fields = Fields::enter(&mut reader)?;
        fields.required(&mut reader, 1)?;
        let payload = reader.bytes()?.to_vec();
        fields.required(&mut reader, 2)?;
        let signature = reader.array_of()?;
        fields.end(&mut reader)?;
        reader.end()?;
        Ok(Self { payload, signature })
    }
    /// Strict: no small-order keys, no malleable signatures.
    pub(crate) fn verify(&self, domain: &str, key: &[u8; 32]) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(&message(domain, &self.payload), &signature).is_ok())
    }
}
