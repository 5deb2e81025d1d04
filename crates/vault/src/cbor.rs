//! Deterministic CBOR (RFC 8949 §4.2), read strictly.
//!
//! Owns what the format calls "strict": integers and lengths in their shortest form, definite lengths,
//! maps with ascending unsigned keys, no floats, tags, duplicates or trailing bytes. Invariant: whatever
//! decodes encodes to the same bytes, and no length is believed beyond the bytes that are there. Own code
//! because general CBOR crates accept every form of a number and indefinite lengths, and refusing these
//! needs the heads themselves.

use domain::Timestamp;

/// The bytes are not what the format allows; the object is damaged or hostile and must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    #[error("not valid CBOR")]
    Malformed,
    #[error("CBOR is not in its deterministic form")]
    NotDeterministic,
    #[error("bytes follow the end of the value")]
    Trailing,
    #[error("field {0} is missing")]
    Missing(u64),
    #[error("field {0} is unknown to this version")]
    Unknown(u64),
    #[error("a value is outside of its bounds")]
    OutOfBounds,
}

/// Encoder into memory. Writing to a `Vec` cannot fail, so neither do these calls.
#[derive(Default, Clone)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self(Vec::new())
    }
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        match value {
            0..=23 => self.0.push(major | bytes[7]),
            24..=0xff => self.0.extend_from_slice(&[major | 24, bytes[7]]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&bytes[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&bytes[4..]);
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&bytes);
            }
        }
        self
    }
    pub fn uint(&mut self, value: impl Into<u64>) -> &mut Self {
        self.head(0, value.into())
    }
    pub fn int(&mut self, value: i64) -> &mut Self {
        if value < 0 {
            self.head(1, !value.cast_unsigned())
        } else {
            self.head(0, value.cast_unsigned())
        }
    }
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(2, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(3, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }
    pub fn array(&mut self, len: usize) -> &mut Self {
        self.head(4, len as u64)
    }
    pub fn map(&mut self, len: usize) -> &mut Self {
        self.head(5, len as u64)
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Appends a value that is encoded already.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.0.extend_from_slice(encoded);
        self
    }
}

/// A map under construction whose optional fields are counted for you. Keys must ascend.
#[derive(Default)]
pub struct MapWriter {
    body: Writer,
    fields: usize,
    last: Option<u64>,
}

impl MapWriter {
    /// An empty map.
    pub const fn new() -> Self {
        Self { body: Writer::new(), fields: 0, last: None }
    }
    /// Starts a field and hands out the encoder for its value.
    pub fn field(&mut self, key: u64) -> &mut Writer {
        debug_assert!(self.last.is_none_or(|last| last < key), "map keys must ascend");
        self.last = Some(key);
        self.fields += 1;
        self.body.uint(key);
        &mut self.body
    }
    /// The finished map.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(self.body.len() + 3));
        out.map(self.fields).raw(&self.body.0);
        out.into_bytes()
    }
}

