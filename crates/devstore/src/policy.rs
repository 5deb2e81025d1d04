//! Who may do what: one pure table, deny by default.
//!
//! Owns the closed list of actions and the five scoped policies of `vault.md` beside the
//! administrator. Invariant: an operation that is not listed is refused to everybody. It knows
//! nothing of buckets, HTTP or keys; the caller checks the bucket.

use serde::{Deserialize, Serialize};

/// The rights of an access key. Each is limited to the buckets of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Everything, on every bucket unless its key names some.
    Administrator,
    /// Write-only: puts, with lock headers. What upload grants are signed with.
    IngestSigner,
    /// Reads by version id. What restore grants are signed with.
    RestoreSigner,
    /// Extends locks, heads and reads by version id, lists versions.
    Steward,
    /// Deletes by version id, heads by version id, lists versions.
    Reaper,
    /// Puts, gets, lists and deletes, on the key bucket only.
    KeyKeeper,
}

/// What an S3 request wants to do. One request may need several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    ListBuckets,
    ReadBucket,
    ManageBucket,
    ListObjects,
    ListVersions,
    PutObject,
    /// Lock headers on a put.
    LockOnPut,
    /// A change of the retention of a stored version.
    PutRetention,
    GetRetention,
    PutLegalHold,
    GetLegalHold,
    GetObject,
    GetObjectVersion,
    HeadObject,
    HeadObjectVersion,
    DeleteObject,
    DeleteObjectVersion,
    BypassGovernance,
    CopyObject,
    Multipart,
}

impl Action {
    /// Every action, for tests that walk the table.
    pub const ALL: [Self; 20] = [
        Self::ListBuckets,
        Self::ReadBucket,
        Self::ManageBucket,
        Self::ListObjects,
        Self::ListVersions,
        Self::PutObject,
        Self::LockOnPut,
        Self::PutRetention,
        Self::GetRetention,
        Self::PutLegalHold,
        Self::GetLegalHold,
        Self::GetObject,
        Self::GetObjectVersion,
        Self::HeadObject,
        Self::HeadObjectVersion,
        Self::DeleteObject,
        Self::DeleteObjectVersion,
        Self::BypassGovernance,
        Self::CopyObject,
        Self::Multipart,
    ];
}

impl Policy {
    /// The table.
    pub const fn allows(self, action: Action) -> bool {
        use Action as A;
        match self {
            Self::Administrator => true,
            Self::IngestSigner => matches!(action, A::PutObject | A::LockOnPut),
            Self::RestoreSigner => matches!(action, A::GetObjectVersion | A::HeadObjectVersion),
            Self::Steward => matches!(
                action,
                A::PutRetention
                    | A::GetRetention
                    | A::GetObjectVersion
                    | A::HeadObjectVersion
                    | A::ListVersions
            ),
            Self::Reaper => {
                matches!(action, A::DeleteObjectVersion | A::HeadObjectVersion | A::ListVersions)
            }
            Self::KeyKeeper => matches!(
                action,
                A::PutObject
                    | A::GetObject
                    | A::GetObjectVersion
                    | A::HeadObject
                    | A::HeadObjectVersion
                    | A::ListObjects
                    | A::ListVersions
                    | A::DeleteObject
                    | A::DeleteObjectVersion
            ),
        }
    }
}

/// What of a request, beside its operation, decides about the actions it needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Names a version (`?versionId=`).
    pub by_version: bool,
    /// Carries a lock mode or date.
    pub locks: bool,
    /// Carries a legal hold.
    pub holds: bool,
    /// Carries `x-amz-bypass-governance-retention: true`.
    pub bypasses: bool,
}

