-- Row security of every table above, and the narrow doors of the system role: reconcilers see what they must
-- work on and may change only the columns that record their work.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['vaults', 'key_wraps', 'rosters', 'workloads', 'guard_freezes', 'sessions', 'packs',
                                'snapshots', 'snapshot_packs', 'manifests', 'receipts'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE catalog.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format('ALTER TABLE catalog.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE pg_catalog.format($policy$
            CREATE POLICY %I ON catalog.%I FOR ALL TO everhold_catalog
                USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id())
            $policy$, name || '_of_tenant', name);
    END LOOP;
END
$$;

-- No tenant in it: how long the platform has been serving. Shown inside a tenant's transaction only, so that a login
-- without context sees no row anywhere.
ALTER TABLE catalog.serving ENABLE ROW LEVEL SECURITY;
ALTER TABLE catalog.serving FORCE ROW LEVEL SECURITY;
CREATE POLICY serving_is_read ON catalog.serving FOR SELECT TO everhold_catalog USING (app.tenant_id() IS NOT NULL);
CREATE POLICY system_counts_serving ON catalog.serving FOR ALL TO everhold_catalog_system USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE (served_s, ticked_at) ON catalog.serving TO everhold_catalog_system;

-- Which tenants have work; the work itself is done in a transaction of that tenant.
CREATE POLICY system_finds_silent_sessions ON catalog.sessions FOR SELECT TO everhold_catalog_system USING (state = 'open');
GRANT SELECT (tenant_id, id, vault_id, state, opened_at, heartbeat_served_s) ON catalog.sessions TO everhold_catalog_system;
CREATE POLICY system_finds_short_locks ON catalog.packs FOR SELECT TO everhold_catalog_system
    USING (state IN ('allocated', 'uploaded'));
GRANT SELECT (tenant_id, id, vault_id, state, grant_expires_at, lock_until) ON catalog.packs TO everhold_catalog_system;
CREATE POLICY system_finds_unstored_descriptors ON catalog.vaults FOR SELECT TO everhold_catalog_system
    USING (descriptor_stored_at IS NULL);
GRANT SELECT (tenant_id, id, descriptor_stored_at) ON catalog.vaults TO everhold_catalog_system;
CREATE POLICY system_finds_unstored_wraps ON catalog.key_wraps FOR SELECT TO everhold_catalog_system
    USING (stored_at IS NULL);
GRANT SELECT (tenant_id, vault_id, stored_at) ON catalog.key_wraps TO everhold_catalog_system;
CREATE POLICY system_finds_unstored_rosters ON catalog.rosters FOR SELECT TO everhold_catalog_system
    USING (stored_at IS NULL);
GRANT SELECT (tenant_id, vault_id, stored_at) ON catalog.rosters TO everhold_catalog_system;
CREATE POLICY system_finds_unstored_receipts ON catalog.receipts FOR SELECT TO everhold_catalog_system
    USING (stored_at IS NULL);
GRANT SELECT (tenant_id, snapshot_id, stored_at) ON catalog.receipts TO everhold_catalog_system;