/// Strict decoder over a byte slice.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    /// Reads a head of this major type and insists on its shortest form.
    fn head(&mut self, major: u8) -> Result<u64, CborError> {
        let rest = self.rest;
        let first = *rest.first().ok_or(CborError::Malformed)?;
        if first >> 5 != major {
            return Err(CborError::Malformed);
        }
        let (size, floor) = match first & 0x1f {
            small @ 0..=23 => {
                self.advance(1)?;
                return Ok(u64::from(small));
            }
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            31 => return Err(CborError::NotDeterministic),
            _ => return Err(CborError::Malformed),
        };
        let tail = rest.get(1..=size).ok_or(CborError::Malformed)?;
        let value = tail.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        if value < floor {
            return Err(CborError::NotDeterministic);
        }
        self.advance(1 + size)?;
        Ok(value)
    }
    fn advance(&mut self, by: usize) -> Result<(), CborError> {
        self.rest = self.rest.get(by..).ok_or(CborError::Malformed)?;
        Ok(())
    }
    pub fn u64(&mut self) -> Result<u64, CborError> {
        self.head(0)
    }
    pub fn u32(&mut self) -> Result<u32, CborError> {
        u32::try_from(self.head(0)?).map_err(|_| CborError::OutOfBounds)
    }
    pub fn u8(&mut self) -> Result<u8, CborError> {
        u8::try_from(self.head(0)?).map_err(|_| CborError::OutOfBounds)
    }
    pub fn i64(&mut self) -> Result<i64, CborError> {
        let negative = self.rest.first().is_some_and(|first| first >> 5 == 1);
        let value = self.head(u8::from(negative))?;
        let value = i64::try_from(value).map_err(|_| CborError::OutOfBounds)?;
        Ok(if negative { !value } else { value })
    }
    /// Milliseconds since 1970; beyond what a [`Timestamp`] holds there is no second form of its limit.
    pub fn moment(&mut self) -> Result<Timestamp, CborError> {
        let millis = self.u64()?;
        let moment = Timestamp::from_unix_millis(millis);
        if moment.unix_millis() == millis { Ok(moment) } else { Err(CborError::OutOfBounds) }
    }
    /// A byte string; borrowed, so its length can never be larger than the input.
    pub fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let len = self.head(2)?;
        self.take(len)
    }
    pub fn array_of<const N: usize>(&mut self) -> Result<[u8; N], CborError> {
        self.bytes()?.try_into().map_err(|_| CborError::OutOfBounds)
    }
    pub fn text(&mut self) -> Result<&'a str, CborError> {
        let len = self.head(3)?;
        std::str::from_utf8(self.take(len)?).map_err(|_| CborError::Malformed)
    }
    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let len = usize::try_from(len).map_err(|_| CborError::Malformed)?;
        let taken = self.rest.get(..len).ok_or(CborError::Malformed)?;
        self.advance(len)?;
        Ok(taken)
    }
    /// Number of items of an array; every item takes a byte at least, so it is bounded by the input.
    pub fn array(&mut self) -> Result<usize, CborError> {
        let len = self.head(4)?;
        self.bounded(len)
    }
    pub fn map(&mut self) -> Result<usize, CborError> {
        let len = self.head(5)?;
        self.bounded(len)
    }
    fn bounded(&self, len: u64) -> Result<usize, CborError> {
        let len = usize::try_from(len).map_err(|_| CborError::Malformed)?;
        if len > self.rest.len() { Err(CborError::Malformed) } else { Ok(len) }
    }
    /// Succeeds at the end of the input only.
    pub fn end(self) -> Result<(), CborError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CborError::Trailing) }
    }
}

/// Walks the fields of one map in ascending order.
pub struct Fields {
    left: usize,
    last: Option<u64>,
    peeked: Option<u64>,
}

impl Fields {
    /// Enters a map.
    pub fn enter(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        Ok(Self { left: reader.map()?, last: None, peeked: None })
    }
    fn peek(&mut self, reader: &mut Reader<'_>) -> Result<Option<u64>, CborError> {
        if self.peeked.is_none() && self.left > 0 {
            let key = reader.u64()?;
            if self.last.is_some_and(|last| last >= key) {
                return Err(CborError::NotDeterministic);
            }
            self.left -= 1;
            self.last = Some(key);
            self.peeked = Some(key);
        }
        Ok(self.peeked)
    }
    /// True, with the reader at the value, if the next field has this key.
    pub fn optional(&mut self, reader: &mut Reader<'_>, key: u64) -> Result<bool, CborError> {
        let here = self.peek(reader)? == Some(key);
        if here {
            self.peeked = None;
        }
        Ok(here)
    }
    /// The reader stands at the value of this field, or the field is missing.
    pub fn required(&mut self, reader: &mut Reader<'_>, key: u64) -> Result<(), CborError> {
        if self.optional(reader, key)? {
            return Ok(());
        }
        match self.peeked {
            Some(other) if other < key => Err(CborError::Unknown(other)),
            _ => Err(CborError::Missing(key)),
        }
    }
    /// Every field was read.
    pub fn end(mut self, reader: &mut Reader<'_>) -> Result<(), CborError> {
        match self.peek(reader)? {
            None => Ok(()),
            Some(key) => Err(CborError::Unknown(key)),
        }
    }
}
