-- Metered facts as they came from the commits that made them true: append-only.
--
-- Invariant held here: a fact counts once, however often it is delivered; no login may change or remove one.

SELECT app.create_outbox('billing');

CREATE TABLE billing.meter_events (
    tenant_id   uuid NOT NULL,
    id          uuid NOT NULL,
    meter       text NOT NULL,
    quantity    bigint NOT NULL,
    workload_id uuid,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT meter_events_meter_check CHECK (meter ~ '^[a-z_]{1,40}$'),
    CONSTRAINT meter_events_quantity_check CHECK (quantity >= 0)
);
CREATE INDEX meter_events_tenant_id_occurred_at_idx
    ON billing.meter_events (tenant_id, occurred_at, meter) INCLUDE (quantity);
ALTER TABLE billing.meter_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing.meter_events FORCE ROW LEVEL SECURITY;
ALTER TABLE billing.meter_events OWNER TO everhold_owner;
CREATE POLICY meter_events_of_tenant_are_read ON billing.meter_events FOR SELECT TO everhold_billing
    USING (tenant_id = app.tenant_id());
CREATE POLICY meter_events_of_tenant_are_appended ON billing.meter_events FOR INSERT TO everhold_billing
    WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT ON billing.meter_events TO everhold_billing;
