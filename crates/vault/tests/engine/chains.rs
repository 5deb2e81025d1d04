//! Manifest chains: references without keys.

use domain::PackId;
use vault::{
    manifest::{FULL_EVERY, ManifestError, PackList, SignedManifest, resolve},
    verify,
};

use crate::common::{Lab, Tree, assert_same, dir, file, noise};

#[test]
fn the_set_is_known_from_the_chain_alone_and_full_every_32nd_time() {
    let lab = Lab::new(40);
    let mut tree: Tree = [dir(""), file("big", noise(1, 400_000))].into();
    let mut last = lab.backup(&tree, None);
    for n in 0..70_u64 {
        let (key, mut source) = file(&format!("f{}", n % 9), noise(n + 50, 30_000));
        source.entry.mtime.secs += n.cast_signed();
        tree.insert(key, source);
        last = lab.increment(&tree, &last);
        let newest = &last.chain[0].manifest;
        assert_eq!(u64::from(newest.depth), (n + 1) % u64::from(FULL_EVERY));
        assert_eq!(matches!(newest.packs, PackList::Full(_)), newest.depth == 0);
        let set = resolve(&last.chain[..=usize::from(newest.depth)]).unwrap();
        let mut used: Vec<_> =
            set.iter().map(|pack| (pack.sha256, pack.used.as_bytes().to_vec())).collect();
        let mut expected: Vec<_> = last
            .finished
            .usage
            .iter()
            .map(|pack| (pack.sha256, pack.used.as_bytes().to_vec()))
            .collect();
        expected.sort();
        used.sort();
        assert_eq!(used, expected);
    }
    let reader = lab.reader(&last);
    assert_same(&reader, &tree);
    let report = verify::quick(&reader);
    assert!(report.is_clean(), "{:?}", report.problems);
    // Overwritten files leave dead frames behind: fewer used than there are.
    let set = resolve(&last.chain).unwrap();
    assert!(set.len() < lab.bucket.packs.lock().unwrap().len());
}

#[test]
fn a_chain_with_a_gap_or_a_wrong_link_is_refused() {
    let lab = Lab::new(41);
    let mut tree: Tree = [dir(""), file("a", noise(1, 90_000))].into();
    let first = lab.backup(&tree, None);
    tree.extend([file("b", noise(2, 90_000))]);
    let second = lab.increment(&tree, &first);
    tree.extend([file("c", noise(3, 90_000))]);
    let third = lab.increment(&tree, &second);
    let gap = [third.chain[0].clone(), third.chain[2].clone()];
    assert!(matches!(resolve(&gap), Err(ManifestError::BrokenChain(_))));
    // A parent of the same id and other content.
    let other = Lab::new(42).backup(&tree, None);
    let mut swapped = third.chain.clone();
    swapped[1] = SignedManifest::decode(swapped[1].id, &other.object).unwrap();
    assert!(matches!(resolve(&swapped), Err(ManifestError::BrokenChain(_))));
    // The same, at the right depth of the same vault: only the hash tells.
    let twin = lab.increment(&tree, &first);
    swapped[1] = SignedManifest::decode(swapped[1].id, &twin.object).unwrap();
    assert_eq!(swapped[1].manifest.depth, third.chain[1].manifest.depth);
    assert!(matches!(resolve(&swapped), Err(ManifestError::BrokenChain(_))));
    // Even its own agent cannot sign a list that contradicts its hash.
    let mut manifest = third.chain[0].manifest.clone();
    if let PackList::Delta { added, .. } = &mut manifest.packs {
        added.pop();
    }
    let object = manifest.sign(&lab.agent_keys.signing_key());
    let mut chain = third.chain.clone();
    chain[0] = SignedManifest::decode(PackId::fresh(&*lab.ids, lab.now), &object).unwrap();
    assert_eq!(resolve(&chain), Err(ManifestError::WrongSet));
    assert_eq!(resolve(&[]), Err(ManifestError::WrongSet));
}
