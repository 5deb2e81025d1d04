-- What outlives a promise, what lets a snapshot go, and the one predicate under which a pack may be condemned.

-- committed -> expired (soft, can be undone) -> forgetting (final, its record is on the way to the bucket) -> forgotten.
ALTER TABLE catalog.snapshots
    DROP CONSTRAINT snapshots_state_check,
    DROP CONSTRAINT snapshots_expired_at_check,
    -- Until when a person's undo of an expiry keeps it.
    ADD COLUMN keep_until   timestamptz,
    -- Until when somebody may be reading it (restore, verification, mount).
    ADD COLUMN in_use_until timestamptz,
    ADD COLUMN forgotten_at timestamptz,
    ADD CONSTRAINT snapshots_state_check CHECK (state IN ('committed', 'expired', 'forgetting', 'forgotten')),
    ADD CONSTRAINT snapshots_expired_at_check CHECK ((state = 'committed') = (expired_at IS NULL)),
    ADD CONSTRAINT snapshots_forgotten_at_check CHECK ((state IN ('forgetting', 'forgotten')) = (forgotten_at IS NOT NULL));
CREATE INDEX snapshots_standing_idx ON catalog.snapshots (tenant_id, workload_id, seq) WHERE state <> 'forgotten';
CREATE INDEX snapshots_locked_until_idx ON catalog.snapshots (locked_until) WHERE state = 'committed';
CREATE INDEX snapshots_expired_at_idx ON catalog.snapshots (tenant_id, expired_at) WHERE state = 'expired';

CREATE FUNCTION catalog.guard_snapshot() RETURNS trigger
    LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT (CASE OLD.state
            WHEN 'committed'  THEN NEW.state = 'expired'
            WHEN 'expired'    THEN NEW.state IN ('committed', 'forgetting')
            WHEN 'forgetting' THEN NEW.state = 'forgotten'
            ELSE false END) THEN
        RAISE EXCEPTION 'a snapshot cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'snapshots_state_step_check', TABLE = 'snapshots', SCHEMA = 'catalog';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER snapshots_guard BEFORE UPDATE OF state ON catalog.snapshots
    FOR EACH ROW EXECUTE FUNCTION catalog.guard_snapshot();

CREATE TABLE catalog.snapshot_holds (
    tenant_id   uuid        NOT NULL,
    id          uuid        NOT NULL,
    snapshot_id uuid        NOT NULL,
    reason      text        NOT NULL,
    placed_at   timestamptz NOT NULL,
    released_at timestamptz,
    CONSTRAINT snapshot_holds_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT snapshot_holds_snapshot_id_fkey FOREIGN KEY (tenant_id, snapshot_id) REFERENCES catalog.snapshots (tenant_id, id),
    CONSTRAINT snapshot_holds_reason_check CHECK (length(reason) BETWEEN 1 AND 1000)
);
CREATE INDEX snapshot_holds_standing_idx ON catalog.snapshot_holds (tenant_id, snapshot_id) WHERE released_at IS NULL;

-- Signed records that a snapshot was let go. Written with the decision, then into the bucket, locked; only then
-- is the snapshot `forgotten`, so that whoever rebuilds from the bucket never takes it for a standing one.
CREATE TABLE catalog.forgets (
    tenant_id   uuid        NOT NULL,
    snapshot_id uuid        NOT NULL,
    record      bytea       NOT NULL,
    object_key  text        NOT NULL,
    lock_until  timestamptz NOT NULL,
    version_id  text,
    stored_at   timestamptz,
    CONSTRAINT forgets_pkey PRIMARY KEY (tenant_id, snapshot_id),
    CONSTRAINT forgets_snapshot_id_fkey FOREIGN KEY (tenant_id, snapshot_id) REFERENCES catalog.snapshots (tenant_id, id),
    CONSTRAINT forgets_stored_at_check CHECK ((stored_at IS NULL) = (version_id IS NULL))
);
CREATE INDEX forgets_unstored_idx ON catalog.forgets (tenant_id) WHERE stored_at IS NULL;

