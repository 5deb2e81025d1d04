//! Every parser on thousands of altered inputs: what fuzzing does for hours, for a second in every run.

use std::collections::BTreeMap;

use domain::{IdGen as _, SeededIds};

use crate::{
    altered::{Samples, samples},
    mutate::mutate,
    parsers::{ALL, Fixture},
};

/// Inputs for each parser.
const ROUNDS: usize = 2_000;

fn payload(object: &[u8]) -> Vec<u8> {
    let mut reader = vault::cbor::Reader::new(object);
    reader.map().expect("a signed object");
    reader.u64().expect("its first key");
    reader.bytes().expect("its payload").to_vec()
}

/// Good inputs of each parser to begin with. The fuzz targets begin with the same (`fuzz/corpus`).
pub fn seeds(samples: &Samples) -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let bytes_of = |name: &str| -> Vec<Vec<u8>> {
        let of_kind = samples.objects.iter().filter(|object| object.kind == name);
        of_kind.map(|object| object.bytes.clone()).collect()
    };
    let signed = |name: &str| -> Vec<Vec<u8>> {
        bytes_of(name).into_iter().flat_map(|object| [payload(&object), object]).collect()
    };
    let packs: Vec<Vec<u8>> = [bytes_of("data pack"), bytes_of("meta pack")].concat();
    let headers = packs.iter().map(|pack| pack[..160].to_vec()).collect();
    let frame = vec![[&1_000_u32.to_be_bytes()[..], &samples.compressed].concat()];
    let pieces = vec![[&[0][..], &10_u64.to_be_bytes(), &[0x82, 10, 0x40]].concat()];
    let mut seeds = BTreeMap::from([
        ("cbor", vec![[&[5, 0, 2][..], &[0xa1, 1, 0x43, 1, 2, 3]].concat()]),
        ("manifest", signed("manifest")),
        ("roster", signed("roster")),
        ("descriptor", bytes_of("descriptor")),
        ("wrap", bytes_of("wrap")),
        ("receipt", signed("receipt")),
        ("header", headers),
        ("directory", vec![samples.directory.clone()]),
        ("frame", frame),
        ("node", samples.nodes.clone()),
        ("entry", samples.entries.clone()),
        ("pieces", pieces),
        ("kit", bytes_of("kit")),
        ("summary", vec![samples.summary.clone()]),
        ("certificate", signed("certificate")),
        ("name", samples.names.iter().map(|name| name.clone().into_bytes()).collect()),
    ]);
    seeds.insert("pack", packs);
    seeds
}

#[test]
fn no_parser_panics_on_thousands_of_altered_inputs() {
    let samples = samples();
    let seeds = seeds(&samples);
    let fixture = Fixture::of_a_hostile_member();
    let random = SeededIds::new(4_711);
    for parser in ALL {
        let seeds = &seeds[parser.name];
        assert!(!seeds.is_empty(), "{} begins with nothing", parser.name);
        let rounds = if parser.name == "pack" { ROUNDS / 10 } else { ROUNDS };
        for round in 0..rounds {
            let mut input = seeds[round % seeds.len()].clone();
            let mut times = [0];
            random.fill(&mut times);
            for _ in 0..times[0] % 4 {
                input = mutate(&input, &random);
            }
            (parser.feed)(&fixture, &input);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
fn rewrite() -> bool {
    std::env::var("FAULT_REWRITE").is_ok()
}

/// Rewrites the beginnings of the fuzz targets; they are checked in.
#[test]
fn the_corpus_of_the_fuzz_targets_is_what_this_engine_writes() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let seeds = seeds(&samples());
    for parser in ALL {
        for (number, seed) in seeds[parser.name].iter().take(5).enumerate() {
            let path = root.join(parser.name).join(format!("seed-{number}"));
            if rewrite() {
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
                std::fs::write(&path, seed).expect("seed");
            }
            let stored = std::fs::read(&path).unwrap_or_default();
            assert!(stored == *seed, "{}: rewrite with FAULT_REWRITE=1", path.display());
        }
    }
}
