-- Tells the scheduler of workloads that were there before it had policies: a tenant's default policy may hold for them.
-- Migrations run as the owner, whom forced row security shows nothing.
ALTER TABLE catalog.workloads NO FORCE ROW LEVEL SECURITY;
ALTER TABLE catalog.outbox NO FORCE ROW LEVEL SECURITY;
INSERT INTO catalog.outbox (tenant_id, topic, payload)
SELECT tenant_id, 'workload_created', jsonb_build_object(
    'event_id', 'evt_' || replace(gen_random_uuid()::text, '-', ''),
    'tenant_id', 'ten_' || replace(tenant_id::text, '-', ''),
    'workload_id', 'wkl_' || replace(id::text, '-', ''),
    'agent_id', 'agt_' || replace(agent_id::text, '-', ''))
FROM catalog.workloads;
ALTER TABLE catalog.workloads FORCE ROW LEVEL SECURITY;
ALTER TABLE catalog.outbox FORCE ROW LEVEL SECURITY;