-- THE predicate of collection: a pack with a row here is needed. Everything not forgotten counts: committed
-- snapshots, softly expired ones, those whose record is not in the bucket yet. Parents of open backups, snapshots under hold
-- and those being read do not expire, so they are here as well.
CREATE VIEW catalog.pack_needs WITH (security_invoker = true) AS
    SELECT r.tenant_id, r.pack_id, r.workload_id, s.id AS snapshot_id, s.seq, s.state
    FROM catalog.snapshot_packs r
    JOIN catalog.snapshots s ON s.tenant_id = r.tenant_id AND s.workload_id = r.workload_id
         AND s.seq >= r.first_seq AND (r.last_seq IS NULL OR s.seq <= r.last_seq)
    WHERE s.state <> 'forgotten';

-- Open sessions that may have seen the pack alive and may still name it. An hour is left for replicas whose clocks
-- differ: a session counts as older rather than not.
CREATE VIEW catalog.pack_sessions WITH (security_invoker = true) AS
    SELECT p.tenant_id, p.id AS pack_id, o.id AS session_id
    FROM catalog.packs p
    JOIN catalog.sessions o ON o.tenant_id = p.tenant_id AND o.vault_id = p.vault_id AND o.state = 'open'
         AND (p.condemned_at IS NULL OR o.opened_at <= p.condemned_at + interval '1 hour');

-- A lock that is not what it should be: an extension the store refused, or an object that a check found otherwise.
CREATE TABLE catalog.lock_alarms (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    vault_id   uuid        NOT NULL,
    object_key text        NOT NULL,
    version_id text        NOT NULL,
    kind       text        NOT NULL,
    detail     text        NOT NULL,
    -- The date asked for or promised.
    wanted     timestamptz NOT NULL,
    raised_at  timestamptz NOT NULL,
    cleared_at timestamptz,
    CONSTRAINT lock_alarms_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT lock_alarms_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT lock_alarms_kind_check CHECK (kind IN ('refused', 'unreached', 'missing', 'unlocked', 'short', 'altered', 'retained'))
);
CREATE UNIQUE INDEX lock_alarms_standing_key ON catalog.lock_alarms (tenant_id, object_key, version_id, kind)
    WHERE cleared_at IS NULL;

-- When the store last said, object by object, that size, checksum, mode and date are what we think.
ALTER TABLE catalog.packs ADD COLUMN lock_checked_at timestamptz;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['snapshot_holds', 'forgets', 'lock_alarms'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE catalog.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format('ALTER TABLE catalog.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format($policy$
            CREATE POLICY %I ON catalog.%I FOR ALL TO everhold_catalog
                USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id())
            $policy$, name || '_of_tenant', name);
    END LOOP;
END
$$;
GRANT SELECT ON catalog.pack_needs, catalog.pack_sessions TO everhold_catalog;
GRANT SELECT, INSERT ON catalog.snapshot_holds, catalog.forgets, catalog.lock_alarms TO everhold_catalog;
GRANT UPDATE (released_at) ON catalog.snapshot_holds TO everhold_catalog;
GRANT UPDATE (version_id, stored_at) ON catalog.forgets TO everhold_catalog;
GRANT UPDATE (cleared_at) ON catalog.lock_alarms TO everhold_catalog;
GRANT UPDATE (keep_until, in_use_until, forgotten_at, locked_until) ON catalog.snapshots TO everhold_catalog;
GRANT UPDATE (lock_checked_at) ON catalog.packs TO everhold_catalog;
GRANT UPDATE (lock_until) ON catalog.receipts TO everhold_catalog;

-- Which tenants have work; the work itself is done in a transaction of that tenant.
CREATE POLICY system_finds_standing_snapshots ON catalog.snapshots FOR SELECT TO everhold_catalog_system
    USING (state IN ('committed', 'expired'));
GRANT SELECT (tenant_id, workload_id, state, expired_at, locked_until, protect_until) ON catalog.snapshots TO everhold_catalog_system;
CREATE POLICY system_finds_unstored_forgets ON catalog.forgets FOR SELECT TO everhold_catalog_system
    USING (stored_at IS NULL);
GRANT SELECT (tenant_id, snapshot_id, stored_at) ON catalog.forgets TO everhold_catalog_system;
CREATE POLICY system_counts_alarms ON catalog.lock_alarms FOR SELECT TO everhold_catalog_system
    USING (cleared_at IS NULL);
GRANT SELECT (kind, cleared_at) ON catalog.lock_alarms TO everhold_catalog_system;
