//! Bodies of the catalog role: vaults, keys, sessions, packs, snapshots, browse, restore grants.

use domain::{
    AgentId, HoldId, PackId, RunId, SessionId, SnapshotId, TenantId, Timestamp, VaultId,
    WorkloadId, retention::Slot, run::RunState,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Who can open a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyMode {
    /// The platform's `KeyWrapper` holds a wrap: browse and download in the portal work.
    Managed,
    /// Only the customer holds keys; the platform sees no names and no content.
    CustomerHeld,
}

impl KeyMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::CustomerHeld => "customer_held",
        }
    }
}

/// For whom an epoch key is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecipientKind {
    Agent,
    /// The root key of the recovery kit.
    Root,
    /// The platform's `KeyWrapper`, in managed vaults.
    Platform,
}

impl RecipientKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Root => "root",
            Self::Platform => "platform",
        }
    }
}

/// A wrapped epoch key: the bytes of `docs/vault-format.md` § wraps.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyWrap {
    pub epoch: u32,
    pub recipient_kind: RecipientKind,
    /// Agent id, or hex key id of the root or platform key.
    pub recipient_id: String,
    /// Base64.
    pub wrap: String,
}

/// `PUT /v1/tenants/{tenant_id}/vaults/{vault_id}` by the agent that owns it. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVault {
    pub name: String,
    pub key_mode: KeyMode,
    /// Vault descriptor (base64 of its CBOR).
    pub descriptor: String,
    /// Roster signed by a key of the kit (base64); absent: the platform's delegated roster key signs one
    /// (managed vaults only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<String>,
    pub wraps: Vec<KeyWrap>,
    /// The workload this vault is for; made along with it.
    pub workload: CreateWorkload,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkload {
    pub id: WorkloadId,
    /// `files`.
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Vault {
    pub id: VaultId,
    pub tenant_id: TenantId,
    pub name: String,
    pub agent_id: AgentId,
    pub key_mode: KeyMode,
    /// True when a recovery kit's root key can open it.
    pub has_kit: bool,
    pub created_at: Timestamp,
    pub stored_bytes: u64,
    pub packs: u64,
}

/// `GET …/vaults/{vault_id}/keys`: what the key store holds for the caller.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VaultKeys {
    pub descriptor: String,
    pub roster: String,
    pub wraps: Vec<KeyWrap>,
}

/// `GET /v1/tenants/{tenant_id}/platform-keys`: to whom a managed vault's agent wraps.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlatformKeys {
    /// HPKE public key of the platform's `KeyWrapper`, base64.
    pub wrap_key: String,
    /// Hex id of that key.
    pub wrap_key_id: String,
    /// Ed25519 public key that signs rosters of managed vaults without a kit, base64.
    pub roster_key: String,
    /// Ed25519 public key that signs receipts, base64.
    pub receipt_key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Workload {
    pub id: WorkloadId,
    pub tenant_id: TenantId,
    pub kind: String,
    pub name: String,
    pub agent_id: AgentId,
    pub vault_id: VaultId,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot_id: Option<SnapshotId>,
    pub snapshots: u64,
}

/// B0. `POST /v1/tenants/{tenant_id}/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    pub workload_id: WorkloadId,
    /// Signed by the scheduler: this agent holds this run at this lease epoch.
    pub lease_token: String,
    /// The receipt of this agent's last commit (base64): the rollback guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_receipt: Option<String>,
}

/// Reply to B0.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub id: SessionId,
    pub vault_id: VaultId,
    pub run_id: RunId,
    /// Raised when a session for the workload opens; every later call carries it.
    pub fence: u64,
    /// Epoch whose key seals new packs.
    pub key_epoch: u32,
    /// The snapshot to build on, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotSource>,
    /// Live packs of the vault that the parent does not need (another path set's, say), newest first and at
    /// most 10 000: usable as they are.
    #[serde(default)]
    pub known: Vec<PackFacts>,
    pub heartbeat_interval_s: u32,
    /// The store cannot check SHA-256: uploads carry an MD5 too.
    #[serde(default)]
    pub content_md5: bool,
}

/// What is needed to read a snapshot's manifest and packs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotSource {
    pub snapshot_id: SnapshotId,
    pub manifest: PackFacts,
    /// Packs it needs that are lost: a commit that names one is refused, so what is in them is stored again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<PackId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackKind {
    Data,
    Meta,
    Manifest,
}

