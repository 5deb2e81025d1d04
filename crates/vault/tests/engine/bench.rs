//! Figures of the data path, by hand: `cargo test --release -p vault -- --ignored bench --nocapture`.

use std::{sync::Arc, time::Instant};

use vault::{backup::Summary, verify};

use crate::common::{Lab, file, noise};

#[test]
#[ignore = "a measurement, not a claim"]
fn bench_of_the_data_path() {
    let text: Vec<u8> =
        (0..400_000_u64).flat_map(|n| format!("line {n} of {}\n", n * n).into_bytes()).collect();
    let small = |n: usize| text[n * 997 % 1_000_000..][..1_500 + n % 3_000].to_vec();
    let cases: [(&str, Vec<Vec<u8>>); 3] = [
        ("noise in large files", (0..8).map(|n| noise(n, 64 << 20)).collect()),
        (
            "text in large files",
            (0..32).map(|n| text.iter().map(|b| b ^ (n as u8 & 7)).collect()).collect(),
        ),
        ("small files", (0..60_000).map(small).collect()),
    ];
    for (name, contents) in cases {
        let mut lab = Lab::new(70);
        lab.descriptor.packs.target = 32 << 20;
        let mut writer = lab.writer(Arc::new(lab.index())).unwrap();
        let bytes: usize = contents.iter().map(Vec::len).sum();
        let started = Instant::now();
        for (n, content) in contents.iter().enumerate() {
            let entry = file(&format!("f{n:06}"), vec![0; content.len()]).1.entry;
            writer.add_file(entry, &mut content.as_slice(), &[]).unwrap();
        }
        let done = lab.commit(writer.finish(Summary::default()).unwrap(), None, 0);
        let backup = started.elapsed().as_secs_f64();
        let started = Instant::now();
        assert!(verify::deep(&lab.reader(&done), |_| ()).is_clean());
        let (mb, read) = (bytes as f64 / 1e6, started.elapsed().as_secs_f64());
        let stored = done.finished.stats.stored_bytes as f64 / 1e6;
        eprintln!(
            "{name}: {mb:.0} MB, backup {:.0} MB/s, deep verify {:.0} MB/s, stored {stored:.0} MB",
            mb / backup,
            mb / read
        );
    }
}
