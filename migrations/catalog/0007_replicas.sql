-- The second copy of a vault: where it is, and what of the vault is there.

CREATE TABLE catalog.replicas (
    tenant_id          uuid        NOT NULL,
    vault_id           uuid        NOT NULL,
    -- Name of the store in the configuration, with the keys for it; where that was when the copy was set up. A name
    -- that means another bucket by now is refused: versions are recorded below.
    store              text        NOT NULL,
    endpoint           text        NOT NULL,
    bucket             text        NOT NULL,
    -- Least days an object is locked for when it is written there or its lock is extended.
    lock_days          integer     NOT NULL,
    created_at         timestamptz NOT NULL,
    -- How many key objects (descriptor, rosters, wraps) were copied: they are only ever added.
    keys_copied        bigint      NOT NULL DEFAULT 0,
    -- Who is copying: long work holds a lease, not a transaction.
    lease_id           uuid,
    lease_until        timestamptz NOT NULL DEFAULT 'epoch',
    -- As the last turn left it.
    looked_at          timestamptz,
    bytes_behind       bigint      NOT NULL DEFAULT 0,
    oldest_uncopied_at timestamptz,
    trouble            text,
    CONSTRAINT replicas_pkey PRIMARY KEY (tenant_id, vault_id),
    CONSTRAINT replicas_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT replicas_lock_days_check CHECK (lock_days BETWEEN 1 AND 36500)
);

-- One row per object that is known to be there: written only after the second store was seen to hold exactly these
-- bytes under a COMPLIANCE lock. Packs and manifests by pack, receipts and forget records by snapshot.
CREATE TABLE catalog.replica_objects (
    tenant_id   uuid        NOT NULL,
    object_key  text        NOT NULL,
    vault_id    uuid        NOT NULL,
    pack_id     uuid,
    snapshot_id uuid,
    version_id  text        NOT NULL,
    -- As the second store reported it, never as we wish it.
    lock_until  timestamptz NOT NULL,
    copied_at   timestamptz NOT NULL,
    deleted_at  timestamptz,
    CONSTRAINT replica_objects_pkey PRIMARY KEY (tenant_id, object_key),
    CONSTRAINT replica_objects_pack_id_key UNIQUE (tenant_id, pack_id),
    CONSTRAINT replica_objects_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.replicas (tenant_id, vault_id),
    CONSTRAINT replica_objects_pack_id_fkey FOREIGN KEY (tenant_id, pack_id) REFERENCES catalog.packs (tenant_id, id),
    CONSTRAINT replica_objects_snapshot_id_fkey FOREIGN KEY (tenant_id, snapshot_id) REFERENCES catalog.snapshots (tenant_id, id),
    CONSTRAINT replica_objects_subject_check CHECK ((pack_id IS NULL) <> (snapshot_id IS NULL))
);
CREATE INDEX replica_objects_lock_until_idx ON catalog.replica_objects (tenant_id, vault_id, lock_until) WHERE deleted_at IS NULL;

CREATE FUNCTION catalog.guard_replica_object() RETURNS trigger
    LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    IF NEW.lock_until < OLD.lock_until THEN
        RAISE EXCEPTION 'a lock cannot get shorter'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'replica_objects_lock_until_check', TABLE = 'replica_objects', SCHEMA = 'catalog';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER replica_objects_guard BEFORE UPDATE OF lock_until ON catalog.replica_objects
    FOR EACH ROW EXECUTE FUNCTION catalog.guard_replica_object();

-- Versions a pack had before it was written anew from its other copy: manifests go on naming them.
ALTER TABLE catalog.packs ADD COLUMN former_versions text[] NOT NULL DEFAULT '{}';

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['replicas', 'replica_objects'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE catalog.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format('ALTER TABLE catalog.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format($policy$
            CREATE POLICY %I ON catalog.%I FOR ALL TO everhold_catalog
                USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id())
            $policy$, name || '_of_tenant', name);
    END LOOP;
END
$$;
GRANT SELECT, INSERT ON catalog.replicas, catalog.replica_objects TO everhold_catalog;
GRANT UPDATE (lock_days, keys_copied, lease_id, lease_until, looked_at, bytes_behind, oldest_uncopied_at, trouble)
    ON catalog.replicas TO everhold_catalog;
GRANT UPDATE (version_id, lock_until, copied_at, deleted_at) ON catalog.replica_objects TO everhold_catalog;
GRANT UPDATE (former_versions) ON catalog.packs TO everhold_catalog;

-- Which vaults have work; the work itself is done in a transaction of their tenant.
CREATE POLICY system_finds_replicas ON catalog.replicas FOR SELECT TO everhold_catalog_system USING (true);
GRANT SELECT (tenant_id, vault_id, lease_until, bytes_behind, oldest_uncopied_at) ON catalog.replicas
    TO everhold_catalog_system;
