-- The record of what changed meaning: append-only, one gapless sequence per tenant.
--
-- Invariants held here: an event is recorded once, however often it is delivered; a sequence number is never
-- reused or skipped (the head row is locked while numbers are given); no login may change or remove an event.

SELECT app.create_outbox('audit');

CREATE TABLE audit.heads (
    tenant_id uuid PRIMARY KEY,
    last_seq  bigint NOT NULL,
    CONSTRAINT heads_last_seq_check CHECK (last_seq >= 0)
);
ALTER TABLE audit.heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit.heads FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.heads OWNER TO everhold_owner;
CREATE POLICY heads_of_tenant ON audit.heads FOR ALL TO everhold_audit
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, UPDATE (last_seq) ON audit.heads TO everhold_audit;

CREATE TABLE audit.events (
    tenant_id      uuid NOT NULL,
    -- The event's own id, given where it happened.
    id             uuid NOT NULL,
    seq            bigint NOT NULL,
    recorded_at    timestamptz NOT NULL,
    occurred_at    timestamptz NOT NULL,
    action         text NOT NULL,
    actor_kind     text NOT NULL,
    actor_id       text NOT NULL,
    home_tenant_id uuid,
    subject_kind   text NOT NULL,
    subject_id     text NOT NULL,
    request_id     text,
    details        jsonb NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT events_tenant_id_seq_key UNIQUE (tenant_id, seq),
    CONSTRAINT events_seq_check CHECK (seq > 0)
);
ALTER TABLE audit.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit.events FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.events OWNER TO everhold_owner;
CREATE POLICY events_of_tenant_are_read ON audit.events FOR SELECT TO everhold_audit
    USING (tenant_id = app.tenant_id());
CREATE POLICY events_of_tenant_are_appended ON audit.events FOR INSERT TO everhold_audit
    WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT ON audit.events TO everhold_audit;