/// The actions an S3 operation needs; `None` for operations this store does not offer.
pub fn needed(operation: &str, shape: Shape) -> Option<Vec<Action>> {
    use Action as A;
    let by_version = |plain, version| if shape.by_version { version } else { plain };
    let main = match operation {
        "ListBuckets" => A::ListBuckets,
        "HeadBucket"
        | "GetBucketLocation"
        | "GetBucketVersioning"
        | "GetObjectLockConfiguration" => A::ReadBucket,
        "CreateBucket" | "DeleteBucket" | "PutBucketVersioning" | "PutObjectLockConfiguration" => {
            A::ManageBucket
        }
        "ListObjects" | "ListObjectsV2" => A::ListObjects,
        "ListObjectVersions" => A::ListVersions,
        "PutObject" => A::PutObject,
        "PutObjectRetention" => A::PutRetention,
        "GetObjectRetention" => A::GetRetention,
        "PutObjectLegalHold" => A::PutLegalHold,
        "GetObjectLegalHold" => A::GetLegalHold,
        "GetObject" => by_version(A::GetObject, A::GetObjectVersion),
        "HeadObject" => by_version(A::HeadObject, A::HeadObjectVersion),
        "DeleteObject" => by_version(A::DeleteObject, A::DeleteObjectVersion),
        // Which of the two each entry needs is known only after the body was read.
        "DeleteObjects" => A::DeleteObjectVersion,
        "CopyObject" => A::CopyObject,
        "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload"
        | "AbortMultipartUpload"
        | "ListParts"
        | "ListMultipartUploads" => A::Multipart,
        _ => return None,
    };
    let mut actions = vec![main];
    if shape.locks {
        actions.push(A::LockOnPut);
    }
    if shape.holds {
        actions.push(A::PutLegalHold);
    }
    if shape.bypasses {
        actions.push(A::BypassGovernance);
    }
    Some(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: Policy) -> Vec<Action> {
        Action::ALL.into_iter().filter(|action| policy.allows(*action)).collect()
    }

    #[test]
    fn each_policy_has_exactly_the_rights_of_the_design() {
        use Action as A;
        assert_eq!(allowed(Policy::Administrator).len(), Action::ALL.len());
        assert_eq!(allowed(Policy::IngestSigner), [A::PutObject, A::LockOnPut]);
        assert_eq!(allowed(Policy::RestoreSigner), [A::GetObjectVersion, A::HeadObjectVersion]);
        assert_eq!(
            allowed(Policy::Steward),
            [
                A::ListVersions,
                A::PutRetention,
                A::GetRetention,
                A::GetObjectVersion,
                A::HeadObjectVersion
            ]
        );
        assert_eq!(
            allowed(Policy::Reaper),
            [A::ListVersions, A::HeadObjectVersion, A::DeleteObjectVersion]
        );
        assert_eq!(
            allowed(Policy::KeyKeeper),
            [
                A::ListObjects,
                A::ListVersions,
                A::PutObject,
                A::GetObject,
                A::GetObjectVersion,
                A::HeadObject,
                A::HeadObjectVersion,
                A::DeleteObject,
                A::DeleteObjectVersion
            ]
        );
    }

    #[test]
    fn only_the_administrator_bypasses_governance_holds_or_copies() {
        for policy in [
            Policy::IngestSigner,
            Policy::RestoreSigner,
            Policy::Steward,
            Policy::Reaper,
            Policy::KeyKeeper,
        ] {
            for action in [
                Action::BypassGovernance,
                Action::PutLegalHold,
                Action::CopyObject,
                Action::Multipart,
                Action::ManageBucket,
            ] {
                assert!(!policy.allows(action), "{policy:?} {action:?}");
            }
        }
    }

    #[test]
    fn an_operation_not_listed_needs_more_than_anyone_has() {
        assert_eq!(needed("PutBucketPolicy", Shape::default()), None);
        assert_eq!(needed("PostObject", Shape::default()), None);
        assert_eq!(needed("PutObjectAcl", Shape::default()), None);
    }

    #[test]
    fn reading_without_a_version_id_is_another_right() {
        let shape = Shape { by_version: true, ..Shape::default() };
        assert_eq!(needed("GetObject", shape), Some(vec![Action::GetObjectVersion]));
        assert_eq!(needed("GetObject", Shape::default()), Some(vec![Action::GetObject]));
    }
}
