-- Identity: the tenant tree, people, sign-in, enrolment and agents.
--
-- Invariants held here and nowhere else only: every row belongs to one tenant and is seen in that tenant's
-- transactions only (tenants themselves: in those of their ancestors too); a token is used at most as often
-- as it may be; secrets are stored as hashes.

SELECT app.create_outbox('auth');

CREATE TABLE auth.tenants (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL,
    parent_id  uuid,
    kind       text NOT NULL,
    name       text NOT NULL,
    -- Lowercased name: siblings that differ in case only would be told apart by nobody.
    name_key   text NOT NULL,
    -- Every ancestor from the root down to, and including, the tenant itself.
    path       uuid[] NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    -- Only a parent's transaction can insert a child, and a parent sees all its children: no oracle.
    CONSTRAINT tenants_parent_id_name_key_key UNIQUE NULLS NOT DISTINCT (parent_id, name_key),
    CONSTRAINT tenants_parent_id_fkey FOREIGN KEY (parent_id, parent_id) REFERENCES auth.tenants (tenant_id, id),
    CONSTRAINT tenants_tenant_id_check CHECK (tenant_id = id),
    CONSTRAINT tenants_kind_check CHECK (kind IN ('platform', 'msp', 'tenant')),
    CONSTRAINT tenants_root_check CHECK ((parent_id IS NULL) = (kind = 'platform')),
    CONSTRAINT tenants_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT tenants_path_check CHECK (
        path[cardinality(path)] = id
        AND cardinality(path) = CASE kind WHEN 'platform' THEN 1 WHEN 'msp' THEN 2 ELSE 3 END
        AND (parent_id IS NULL OR path[cardinality(path) - 1] = parent_id)
    )
);
-- One platform per installation.
CREATE UNIQUE INDEX tenants_kind_key ON auth.tenants (kind) WHERE kind = 'platform';
CREATE INDEX tenants_path_idx ON auth.tenants USING gin (path);
ALTER TABLE auth.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.tenants FORCE ROW LEVEL SECURITY;
-- A tenant is seen by itself and by those above it, never by a sibling or a child.
CREATE POLICY tenants_seen_from_above ON auth.tenants FOR SELECT TO everhold_auth
    USING (app.tenant_id() = ANY (path));
-- Written by the parent; the platform's own row by itself.
CREATE POLICY tenants_written_by_parent ON auth.tenants FOR INSERT TO everhold_auth
    WITH CHECK (app.tenant_id() = COALESCE(parent_id, id));
-- A tenant is never changed, but it can be held while something about it is counted: PostgreSQL asks for the
-- right to update before it locks a row. The check lets no update through.
CREATE POLICY tenants_held_by_themselves ON auth.tenants FOR UPDATE TO everhold_auth
    USING (app.tenant_id() = id) WITH CHECK (false);
GRANT SELECT, INSERT, UPDATE (name) ON auth.tenants TO everhold_auth;

CREATE TABLE auth.users (
    tenant_id     uuid NOT NULL,
    id            uuid NOT NULL,
    email         text NOT NULL,
    name          text NOT NULL,
    -- PHC string of Argon2id.
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL,
    disabled_at   timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT users_tenant_id_fkey FOREIGN KEY (tenant_id, tenant_id) REFERENCES auth.tenants (tenant_id, id),
    CONSTRAINT users_email_check CHECK (char_length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT users_password_hash_check CHECK (password_hash LIKE '$argon2id$%')
);
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.users FORCE ROW LEVEL SECURITY;
CREATE POLICY users_of_tenant ON auth.users FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT ON auth.users TO everhold_auth;

CREATE TABLE auth.role_grants (
    tenant_id  uuid NOT NULL,
    user_id    uuid NOT NULL,
    role       text NOT NULL,
    granted_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, role),
    CONSTRAINT role_grants_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES auth.users (tenant_id, id)
);
ALTER TABLE auth.role_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.role_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY role_grants_of_tenant ON auth.role_grants FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT ON auth.role_grants TO everhold_auth;

-- From what a person types to the account it means, before any tenant is known. Unique within a tenant only:
-- one name may have accounts in several tenants, and a platform-wide key would tell every tenant who has one.
CREATE TABLE auth.signin_names (
    tenant_id  uuid NOT NULL,
    name_key   text NOT NULL,
    user_id    uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name_key),
    CONSTRAINT signin_names_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES auth.users (tenant_id, id)
);
CREATE INDEX signin_names_name_key_idx ON auth.signin_names (name_key, created_at);
ALTER TABLE auth.signin_names ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.signin_names FORCE ROW LEVEL SECURITY;
CREATE POLICY signin_names_of_tenant ON auth.signin_names FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
-- LookupTx: exactly the rows of the name asked for.
CREATE POLICY signin_names_by_lookup_key ON auth.signin_names FOR SELECT TO everhold_auth
    USING (name_key = app.lookup_key());
GRANT SELECT, INSERT ON auth.signin_names TO everhold_auth;

-- One sign-in and all refresh tokens descending from it.
CREATE TABLE auth.refresh_families (
    tenant_id        uuid NOT NULL,
    id               uuid NOT NULL,
    user_id          uuid NOT NULL,
    -- Where its access tokens act now: the home tenant or one below. A fact, checked again at every use.
    acting_tenant_id uuid NOT NULL,
    created_at       timestamptz NOT NULL,
    -- However often it is renewed, it ends here.
    expires_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    end_reason       text,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT refresh_families_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES auth.users (tenant_id, id),
    CONSTRAINT refresh_families_end_check CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CONSTRAINT refresh_families_end_reason_check CHECK (end_reason IN ('revoked', 'reused'))
);
CREATE INDEX refresh_families_expires_at_idx ON auth.refresh_families (expires_at);
ALTER TABLE auth.refresh_families ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.refresh_families FORCE ROW LEVEL SECURITY;
CREATE POLICY refresh_families_of_tenant ON auth.refresh_families FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, UPDATE (acting_tenant_id, ended_at, end_reason) ON auth.refresh_families TO everhold_auth;

