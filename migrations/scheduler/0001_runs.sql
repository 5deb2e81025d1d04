-- Runs, and what the scheduler knows of the workloads they are for.
--
-- Invariants held here: a workload has at most one queued and one running run; every lease of a workload
-- takes the next epoch; a running run has a lease, an ended one has an end. Workloads and snapshots belong
-- to the catalog: their ids here are facts, never foreign keys.

SELECT app.create_outbox('scheduler');

-- A workload as its agent named it. Who owns it is decided by the catalog, when a session opens.
CREATE TABLE scheduler.workloads (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL,
    agent_id   uuid NOT NULL,
    -- What the last run read; the next one started by a person reads the same.
    source     jsonb NOT NULL,
    -- The last epoch handed out.
    epoch      bigint NOT NULL DEFAULT 0,
    named_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT workloads_epoch_check CHECK (epoch >= 0)
);
ALTER TABLE scheduler.workloads ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.workloads FORCE ROW LEVEL SECURITY;
ALTER TABLE scheduler.workloads OWNER TO everhold_owner;
CREATE POLICY workloads_of_tenant ON scheduler.workloads FOR ALL TO everhold_scheduler
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, UPDATE (source, epoch) ON scheduler.workloads TO everhold_scheduler;

CREATE TABLE scheduler.runs (
    tenant_id        uuid NOT NULL,
    id               uuid NOT NULL,
    workload_id      uuid NOT NULL,
    agent_id         uuid NOT NULL,
    trigger          text NOT NULL,
    state            text NOT NULL,
    source           jsonb NOT NULL,
    created_at       timestamptz NOT NULL,
    started_at       timestamptz,
    ended_at         timestamptz,
    -- Of the one lease this run ever had; 0 before.
    epoch            bigint NOT NULL DEFAULT 0,
    lease_until      timestamptz,
    cancel_requested boolean NOT NULL DEFAULT false,
    files            bigint NOT NULL DEFAULT 0,
    source_bytes     bigint NOT NULL DEFAULT 0,
    new_bytes        bigint NOT NULL DEFAULT 0,
    stored_bytes     bigint NOT NULL DEFAULT 0,
    exception_count  bigint NOT NULL DEFAULT 0,
    phase            text NOT NULL DEFAULT '',
    exceptions       jsonb NOT NULL DEFAULT '[]',
    error            text,
    -- The success an agent claims without a receipt; nothing until the catalog says the same.
    claimed          text,
    -- The catalog's word: this run's commit made this snapshot.
    snapshot_id      uuid,
    -- Who asked for it and under which key, so that asking twice makes one.
    request_key      text,
    -- The agent's reading of the request, to refuse another request under the same key.
    request_digest   bytea,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT runs_workload_id_fkey FOREIGN KEY (tenant_id, workload_id)
        REFERENCES scheduler.workloads (tenant_id, id),
    CONSTRAINT runs_tenant_id_request_key_key UNIQUE (tenant_id, request_key),
    CONSTRAINT runs_trigger_check CHECK (trigger IN ('manual', 'local')),
    CONSTRAINT runs_state_check CHECK (state IN ('queued', 'running', 'succeeded',
        'succeeded_with_exceptions', 'failed', 'canceled', 'missed', 'lost')),
    CONSTRAINT runs_claimed_check CHECK (claimed IN ('succeeded', 'succeeded_with_exceptions')),
    CONSTRAINT runs_lease_check CHECK (state <> 'running'
        OR (lease_until IS NOT NULL AND started_at IS NOT NULL AND epoch > 0)),
    CONSTRAINT runs_end_check CHECK ((ended_at IS NULL) = (state IN ('queued', 'running'))),
    CONSTRAINT runs_proof_check CHECK (state NOT LIKE 'succeeded%' OR snapshot_id IS NOT NULL)
);
-- Two of either would fight for one vault.
CREATE UNIQUE INDEX runs_tenant_id_workload_id_queued_key ON scheduler.runs (tenant_id, workload_id)
    WHERE state = 'queued';
CREATE UNIQUE INDEX runs_tenant_id_workload_id_running_key ON scheduler.runs (tenant_id, workload_id)
    WHERE state = 'running';
CREATE INDEX runs_tenant_id_agent_id_queued_idx ON scheduler.runs (tenant_id, agent_id, created_at)
    WHERE state = 'queued';
CREATE INDEX runs_workload_id_idx ON scheduler.runs (tenant_id, workload_id, id);
-- An agent's own list.
CREATE INDEX runs_agent_id_idx ON scheduler.runs (tenant_id, agent_id, id);
CREATE INDEX runs_lease_until_idx ON scheduler.runs (lease_until) WHERE state = 'running';
CREATE INDEX runs_created_at_queued_idx ON scheduler.runs (created_at) WHERE state = 'queued';
ALTER TABLE scheduler.runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.runs FORCE ROW LEVEL SECURITY;
ALTER TABLE scheduler.runs OWNER TO everhold_owner;
CREATE POLICY runs_of_tenant ON scheduler.runs FOR ALL TO everhold_scheduler
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT ON scheduler.runs TO everhold_scheduler;
GRANT UPDATE (state, started_at, ended_at, epoch, lease_until, cancel_requested, files, source_bytes, new_bytes,
    stored_bytes, exception_count, phase, exceptions, error, claimed, snapshot_id)
    ON scheduler.runs TO everhold_scheduler;
-- The reconciler's only business with all tenants: which runs are overdue. What follows is done inside each
-- tenant.
CREATE POLICY system_finds_overdue_runs ON scheduler.runs FOR SELECT TO everhold_scheduler_system
    USING (state IN ('queued', 'running'));
GRANT SELECT (tenant_id, id, state, lease_until, created_at) ON scheduler.runs TO everhold_scheduler_system;
