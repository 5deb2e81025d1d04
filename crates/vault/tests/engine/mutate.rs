//! One alteration of some bytes, from a repeatable source of chance.

use domain::{IdGen as _, SeededIds};

/// A number below `end`, or 0.
pub fn below(random: &SeededIds, end: usize) -> usize {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    let number = usize::try_from(u64::from_be_bytes(bytes) >> 16).unwrap_or(0);
    if end == 0 { 0 } else { number % end }
}

/// Interesting values of lengths and counts.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x1b, 0x5b, 0x9f];

/// A flipped bit, an edge value, a cut, a copied, removed or repeated stretch.
pub fn mutate(bytes: &[u8], random: &SeededIds) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = below(random, out.len());
    let length = below(random, 64.min(out.len() - at.min(out.len())) + 1);
    match below(random, 7) {
        0 | 1 if !out.is_empty() => out[at] ^= 1 << below(random, 8),
        2 if !out.is_empty() => out[at] = EDGES[below(random, EDGES.len())],
        3 => out.truncate(at),
        4 => drop(out.drain(at..(at + length).min(out.len()))),
        5 => {
            let copied = out[at..(at + length).min(out.len())].to_vec();
            let to = below(random, out.len());
            out.splice(to..to, copied);
        }
        _ => {
            let to = below(random, out.len() + 1);
            out.insert(to, EDGES[below(random, EDGES.len())]);
        }
    }
    out
}
