-- A hold says who placed it, who ended it and why; placing one again under the same key is once.

ALTER TABLE catalog.snapshot_holds
    ADD COLUMN placed_by        text,
    ADD COLUMN released_by      text,
    ADD COLUMN released_because text,
    -- Who asked, and the request's Idempotency-Key.
    ADD COLUMN request_key      text,
    ADD CONSTRAINT snapshot_holds_tenant_id_request_key_key UNIQUE (tenant_id, request_key),
    ADD CONSTRAINT snapshot_holds_released_because_check CHECK (length(released_because) BETWEEN 1 AND 1000);
GRANT UPDATE (released_by, released_because) ON catalog.snapshot_holds TO everhold_catalog;
