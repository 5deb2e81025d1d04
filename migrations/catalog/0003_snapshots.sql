-- Snapshots, what they refer to, and the proof handed out for them. B5 writes all of it in one transaction.

CREATE TABLE catalog.snapshots (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL,
    vault_id      uuid        NOT NULL,
    workload_id   uuid        NOT NULL,
    agent_id      uuid        NOT NULL,
    run_id        uuid        NOT NULL,
    session_id    uuid        NOT NULL,
    -- Place in the workload's chain, from 1, without gaps.
    seq           bigint      NOT NULL,
    parent_id     uuid,
    manifest_id   uuid        NOT NULL,
    state         text        NOT NULL DEFAULT 'committed',
    committed_at  timestamptz NOT NULL,
    expired_at    timestamptz,
    status        text        NOT NULL,
    paths         text[]      NOT NULL,
    tags          jsonb       NOT NULL,
    files         bigint      NOT NULL,
    directories   bigint      NOT NULL,
    others        bigint      NOT NULL,
    source_bytes  bigint      NOT NULL,
    new_bytes     bigint      NOT NULL,
    stored_bytes  bigint      NOT NULL,
    exceptions    bigint      NOT NULL,
    duration_ms   bigint      NOT NULL,
    slots         text[]      NOT NULL,
    protect_until timestamptz NOT NULL,
    locked_until  timestamptz NOT NULL,
    CONSTRAINT snapshots_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT snapshots_session_id_key UNIQUE (tenant_id, session_id),
    CONSTRAINT snapshots_workload_id_seq_key UNIQUE (tenant_id, workload_id, seq),
    CONSTRAINT snapshots_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT snapshots_workload_id_fkey FOREIGN KEY (tenant_id, workload_id) REFERENCES catalog.workloads (tenant_id, id),
    CONSTRAINT snapshots_session_id_fkey FOREIGN KEY (tenant_id, session_id) REFERENCES catalog.sessions (tenant_id, id),
    CONSTRAINT snapshots_parent_id_fkey FOREIGN KEY (tenant_id, parent_id) REFERENCES catalog.snapshots (tenant_id, id),
    CONSTRAINT snapshots_manifest_id_fkey FOREIGN KEY (tenant_id, manifest_id) REFERENCES catalog.packs (tenant_id, id),
    CONSTRAINT snapshots_state_check CHECK (state IN ('committed', 'expired')),
    CONSTRAINT snapshots_expired_at_check CHECK ((state = 'expired') = (expired_at IS NOT NULL)),
    CONSTRAINT snapshots_status_check CHECK (status IN ('succeeded', 'succeeded_with_exceptions')),
    CONSTRAINT snapshots_figures_check CHECK (files >= 0 AND directories >= 0 AND others >= 0 AND source_bytes >= 0
        AND new_bytes >= 0 AND stored_bytes >= 0 AND exceptions >= 0 AND duration_ms >= 0),
    -- R3, written down once more.
    CONSTRAINT snapshots_locked_until_check CHECK (locked_until >= protect_until)
);
CREATE INDEX snapshots_committed_at_idx ON catalog.snapshots (tenant_id, committed_at DESC, id DESC);
CREATE INDEX snapshots_workload_id_idx ON catalog.snapshots (tenant_id, workload_id, committed_at DESC, id DESC);

-- Which pack which snapshots need, as intervals along the workload's chain: from `first_seq` to `last_seq`, or
-- to the newest while that is NULL. A commit writes only what its manifest adds or drops.
CREATE TABLE catalog.snapshot_packs (
    tenant_id   uuid   NOT NULL,
    workload_id uuid   NOT NULL,
    pack_id     uuid   NOT NULL,
    first_seq   bigint NOT NULL,
    last_seq    bigint,
    CONSTRAINT snapshot_packs_pkey PRIMARY KEY (tenant_id, workload_id, pack_id, first_seq),
    CONSTRAINT snapshot_packs_workload_id_fkey FOREIGN KEY (tenant_id, workload_id) REFERENCES catalog.workloads (tenant_id, id),
    CONSTRAINT snapshot_packs_pack_id_fkey FOREIGN KEY (tenant_id, pack_id) REFERENCES catalog.packs (tenant_id, id),
    CONSTRAINT snapshot_packs_last_seq_check CHECK (last_seq IS NULL OR last_seq >= first_seq)
);
CREATE INDEX snapshot_packs_pack_id_idx ON catalog.snapshot_packs (tenant_id, pack_id);
CREATE INDEX snapshot_packs_seq_idx ON catalog.snapshot_packs (tenant_id, workload_id, first_seq);
CREATE UNIQUE INDEX snapshot_packs_open_key ON catalog.snapshot_packs (tenant_id, workload_id, pack_id) WHERE last_seq IS NULL;

-- What the server read in a committed manifest.
CREATE TABLE catalog.manifests (
    tenant_id   uuid    NOT NULL,
    pack_id     uuid    NOT NULL,
    snapshot_id uuid    NOT NULL,
    key_epoch   integer NOT NULL,
    full_list   boolean NOT NULL,
    packs       bigint  NOT NULL,
    set_hash    bytea   NOT NULL,
    CONSTRAINT manifests_pkey PRIMARY KEY (tenant_id, pack_id),
    CONSTRAINT manifests_pack_id_fkey FOREIGN KEY (tenant_id, pack_id) REFERENCES catalog.packs (tenant_id, id),
    CONSTRAINT manifests_snapshot_id_fkey FOREIGN KEY (tenant_id, snapshot_id) REFERENCES catalog.snapshots (tenant_id, id),
    CONSTRAINT manifests_snapshot_id_key UNIQUE (tenant_id, snapshot_id),
    CONSTRAINT manifests_set_hash_check CHECK (length(set_hash) = 32)
);

CREATE TABLE catalog.receipts (
    tenant_id   uuid        NOT NULL,
    snapshot_id uuid        NOT NULL,
    receipt     bytea       NOT NULL,
    object_key  text        NOT NULL,
    lock_until  timestamptz NOT NULL,
    version_id  text,
    stored_at   timestamptz,
    CONSTRAINT receipts_pkey PRIMARY KEY (tenant_id, snapshot_id),
    CONSTRAINT receipts_snapshot_id_fkey FOREIGN KEY (tenant_id, snapshot_id) REFERENCES catalog.snapshots (tenant_id, id),
    CONSTRAINT receipts_stored_at_check CHECK ((stored_at IS NULL) = (version_id IS NULL))
);
CREATE INDEX receipts_unstored_idx ON catalog.receipts (tenant_id) WHERE stored_at IS NULL;

GRANT SELECT, INSERT ON catalog.snapshots, catalog.snapshot_packs, catalog.manifests, catalog.receipts TO everhold_catalog;
GRANT UPDATE (state, expired_at) ON catalog.snapshots TO everhold_catalog;
GRANT UPDATE (last_seq) ON catalog.snapshot_packs TO everhold_catalog;
GRANT UPDATE (version_id, stored_at) ON catalog.receipts TO everhold_catalog;
