//! What a snapshot says about itself: sealed, so the server of a customer-held vault does not see it.

use std::collections::BTreeMap;

use super::Stats;
use crate::cbor::{CborError, Fields, MapWriter, Reader};

/// Most paths and tags a summary holds.
const MAX_ITEMS: usize = 65_536;

/// Paths, tags and counts of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Source paths as given.
    pub paths: Vec<Vec<u8>>,
    pub tags: BTreeMap<String, String>,
    pub host: String,
    /// How many exceptions the run listed.
    pub exceptions: u64,
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub source_bytes: u64,
}

impl Summary {
    pub(crate) fn with_counts(mut self, stats: &Stats) -> Self {
        self.files = stats.files;
        self.directories = stats.directories;
        self.others = stats.others;
        self.source_bytes = stats.source_bytes;
        self
    }
    /// Deterministic CBOR: what is sealed as the summary's frame (`docs/vault-format.md`).
    pub fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).uint(1_u8);
        let list = map.field(2).array(self.paths.len());
        for path in &self.paths {
            list.bytes(path);
        }
        let list = map.field(3).array(self.tags.len() * 2);
        for (key, value) in &self.tags {
            list.text(key).text(value);
        }
        map.field(4).text(&self.host);
        let counts = map.field(5).array(5).uint(self.files).uint(self.directories);
        counts.uint(self.others).uint(self.source_bytes).uint(self.exceptions);
        map.finish()
    }
    /// Reads what [`Self::encode`] writes, and no other form of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        fields.required(r, 1)?;
        if r.u64()? != 1 {
            return Err(CborError::OutOfBounds);
        }
        let mut summary = Self::default();
        fields.required(r, 2)?;
        for _ in 0..at_most(r.array()?, MAX_ITEMS)? {
            summary.paths.push(r.bytes()?.to_vec());
        }
        fields.required(r, 3)?;
        let items = at_most(r.array()?, MAX_ITEMS * 2)?;
        if items % 2 != 0 {
            return Err(CborError::OutOfBounds);
        }
        for _ in 0..items / 2 {
            let (key, value) = (r.text()?, r.text()?);
            if summary.tags.last_key_value().is_some_and(|(last, _)| last.as_str() >= key) {
                return Err(CborError::NotDeterministic);
            }
            summary.tags.insert(key.to_owned(), value.to_owned());
        }
        fields.required(r, 4)?;
        summary.host = r.text()?.to_owned();
        fields.required(r, 5)?;
        if r.array()? != 5 {
            return Err(CborError::OutOfBounds);
        }
        summary.files = r.u64()?;
        summary.directories = r.u64()?;
        summary.others = r.u64()?;
        summary.source_bytes = r.u64()?;
        summary.exceptions = r.u64()?;
        fields.end(r)?;
        reader.end()?;
        Ok(summary)
    }
}

const fn at_most(found: usize, most: usize) -> Result<usize, CborError> {
    if found <= most { Ok(found) } else { Err(CborError::OutOfBounds) }
}
