-- Policies, and how each workload stands with its own: when it is due, what it failed, what it owes.
--
-- Invariants held here: a tenant has at most one default policy; names of policies differ in a tenant; a policy that
-- workloads were given or another extends is not removed; a queued run says until when it may start, or that it waits.

CREATE TABLE scheduler.policies (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL,
    name       text NOT NULL,
    -- Lowercased name: two that differ in case only would be told apart by nobody.
    name_key   text NOT NULL,
    extends_id uuid,
    -- api::policy::PolicySettings: what it says itself.
    settings   jsonb NOT NULL,
    -- api::policy::Setting: what those that extend it may not loosen.
    protected  jsonb NOT NULL,
    is_default boolean NOT NULL,
    is_paused  boolean NOT NULL,
    revision   bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT policies_tenant_id_name_key_key UNIQUE (tenant_id, name_key),
    CONSTRAINT policies_extends_id_fkey FOREIGN KEY (tenant_id, extends_id)
        REFERENCES scheduler.policies (tenant_id, id),
    CONSTRAINT policies_extends_id_check CHECK (extends_id <> id),
    CONSTRAINT policies_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT policies_revision_check CHECK (revision >= 1)
);
CREATE UNIQUE INDEX policies_tenant_id_default_key ON scheduler.policies (tenant_id) WHERE is_default;
CREATE INDEX policies_extends_id_idx ON scheduler.policies (tenant_id, extends_id) WHERE extends_id IS NOT NULL;
ALTER TABLE scheduler.policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.policies FORCE ROW LEVEL SECURITY;
ALTER TABLE scheduler.policies OWNER TO everhold_owner;
CREATE POLICY policies_of_tenant ON scheduler.policies FOR ALL TO everhold_scheduler
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, DELETE,
    UPDATE (name, name_key, extends_id, settings, protected, is_default, is_paused, revision, updated_at)
    ON scheduler.policies TO everhold_scheduler;

-- A workload that was enrolled and never ran has no source yet.
ALTER TABLE scheduler.workloads ALTER COLUMN source DROP NOT NULL;
ALTER TABLE scheduler.workloads
    -- Given to this workload; NULL: the tenant's default policy, if there is one.
    ADD COLUMN policy_id   uuid,
    -- The policy that holds and what is in force by it, since it was last planned; NULL: none holds.
    ADD COLUMN plan        jsonb,
    -- When its next run is to be queued; NULL: not by itself.
    ADD COLUMN due_at      timestamptz,
    -- Not started by then, the due run is missed, or made up for; NULL: it waits.
    ADD COLUMN due_by      timestamptz,
    -- What is due is another attempt, not a tick of the schedule.
    ADD COLUMN is_retry    boolean NOT NULL DEFAULT false,
    -- Planned runs that failed since the last tick or success.
    ADD COLUMN attempts    int NOT NULL DEFAULT 0,
    -- Failures since the last success.
    ADD COLUMN failures    int NOT NULL DEFAULT 0,
    -- Beginning of the newest run that succeeded.
    ADD COLUMN protected_at timestamptz,
    -- When the recovery point objective is breached unless a run succeeds before; NULL: none is set.
    ADD COLUMN rpo_due_at  timestamptz,
    ADD COLUMN rpo_breached_at timestamptz,
    ADD CONSTRAINT workloads_policy_id_fkey FOREIGN KEY (tenant_id, policy_id)
        REFERENCES scheduler.policies (tenant_id, id),
    ADD CONSTRAINT workloads_failures_check CHECK (failures >= 0),
    ADD CONSTRAINT workloads_due_by_check CHECK (due_by IS NULL OR due_at IS NOT NULL),
    ADD CONSTRAINT workloads_attempts_check CHECK (attempts >= 0),
    ADD CONSTRAINT workloads_due_at_check CHECK (due_at IS NULL OR plan IS NOT NULL);
-- Migrations run as the owner, whom forced row security shows nothing.
ALTER TABLE scheduler.workloads NO FORCE ROW LEVEL SECURITY;
ALTER TABLE scheduler.runs NO FORCE ROW LEVEL SECURITY;
UPDATE scheduler.workloads w SET protected_at = (
    SELECT max(r.started_at) FROM scheduler.runs r
    WHERE r.tenant_id = w.tenant_id AND r.workload_id = w.id AND r.snapshot_id IS NOT NULL);
CREATE INDEX workloads_policy_id_idx ON scheduler.workloads (tenant_id, policy_id) WHERE policy_id IS NOT NULL;
CREATE INDEX workloads_due_at_idx ON scheduler.workloads (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX workloads_rpo_due_at_idx ON scheduler.workloads (rpo_due_at)
    WHERE rpo_due_at IS NOT NULL AND rpo_breached_at IS NULL;
GRANT UPDATE (policy_id, plan, due_at, due_by, is_retry, attempts, failures, protected_at, rpo_due_at, rpo_breached_at)
    ON scheduler.workloads TO everhold_scheduler;
-- Reconcilers' only business with workloads of all tenants: whose time has come. What follows is done inside each
-- tenant.
CREATE POLICY system_finds_due_workloads ON scheduler.workloads FOR SELECT TO everhold_scheduler_system
    USING (due_at IS NOT NULL OR rpo_due_at IS NOT NULL);
GRANT SELECT (tenant_id, id, due_at, rpo_due_at, rpo_breached_at)
    ON scheduler.workloads TO everhold_scheduler_system;

ALTER TABLE scheduler.runs
    -- The policy it follows; a fact, not a reference: the policy may be gone.
    ADD COLUMN policy_id   uuid,
    -- The moment it was due.
    ADD COLUMN due_at      timestamptz,
    -- It starts within these; without an end it waits.
    ADD COLUMN start_after timestamptz,
    ADD COLUMN start_by    timestamptz,
    DROP CONSTRAINT runs_trigger_check,
    ADD CONSTRAINT runs_trigger_check CHECK (trigger IN ('manual', 'local', 'schedule', 'retry'));
UPDATE scheduler.runs SET start_by = created_at + interval '1 day' WHERE state = 'queued';
ALTER TABLE scheduler.workloads FORCE ROW LEVEL SECURITY;
ALTER TABLE scheduler.runs FORCE ROW LEVEL SECURITY;
CREATE INDEX runs_start_by_queued_idx ON scheduler.runs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL;
GRANT UPDATE (start_after, start_by) ON scheduler.runs TO everhold_scheduler;
GRANT SELECT (start_by, trigger) ON scheduler.runs TO everhold_scheduler_system;
