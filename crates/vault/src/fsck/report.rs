//! What a check says.

use serde::Serialize;

use super::TreeProblem;

/// More findings than this are counted, not listed.
const MAX_FINDINGS: usize = 10_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something a snapshot needs is not there or not right.
    Damage,
    /// Something is not as anybody of ours would have left it; no snapshot suffers.
    Suspicious,
    /// Worth knowing.
    Note,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An object is not there.
    Missing,
    /// An object could not be read; it may be there.
    Unreadable,
    /// An object's length is not what its reference says.
    WrongLength,
    /// An object's bytes are not what its name says.
    WrongHash,
    /// An object or a part of it does not decode or authenticate.
    Damaged,
    /// Nobody who may have signed it.
    Untrusted,
    /// A receipt or forget record that proves nothing.
    Proof,
    /// An object that is there a second time under another name.
    Replayed,
    /// A name that is none of ours.
    Stray,
    /// A manifest's chain back to its last full list is broken.
    Chain,
    /// Two signed statements about one object differ.
    Contradiction,
    /// Two packs with one salt: the key of one may be that of the other.
    SaltReused,
    /// A part of the tree cannot be read or is not where it belongs.
    Tree,
    /// The same entries would not make this tree.
    Boundaries,
    /// A file's content is not all there.
    Content,
    /// The manifest's list of used frames is not what the tree uses.
    Usage,
    /// No snapshot that counts names this object.
    Unreferenced,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub what: What,
    /// Key of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Name of a snapshot that suffers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Path of an entry, as bytes.
    #[serde(skip)]
    pub path: Option<Vec<u8>>,
    pub detail: String,
}

pub(crate) fn finding(
    severity: Severity,
    what: What,
    object: String,
    detail: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        what,
        object: Some(object),
        snapshot: None,
        path: None,
        detail: detail.into(),
    }
}

impl Finding {
    /// About no object in particular.
    pub(crate) fn plain(severity: Severity, what: What, detail: impl Into<String>) -> Self {
        Self { object: None, ..finding(severity, what, String::new(), detail) }
    }
    pub(crate) fn of_snapshot(mut self, name: String) -> Self {
        self.snapshot = Some(name);
        self
    }
    pub(super) fn of_tree(problem: TreeProblem) -> Self {
        let damage = |what, detail: String| Self::plain(Severity::Damage, what, detail);
        match problem {
            TreeProblem::Node { error, from, until } => {
                let until = until.map(|path| String::from_utf8_lossy(&path).into_owned());
                let detail = match until {
                    Some(until) => format!("the entries from here up to {until}: {error}"),
                    None => format!("the entries from here to the end: {error}"),
                };
                Self { path: Some(from), ..damage(What::Tree, detail) }
            }
            TreeProblem::Content { path, error } => {
                Self { path: Some(path), ..damage(What::Content, error.to_string()) }
            }
            TreeProblem::Boundaries => damage(
                What::Boundaries,
                "the same entries would make another tree than the manifest names".to_owned(),
            ),
            TreeProblem::Usage { pack } => damage(
                What::Usage,
                format!("the frames used of pack {pack} are not those the manifest lists"),
            ),
        }
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub packs: u64,
    /// Of these, read to the last byte.
    pub packs_whole: u64,
    /// Bytes of packs read.
    pub bytes: u64,
    pub frames: u64,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub manifests: u64,
    /// Snapshots that count: all that were not forgotten.
    pub snapshots: u64,
    pub forgotten: u64,
    /// Of those that count, the ones no receipt confirms.
    pub unconfirmed: u64,
    pub coverage: Coverage,
    /// Packs that no snapshot that counts names.
    pub unreferenced: u64,
    /// Over all snapshots that count.
    pub entries: u64,
    pub source_bytes: u64,
    /// Sorted: worst first.
    pub findings: Vec<Finding>,
    /// Further findings that were only counted.
    pub unlisted: u64,
}

impl Report {
    /// Nothing damaged, nothing suspicious.
    pub fn is_clean(&self) -> bool {
        self.unlisted == 0 && self.findings.iter().all(|found| found.severity == Severity::Note)
    }
    /// Findings of one kind.
    pub fn count(&self, what: What) -> usize {
        self.findings.iter().filter(|found| found.what == what).count()
    }
    pub(super) fn push(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.unlisted += 1;
        }
    }
    pub(super) fn finish(&mut self) {
        self.findings.sort_by(|a, b| {
            let order = |f: &Finding| (f.severity, f.what, f.object.clone(), f.path.clone());
            order(a).cmp(&order(b))
        });
    }
}
