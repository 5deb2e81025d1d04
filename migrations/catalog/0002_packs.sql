-- Sessions and packs: B0 to B2 and the life of a pack until its deletion.

CREATE TABLE catalog.sessions (
    tenant_id           uuid        NOT NULL,
    id                  uuid        NOT NULL,
    vault_id            uuid        NOT NULL,
    workload_id         uuid        NOT NULL,
    agent_id            uuid        NOT NULL,
    run_id              uuid        NOT NULL,
    -- The scheduler's lease epoch this session was opened with.
    lease_epoch         bigint      NOT NULL,
    fence               bigint      NOT NULL,
    key_epoch           integer     NOT NULL,
    parent_id           uuid,
    state               text        NOT NULL,
    opened_at           timestamptz NOT NULL,
    heartbeat_at        timestamptz NOT NULL,
    -- Seconds the control plane had been serving at the last heartbeat: an outage of ours ends no session.
    heartbeat_served_s  bigint      NOT NULL,
    ended_at            timestamptz,
    -- `taken_over` when a newer session of the workload ended this one.
    ended_by            text,
    CONSTRAINT sessions_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT sessions_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT sessions_workload_id_fkey FOREIGN KEY (tenant_id, workload_id) REFERENCES catalog.workloads (tenant_id, id),
    CONSTRAINT sessions_workload_id_fence_key UNIQUE (tenant_id, workload_id, fence),
    CONSTRAINT sessions_state_check CHECK (state IN ('open', 'committed', 'aborted', 'expired')),
    CONSTRAINT sessions_ended_at_check CHECK ((state = 'open') = (ended_at IS NULL)),
    CONSTRAINT sessions_ended_by_check CHECK (ended_by IN ('agent', 'taken_over', 'silence', 'age'))
);
-- One open session per workload, whatever the code does.
CREATE UNIQUE INDEX sessions_open_key ON catalog.sessions (tenant_id, workload_id) WHERE state = 'open';
CREATE INDEX sessions_lease_epoch_idx ON catalog.sessions (tenant_id, workload_id, lease_epoch);
CREATE INDEX sessions_heartbeat_idx ON catalog.sessions (heartbeat_served_s) WHERE state = 'open';

CREATE TABLE catalog.packs (
    tenant_id          uuid        NOT NULL,
    id                 uuid        NOT NULL,
    vault_id           uuid        NOT NULL,
    session_id         uuid        NOT NULL,
    seq                bigint      NOT NULL,
    kind               text        NOT NULL,
    state              text        NOT NULL,
    sha256             bytea       NOT NULL,
    md5                bytea       NOT NULL,
    length             bigint      NOT NULL,
    object_key         text        NOT NULL,
    -- The lock date every upload grant for this row pins.
    granted_lock_until timestamptz NOT NULL,
    grant_expires_at   timestamptz NOT NULL,
    version_id         text,
    -- As the store reported it, never as we wish it.
    lock_until         timestamptz,
    allocated_at       timestamptz NOT NULL,
    uploaded_at        timestamptz,
    condemned_at       timestamptz,
    deleting_at        timestamptz,
    deleted_at         timestamptz,
    CONSTRAINT packs_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT packs_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT packs_session_id_fkey FOREIGN KEY (tenant_id, session_id) REFERENCES catalog.sessions (tenant_id, id),
    CONSTRAINT packs_session_id_seq_key UNIQUE (tenant_id, session_id, seq),
    CONSTRAINT packs_object_key_key UNIQUE (tenant_id, object_key),
    CONSTRAINT packs_kind_check CHECK (kind IN ('data', 'meta', 'manifest')),
    CONSTRAINT packs_state_check CHECK (state IN ('allocated', 'uploaded', 'live', 'condemned', 'deleting', 'deleted',
                                                  'retained', 'lost', 'abandoned')),
    CONSTRAINT packs_sha256_check CHECK (length(sha256) = 32),
    CONSTRAINT packs_md5_check CHECK (length(md5) = 16),
    CONSTRAINT packs_seq_check CHECK (seq >= 0),
    CONSTRAINT packs_length_check CHECK (length BETWEEN 1 AND 83886080),
    -- Whatever was confirmed has its version and lock.
    CONSTRAINT packs_confirmed_check CHECK (state IN ('allocated', 'abandoned')
                                            OR (version_id IS NOT NULL AND lock_until IS NOT NULL)),
    CONSTRAINT packs_condemned_at_check CHECK (state <> 'condemned' OR condemned_at IS NOT NULL)
);
CREATE INDEX packs_vault_id_state_idx ON catalog.packs (tenant_id, vault_id, state);
CREATE INDEX packs_lock_until_idx ON catalog.packs (tenant_id, vault_id, lock_until);
CREATE INDEX packs_allocated_idx ON catalog.packs (grant_expires_at) WHERE state = 'allocated';

-- The state machine a second time, where no code path can miss it. A lock is never reported shorter than it
-- was: the store does not shorten a COMPLIANCE lock, so such an answer would be about another object.
CREATE FUNCTION catalog.guard_pack() RETURNS trigger
    LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT (CASE OLD.state
            WHEN 'allocated' THEN NEW.state IN ('uploaded', 'abandoned')
            WHEN 'uploaded'  THEN NEW.state IN ('live', 'condemned', 'lost')
            WHEN 'live'      THEN NEW.state IN ('condemned', 'lost')
            WHEN 'condemned' THEN NEW.state IN ('live', 'deleting', 'lost')
            WHEN 'deleting'  THEN NEW.state IN ('deleted', 'retained', 'lost')
            WHEN 'retained'  THEN NEW.state IN ('deleting', 'lost')
            ELSE false END) THEN
        RAISE EXCEPTION 'a pack cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'packs_state_step_check', TABLE = 'packs', SCHEMA = 'catalog';
    END IF;
    IF NEW.lock_until < OLD.lock_until THEN
        RAISE EXCEPTION 'a lock cannot get shorter'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'packs_lock_until_check', TABLE = 'packs', SCHEMA = 'catalog';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER packs_guard BEFORE UPDATE OF state, lock_until ON catalog.packs
    FOR EACH ROW EXECUTE FUNCTION catalog.guard_pack();

-- How long the control plane has been serving, in all: one row, moved by the session reconciler.
CREATE TABLE catalog.serving (
    id        smallint    NOT NULL DEFAULT 1,
    served_s  bigint      NOT NULL DEFAULT 0,
    ticked_at timestamptz NOT NULL DEFAULT 'epoch',
    CONSTRAINT serving_pkey PRIMARY KEY (id),
    CONSTRAINT serving_id_check CHECK (id = 1)
);
INSERT INTO catalog.serving DEFAULT VALUES;

GRANT SELECT, INSERT ON catalog.sessions, catalog.packs TO everhold_catalog;
GRANT UPDATE (state, heartbeat_at, heartbeat_served_s, ended_at, ended_by) ON catalog.sessions TO everhold_catalog;
GRANT UPDATE (state, grant_expires_at, version_id, lock_until, uploaded_at, condemned_at, deleting_at, deleted_at)
    ON catalog.packs TO everhold_catalog;
GRANT SELECT ON catalog.serving TO everhold_catalog;
