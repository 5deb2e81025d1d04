//! Sealing: the one place where keys meet bytes.
//!
//! Owns key derivation, AES-256-GCM and the nonce discipline. Invariant: a pack key seals one pack, and a
//! nonce is the number of a frame handed out by [`FrameCounter`], which cannot be cloned, reset or built
//! from a number; so no nonce is used twice under a key. Commitments are compared in constant time.

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut as _};
use hkdf::Hkdf;
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes an authentication tag adds.
pub const TAG_LEN: usize = 16;

/// The bytes do not authenticate: wrong key, wrong place, or changed. Never use any part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct OpenError;

/// HKDF-SHA-512 with an empty salt: one 32-byte key for `label` out of a uniformly random secret.
pub fn derive_key(secret: &[u8; 32], label: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    expand(&[], secret, label.as_bytes(), key.as_mut_slice());
    key
}

fn expand(salt: &[u8], secret: &[u8; 32], info: &[u8], out: &mut [u8]) {
    let hkdf = Hkdf::<Sha512>::new(Some(salt), secret);
    #[expect(
        clippy::expect_used,
        reason = "HKDF-SHA-512 gives up to 16 320 bytes; callers want 96"
    )]
    hkdf.expand(info, out).expect("length within HKDF's limit");
}

/// Which use of a pack's keys a nonce belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Frames,
    Directory,
}

/// The keys of one pack.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PackKeys {
    frames: [u8; 32],
    directory: [u8; 32],
    commitment: [u8; 32],
}

impl PackKeys {
    /// Derives a pack's keys from the vault's epoch key, the pack's fresh salt and its context (the bytes of
    /// the header that say suite, kind, tenant, vault, epoch, agent, session and sequence number).
    pub fn derive(epoch_key: &[u8; 32], salt: &[u8; 32], context: &[u8]) -> Self {
        let mut info = Vec::with_capacity(context.len() + 17);
        info.extend_from_slice(b"everhold/pack/v1\0");
        info.extend_from_slice(context);
        let mut okm = Zeroizing::new([0_u8; 96]);
        expand(salt, epoch_key, &info, okm.as_mut_slice());
        let part = |at: usize| {
            let mut key = [0; 32];
            key.copy_from_slice(&okm[at..at + 32]);
            key
        };
        Self { frames: part(0), directory: part(32), commitment: part(64) }
    }
    /// Goes into the header: binds the pack to this one key.
    pub const fn commitment(&self) -> [u8; 32] {
        self.commitment
    }
    /// Whether a header was made with this key. Constant time.
    pub fn commits_to(&self, commitment: &[u8; 32]) -> bool {
        self.commitment.ct_eq(commitment).into()
    }
    const fn key(&self, of: Use) -> &[u8; 32] {
        match of {
            Use::Frames => &self.frames,
            Use::Directory => &self.directory,
        }
    }
    /// Seals one frame in place; consumes its number.
    #[expect(clippy::needless_pass_by_value, reason = "the number must not be usable again")]
    pub fn seal_frame(&self, number: FrameNumber, aad: &[u8], buffer: &mut Vec<u8>) {
        seal(self.key(Use::Frames), nonce_number(number.0), aad, buffer);
    }
    /// Opens frame `index` into `buffer`, which is overwritten.
    pub fn open_frame_into(
        &self,
        index: u32,
        aad: &[u8],
        sealed: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        open_into(self.key(Use::Frames), nonce_number(index), aad, sealed, buffer)
    }
    /// Seals the directory copies, both at once: a pack has one directory, so this takes the counter away.
    pub fn seal_directories(
        &self,
        _end_of_pack: FrameCounter,
        copies: [(&[u8], Vec<u8>); 2],
    ) -> [Vec<u8>; 2] {
        let [(aad0, mut first), (aad1, mut second)] = copies;
        seal(self.key(Use::Directory), 0, aad0, &mut first);
        seal(self.key(Use::Directory), 1, aad1, &mut second);
        [first, second]
    }
    /// Opens directory copy 0 or 1.
    pub fn open_directory(
        &self,
        copy: u32,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        open(self.key(Use::Directory), copy, aad, sealed)
    }
}

/// A frame's number is its nonce. The planted bug forgets it, the same on both sides.
fn nonce_number(number: u32) -> u32 {
    if faults::planted(faults::Bug::NonceNotAdvanced) { 0 } else { number }
}

/// Hands out the frame numbers of one pack. Deliberately neither `Clone` nor `Copy`.
#[derive(Default)]
pub struct FrameCounter(u32);

impl FrameCounter {
    /// Numbers start at 0.
    pub const fn new() -> Self {
        Self(0)
    }
    /// The next number; each is given once.
    pub fn next_number(&mut self) -> FrameNumber {
        let number = self.0;
        self.0 += 1;
        FrameNumber(number)
    }
    /// How many were given.
    pub const fn count(&self) -> u32 {
        self.0
    }
}

/// The right to seal one frame, once.
pub struct FrameNumber(u32);

impl FrameNumber {
    /// The index of the frame in its pack.
    pub const fn index(&self) -> u32 {
        self.0
    }
}

fn nonce(number: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// The AEAD, behind one function each way: a profile may replace the crate, never the bytes.
fn seal(key: &[u8; 32], number: u32, aad: &[u8], buffer: &mut Vec<u8>) {
    let cipher = Aes256Gcm::new(key.into());
    #[expect(
        clippy::expect_used,
        reason = "AES-GCM refuses only messages over 64 GiB; ours are 16 MiB"
    )]
    cipher.encrypt_in_place(&nonce(number).into(), aad, buffer).expect("within AES-GCM's limit");
}

fn open(key: &[u8; 32], number: u32, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut buffer = Vec::new();
    open_into(key, number, aad, sealed, &mut buffer).map(|()| buffer)
}

fn open_into(
    key: &[u8; 32],
    number: u32,
    aad: &[u8],
    sealed: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), OpenError> {
    let cipher = Aes256Gcm::new(key.into());
    buffer.clear();
    buffer.extend_from_slice(sealed);
    cipher.decrypt_in_place(&nonce(number).into(), aad, buffer).map_err(|_| {
        // Nothing unauthenticated leaves this function, not even in freed memory.
        buffer.zeroize();
        OpenError
    })
}

/// Seals a small constant under a key used for nothing else (the kit's canary).
pub(crate) fn seal_once(key: &Zeroizing<[u8; 32]>, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = plaintext.to_vec();
    seal(key, 0, aad, &mut buffer);
    buffer
}

/// Opens what [`seal_once`] made.
pub(crate) fn open_once(
    key: &Zeroizing<[u8; 32]>,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, OpenError> {
    open(key, 0, aad, sealed)
}