impl PackKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Meta => "meta",
            Self::Manifest => "manifest",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Data, Self::Meta, Self::Manifest].into_iter().find(|kind| kind.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackState {
    Allocated,
    Uploaded,
    Live,
    Condemned,
    Deleting,
    Deleted,
    Retained,
    Lost,
    Abandoned,
}

impl PackState {
    pub const ALL: [Self; 9] = [
        Self::Allocated,
        Self::Uploaded,
        Self::Live,
        Self::Condemned,
        Self::Deleting,
        Self::Deleted,
        Self::Retained,
        Self::Lost,
        Self::Abandoned,
    ];
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allocated => "allocated",
            Self::Uploaded => "uploaded",
            Self::Live => "live",
            Self::Condemned => "condemned",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Retained => "retained",
            Self::Lost => "lost",
            Self::Abandoned => "abandoned",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One object of the vault as the catalog knows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackFacts {
    pub id: PackId,
    pub kind: PackKind,
    pub state: PackState,
    /// SHA-256 of the object, hex.
    pub sha256: String,
    pub length: u64,
    /// Object key in the vault bucket.
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// As the store reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_until: Option<Timestamp>,
}

/// B1. `POST …/sessions/{session_id}/packs`: up to 64 packs. Repeating a (seq, sha256) is harmless and
/// gives a fresh grant; the same seq with another hash is refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocatePacks {
    pub fence: u64,
    pub packs: Vec<AllocatePack>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocatePack {
    /// Sequence number inside the session, as sealed into the pack. Manifests take one too.
    pub seq: u64,
    pub kind: PackKind,
    /// Hex.
    pub sha256: String,
    /// Base64, as the Content-MD5 header wants it; where [`Session::content_md5`] asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// Bytes; at most 80 MiB.
    pub length: u64,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AllocatedPacks {
    /// In the order of the request.
    pub grants: Vec<UploadGrant>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadGrant {
    pub pack: PackFacts,
    /// Send exactly this; absent when the pack is confirmed already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<PresignedRequest>,
}

/// A request to the store, to be sent with exactly these headers and no other `x-amz-*` header.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PresignedRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<Header>,
    pub expires_at: Timestamp,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Header {
    pub name: String,
    pub value: String,
}

/// After the PUTs: the server asks the store itself (HEAD) and marks the packs uploaded.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmPacks {
    pub fence: u64,
    pub packs: Vec<ConfirmPack>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmPack {
    pub id: PackId,
    /// `x-amz-version-id` of the PUT's reply; absent when the reply was lost.
    #[serde(default)]
    pub version_id: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfirmedPacks {
    pub packs: Vec<PackFacts>,
}

/// `POST …/sessions/{session_id}/heartbeat`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionHeartbeat {
    pub fence: u64,
}

/// What the agent says about the run it commits. Recorded; nothing is trusted that can be derived.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotStats {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub source_bytes: u64,
    /// Content not stored before, before compression, without metadata.
    pub new_bytes: u64,
    /// Bytes of the packs this session added, as stored.
    pub stored_bytes: u64,
    pub exceptions: u64,
    pub duration_ms: u64,
}

/// B5. `POST …/sessions/{session_id}/commit`. Idempotent: a second commit answers the same snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitSession {
    pub fence: u64,
    /// The uploaded manifest.
    pub manifest_id: PackId,
    /// Source paths as given, lossy text (absent in customer-held vaults).
    #[serde(default)]
    pub paths: Vec<String>,
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
    pub stats: SnapshotStats,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CommitReply {
    pub snapshot: Snapshot,
    /// The signed receipt, base64; the same bytes go into the bucket, locked.
    pub receipt: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub tenant_id: TenantId,
    pub workload_id: WorkloadId,
    pub vault_id: VaultId,
    pub agent_id: AgentId,
    pub run_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SnapshotId>,
    pub committed_at: Timestamp,
    /// `succeeded` or `succeeded_with_exceptions`.
    pub status: RunState,
    pub paths: Vec<String>,
    pub tags: std::collections::BTreeMap<String, String>,
    pub stats: SnapshotStats,
    pub slots: Vec<Slot>,
    /// The promise made at commit.
    pub protect_until: Timestamp,
    /// The earliest lock end among everything the snapshot needs, as the store reported it.
    pub locked_until: Timestamp,
}

/// `GET …/snapshots/{snapshot_id}/packs`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotPacks {
    pub items: Vec<PackFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `GET …/snapshots`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SnapshotQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_id: Option<WorkloadId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A snapshot its policy let go, still whole: hidden from the list, and taken back by `undo-expiry`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExpiredSnapshot {
    pub snapshot: Snapshot,
    pub expired_at: Timestamp,
    /// Until then at least it can be taken back.
    pub undo_until: Timestamp,
}

/// `POST …/snapshots/{snapshot_id}/holds`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "lawsuit 7 O 42/26: nothing may go" }))]
pub struct PlaceHold {
    /// Why, in 1 to 1000 characters; it goes into the audit record.
    pub reason: String,
}

/// `POST …/holds/{hold_id}/release`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "lawsuit 7 O 42/26 was settled on 3 May" }))]
pub struct ReleaseHold {
    /// Why, in 1 to 1000 characters; it goes into the audit record.
    pub reason: String,
}

/// Whether a hold still keeps its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    Standing,
    Released,
}

/// A legal hold: its snapshot stays until every hold of it was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "hld_019bb213ca007fa5a2f97956acde8801",
    "snapshot_id": "snp_019bb213ca007fa5a2f97956acde8802",
    "state": "standing",
    "reason": "lawsuit 7 O 42/26: nothing may go",
    "placed_at": "2026-11-22T10:00:00Z",
    "placed_by": "usr_019bb213ca007fa5a2f97956acde8803",
}))]
pub struct Hold {
    pub id: HoldId,
    pub snapshot_id: SnapshotId,
    pub state: HoldState,
    pub reason: String,
    pub placed_at: Timestamp,
    /// Id of the person, or name of the service whose operator it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_because: Option<String>,
}

