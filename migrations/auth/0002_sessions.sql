-- A person's own sign-ins: what they look like to that person, and their ends.
ALTER TABLE auth.refresh_families
    -- What signed in, as it named itself (User-Agent); shown to its owner only.
    ADD COLUMN client text NOT NULL DEFAULT '',
    ADD COLUMN last_used_at timestamptz,
    ADD CONSTRAINT refresh_families_client_check CHECK (char_length(client) <= 200),
    DROP CONSTRAINT refresh_families_end_reason_check,
    ADD CONSTRAINT refresh_families_end_reason_check CHECK (end_reason IN ('revoked', 'reused', 'password_changed'));
CREATE INDEX refresh_families_user_id_idx ON auth.refresh_families (tenant_id, user_id) WHERE ended_at IS NULL;
GRANT UPDATE (last_used_at) ON auth.refresh_families TO everhold_auth;
GRANT UPDATE (password_hash) ON auth.users TO everhold_auth;
