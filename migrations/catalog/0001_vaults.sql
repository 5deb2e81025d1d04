-- Vaults, their keys, and the workloads they hold. Wrapped keys and rosters are copies of what the key
-- store (an unlocked, versioned bucket) holds; `stored_at` says that the copy there exists.

SELECT app.create_outbox('catalog');

CREATE TABLE catalog.vaults (
    tenant_id            uuid        NOT NULL,
    id                   uuid        NOT NULL,
    agent_id             uuid        NOT NULL,
    name                 text        NOT NULL,
    key_mode             text        NOT NULL,
    descriptor           bytea       NOT NULL,
    -- The epoch whose key seals new packs.
    key_epoch            integer     NOT NULL,
    has_kit              boolean     NOT NULL,
    -- Raised whenever a pack of the vault is found lost; a commit that began under another value starts again.
    damage_epoch         bigint      NOT NULL DEFAULT 0,
    created_at           timestamptz NOT NULL,
    descriptor_stored_at timestamptz,
    CONSTRAINT vaults_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT vaults_key_mode_check CHECK (key_mode IN ('managed', 'customer_held')),
    CONSTRAINT vaults_name_check CHECK (length(name) BETWEEN 1 AND 200)
);

CREATE TABLE catalog.key_wraps (
    tenant_id      uuid    NOT NULL,
    vault_id       uuid    NOT NULL,
    epoch          integer NOT NULL,
    recipient_kind text    NOT NULL,
    recipient_id   text    NOT NULL,
    wrap           bytea   NOT NULL,
    stored_at      timestamptz,
    CONSTRAINT key_wraps_pkey PRIMARY KEY (tenant_id, vault_id, epoch, recipient_kind, recipient_id),
    CONSTRAINT key_wraps_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT key_wraps_recipient_kind_check CHECK (recipient_kind IN ('agent', 'root', 'platform')),
    -- It becomes part of an object name in the key store.
    CONSTRAINT key_wraps_recipient_id_check CHECK (recipient_id ~ '^[0-9a-z_]{1,100}$')
);

CREATE TABLE catalog.rosters (
    tenant_id  uuid   NOT NULL,
    vault_id   uuid   NOT NULL,
    generation bigint NOT NULL,
    roster     bytea  NOT NULL,
    stored_at  timestamptz,
    CONSTRAINT rosters_pkey PRIMARY KEY (tenant_id, vault_id, generation),
    CONSTRAINT rosters_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id)
);

CREATE TABLE catalog.workloads (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    agent_id   uuid        NOT NULL,
    vault_id   uuid        NOT NULL,
    kind       text        NOT NULL,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL,
    -- Raised when a session opens; whoever carries a lower one has lost.
    fence      bigint      NOT NULL DEFAULT 0,
    -- Place of the newest snapshot in the workload's chain.
    last_seq   bigint      NOT NULL DEFAULT 0,
    CONSTRAINT workloads_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT workloads_vault_id_fkey FOREIGN KEY (tenant_id, vault_id) REFERENCES catalog.vaults (tenant_id, id),
    CONSTRAINT workloads_kind_check CHECK (kind IN ('files')),
    CONSTRAINT workloads_name_check CHECK (length(name) BETWEEN 1 AND 200)
);
CREATE INDEX workloads_vault_id_idx ON catalog.workloads (tenant_id, vault_id);
CREATE INDEX workloads_agent_id_idx ON catalog.workloads (tenant_id, agent_id);

-- Collection, expiry and key destruction stand still for a tenant with a standing freeze.
CREATE TABLE catalog.guard_freezes (
    tenant_id uuid        NOT NULL,
    id        uuid        NOT NULL,
    reason    text        NOT NULL,
    -- What was presented and is unknown here, as text.
    evidence  text        NOT NULL,
    frozen_at timestamptz NOT NULL,
    lifted_at timestamptz,
    CONSTRAINT guard_freezes_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT guard_freezes_reason_check CHECK (reason IN ('unknown_receipt'))
);
CREATE UNIQUE INDEX guard_freezes_standing_key ON catalog.guard_freezes (tenant_id, evidence) WHERE lifted_at IS NULL;

GRANT SELECT, INSERT ON catalog.vaults, catalog.key_wraps, catalog.rosters, catalog.workloads, catalog.guard_freezes
    TO everhold_catalog;
GRANT UPDATE (descriptor_stored_at, damage_epoch) ON catalog.vaults TO everhold_catalog;
GRANT UPDATE (stored_at) ON catalog.key_wraps, catalog.rosters TO everhold_catalog;
GRANT UPDATE (fence, last_seq) ON catalog.workloads TO everhold_catalog;