CREATE TABLE auth.refresh_tokens (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL,
    family_id  uuid NOT NULL,
    -- SHA-256 of the whole token; the token itself is 256 random bits.
    token_hash bytea NOT NULL,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT refresh_tokens_family_id_fkey FOREIGN KEY (tenant_id, family_id)
        REFERENCES auth.refresh_families (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_token_hash_key UNIQUE (tenant_id, token_hash),
    CONSTRAINT refresh_tokens_token_hash_check CHECK (octet_length(token_hash) = 32)
);
CREATE INDEX refresh_tokens_family_id_idx ON auth.refresh_tokens (tenant_id, family_id);
ALTER TABLE auth.refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.refresh_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY refresh_tokens_of_tenant ON auth.refresh_tokens FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, UPDATE (used_at) ON auth.refresh_tokens TO everhold_auth;

CREATE TABLE auth.enrolment_tokens (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL,
    token_hash bytea NOT NULL,
    label      text NOT NULL,
    max_uses   int NOT NULL,
    uses       int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT enrolment_tokens_tenant_id_fkey FOREIGN KEY (tenant_id, tenant_id) REFERENCES auth.tenants (tenant_id, id),
    CONSTRAINT enrolment_tokens_token_hash_key UNIQUE (tenant_id, token_hash),
    CONSTRAINT enrolment_tokens_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT enrolment_tokens_label_check CHECK (char_length(label) <= 200),
    CONSTRAINT enrolment_tokens_max_uses_check CHECK (max_uses BETWEEN 1 AND 1000),
    CONSTRAINT enrolment_tokens_uses_check CHECK (uses BETWEEN 0 AND max_uses)
);
ALTER TABLE auth.enrolment_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.enrolment_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY enrolment_tokens_of_tenant ON auth.enrolment_tokens FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, UPDATE (uses, revoked_at) ON auth.enrolment_tokens TO everhold_auth;

CREATE TABLE auth.agents (
    tenant_id          uuid NOT NULL,
    id                 uuid NOT NULL,
    enrolment_token_id uuid NOT NULL,
    name               text NOT NULL,
    hostname           text NOT NULL,
    os                 text NOT NULL,
    arch               text NOT NULL,
    agent_version      text NOT NULL,
    -- Ed25519 and X25519 public keys.
    verify_key         bytea NOT NULL,
    hpke_key           bytea NOT NULL,
    enrolled_at        timestamptz NOT NULL,
    last_seen_at       timestamptz,
    revoked_at         timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT agents_enrolment_token_id_fkey FOREIGN KEY (tenant_id, enrolment_token_id)
        REFERENCES auth.enrolment_tokens (tenant_id, id),
    -- One key, one agent: whoever enrols twice with the same key is the same machine asking again.
    CONSTRAINT agents_verify_key_key UNIQUE (tenant_id, verify_key),
    CONSTRAINT agents_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT agents_os_check CHECK (os IN ('linux', 'windows', 'macos')),
    CONSTRAINT agents_verify_key_check CHECK (octet_length(verify_key) = 32),
    CONSTRAINT agents_hpke_key_check CHECK (octet_length(hpke_key) = 32)
);
ALTER TABLE auth.agents ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.agents FORCE ROW LEVEL SECURITY;
CREATE POLICY agents_of_tenant ON auth.agents FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT, UPDATE (last_seen_at, revoked_at) ON auth.agents TO everhold_auth;

-- Requests seen within the window of signatures; the primary key is what refuses a replay, on any replica.
CREATE TABLE auth.agent_nonces (
    tenant_id uuid NOT NULL,
    agent_id  uuid NOT NULL,
    nonce     text NOT NULL,
    seen_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, nonce),
    CONSTRAINT agent_nonces_agent_id_fkey FOREIGN KEY (tenant_id, agent_id) REFERENCES auth.agents (tenant_id, id),
    CONSTRAINT agent_nonces_nonce_check CHECK (char_length(nonce) = 22)
);
CREATE INDEX agent_nonces_seen_at_idx ON auth.agent_nonces (seen_at);
ALTER TABLE auth.agent_nonces ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.agent_nonces FORCE ROW LEVEL SECURITY;
CREATE POLICY agent_nonces_of_tenant ON auth.agent_nonces FOR ALL TO everhold_auth
    USING (tenant_id = app.tenant_id()) WITH CHECK (tenant_id = app.tenant_id());
GRANT SELECT, INSERT ON auth.agent_nonces TO everhold_auth;

-- The system role's whole business with identity: it sees ages of rows, and at first start whether there is a
-- platform tenant; nothing of people.
CREATE POLICY agent_nonces_pruned_when_stale ON auth.agent_nonces FOR ALL TO everhold_auth_system
    USING (app.system_reason() = 'nonce_expiry') WITH CHECK (false);
GRANT SELECT (seen_at), DELETE ON auth.agent_nonces TO everhold_auth_system;
CREATE POLICY refresh_families_pruned_when_expired ON auth.refresh_families FOR ALL TO everhold_auth_system
    USING (app.system_reason() = 'token_expiry') WITH CHECK (false);
GRANT SELECT (expires_at), DELETE ON auth.refresh_families TO everhold_auth_system;
CREATE POLICY tenants_root_found_at_bootstrap ON auth.tenants FOR SELECT TO everhold_auth_system
    USING (kind = 'platform' AND app.system_reason() = 'bootstrap');
GRANT SELECT (id, kind) ON auth.tenants TO everhold_auth_system;