/// `GET …/holds`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HoldQuery {
    /// Only this snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Both without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<HoldState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET …/snapshots/{snapshot_id}/entries` (managed vaults).
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EntryQuery {
    /// Folder to list, `/` for the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Base64 of the folder's bytes, for names that are not UTF-8; wins over `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One entry of a folder in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Last component, lossy.
    pub name: String,
    /// Whole path, lossy.
    pub path: String,
    /// The path's bytes when they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub kind: EntryKind,
    pub size: u64,
    /// Unix permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    #[serde(deserialize_with = "Timestamp::deserialize_any_year")]
    pub modified_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}

/// A page of one folder in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EntryPage {
    pub items: Vec<Entry>,
    /// Hand back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// A damaged part of the snapshot hides entries before, between or behind these.
    #[serde(default)]
    pub incomplete: bool,
}

/// `POST …/snapshots/{snapshot_id}/restore-grants`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestRestoreGrants {
    /// Which packs of the snapshot; up to 256. Empty: the manifest chain alone.
    #[serde(default)]
    pub packs: Vec<PackId>,
    /// The snapshot that is being restored with what this one has, because its own packs lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completes: Option<SnapshotId>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RestoreGrants {
    /// The snapshot's manifest, then the manifests back to the last full list.
    pub manifests: Vec<ReadGrant>,
    pub packs: Vec<ReadGrant>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ReadGrant {
    pub pack: PackFacts,
    /// GET of this very version; a `range` header may be added.
    pub get: PresignedRequest,
    /// The same of the vault's second copy, where there is one: for when the first does not give it, or not intact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<PresignedRequest>,
}

/// `GET …/vaults/{vault_id}/replica`: the second copy of a vault, in a store of its own.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VaultReplica {
    pub vault_id: VaultId,
    /// Name of the store in the platform's configuration.
    pub store: String,
    pub endpoint: String,
    pub bucket: String,
    /// Least days an object is locked for there, from when it is written or its lock extended; never less than at the
    /// first store.
    pub lock_days: u32,
    pub created_at: Timestamp,
    /// Packs and manifests that were seen to be there, under lock.
    pub packs_copied: u64,
    pub bytes_copied: u64,
    /// Packs and manifests that snapshots need and that are not there yet.
    pub packs_behind: u64,
    pub bytes_behind: u64,
    /// Snapshots that cannot be restored from there yet.
    pub snapshots_behind: u64,
    /// When the oldest of them was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_uncopied_at: Option<Timestamp>,
    /// The earliest end of a lock there of anything needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
    /// When somebody last worked on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Timestamp>,
    /// What was in the way then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// `GET …/vaults/{vault_id}/retained-packs`: a pack nothing needs that the store did not give up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RetainedPack {
    pub id: PackId,
    pub kind: PackKind,
    pub length: u64,
    /// Object key in the vault bucket.
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned_at: Option<Timestamp>,
    /// As the store reported it; the deletion is tried again after this.
    pub retained_until: Timestamp,
}

/// `GET` and `POST …/snapshots/{snapshot_id}/certificate`: what is known about the locks of everything the snapshot
/// needs, and the signed statement when all of it was found locked in the last 24 hours.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LockStanding {
    pub snapshot_id: SnapshotId,
    /// Packs and manifests the snapshot needs.
    pub objects: u64,
    /// How many of them the store was asked about in the last 24 hours and found as recorded.
    pub checked: u64,
    /// The promise made at commit.
    pub protect_until: Timestamp,
    /// The earliest end of any of the locks, as the store last reported it.
    pub locked_until: Timestamp,
    /// What was found otherwise than recorded and still stands; at most 1000.
    pub violations: Vec<LockViolation>,
    /// The signed certificate, base64, under the platform's receipt key; absent until every object was checked, and
    /// while a violation stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// An object that is not locked as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockViolation {
    pub pack_id: PackId,
    /// Object key in the vault bucket.
    pub key: String,
    pub version_id: String,
    /// `refused`, `unreached`, `missing`, `unlocked`, `short` or `altered`.
    pub kind: String,
    pub detail: String,
    pub since: Timestamp,
}

/// `GET …/vaults/{vault_id}/repack-candidates`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepackCandidates {
    pub items: Vec<RepackCandidate>,
}

/// A pack less than half of whose frames the newest snapshots use.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepackCandidate {
    pub pack: PackFacts,
    pub live_frames: u32,
    /// All but the padding.
    pub frames: u32,
    /// An estimate: only the sealed directory knows the lengths of frames.
    pub dead_bytes: u64,
}
