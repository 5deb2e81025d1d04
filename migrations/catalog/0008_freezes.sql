-- A freeze is lifted by a person who says why; what was decided once does not freeze the tenant again.

ALTER TABLE catalog.guard_freezes
    DROP CONSTRAINT guard_freezes_reason_check,
    ADD COLUMN lifted_because text,
    ADD CONSTRAINT guard_freezes_reason_check CHECK (reason IN ('unknown_receipt', 'unconfirmed_manifest')),
    ADD CONSTRAINT guard_freezes_lifted_because_check CHECK (length(lifted_because) BETWEEN 1 AND 1000);
GRANT UPDATE (lifted_at, lifted_because) ON catalog.guard_freezes TO everhold_catalog;
