-- Base of every database of Everhold: login roles, the five schemas, and the functions row security asks.
--
-- Runs first, as a superuser or as a role that may create roles and owns the database. Roles belong to the
-- whole cluster and may exist already, or be made at this moment by the migration of another database.
-- PostgreSQL 15 to 18.

DO $$
DECLARE
    service text;
    login text;
    pass text;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'everhold_owner') THEN
            CREATE ROLE everhold_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- made meanwhile for another database
    END;
    -- A migration role that is no superuser has to be a member to hand schemas to the owner.
    IF NOT pg_catalog.pg_has_role(current_user, 'everhold_owner', 'MEMBER') THEN
        GRANT everhold_owner TO CURRENT_USER;
    END IF;

    FOREACH service IN ARRAY ARRAY['auth', 'catalog', 'scheduler', 'audit', 'billing'] LOOP
        FOREACH login IN ARRAY ARRAY['everhold_' || service, 'everhold_' || service || '_system'] LOOP
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = login) THEN
                    EXECUTE pg_catalog.format(
                        'CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT NOCREATEDB NOCREATEROLE',
                        login);
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
            -- A statement that hangs, a lock that never comes and a client that forgot its transaction
            -- each end by themselves.
            FOREACH pass IN ARRAY ARRAY[
                'statement_timeout=30s', 'lock_timeout=10s', 'idle_in_transaction_session_timeout=60s'
            ] LOOP
                BEGIN
                    IF NOT EXISTS (
                        SELECT FROM pg_catalog.pg_roles WHERE rolname = login AND pass = ANY (rolconfig)
                    ) THEN
                        EXECUTE pg_catalog.format('ALTER ROLE %I SET %I = %L', login,
                            pg_catalog.split_part(pass, '=', 1), pg_catalog.split_part(pass, '=', 2));
                    END IF;
                EXCEPTION WHEN unique_violation OR internal_error THEN NULL; -- set at the same moment
                END;
            END LOOP;
        END LOOP;
    END LOOP;

    EXECUTE pg_catalog.format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE pg_catalog.format('GRANT CONNECT, CREATE ON DATABASE %I TO everhold_owner', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA app AUTHORIZATION everhold_owner;

-- The tenant of this transaction. NULL without one, so that a policy comparing with it sees no row. After a
-- transaction-local setting ends it reads as '' rather than NULL, hence NULLIF.
CREATE FUNCTION app.tenant_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(pg_catalog.current_setting('app.tenant_id', true), '')::uuid;

-- The one key a lookup without tenant may ask for (sign-in by name).
CREATE FUNCTION app.lookup_key() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(pg_catalog.current_setting('app.lookup_key', true), '');

-- Why a system transaction runs (pg::SystemReason). Policies for system roles may demand one.
CREATE FUNCTION app.system_reason() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(pg_catalog.current_setting('app.system_reason', true), '');

ALTER FUNCTION app.tenant_id() OWNER TO everhold_owner;
ALTER FUNCTION app.lookup_key() OWNER TO everhold_owner;
ALTER FUNCTION app.system_reason() OWNER TO everhold_owner;

-- Called once by each service's first migration: `SELECT app.create_outbox('catalog');`. One definition for
-- all, so that no schema's outbox drifts from what crates/pg writes and relays.
CREATE FUNCTION app.create_outbox(service text) RETURNS void
    LANGUAGE plpgsql SET search_path = ''
    AS $$
DECLARE
    login text := 'everhold_' || service;
    system_login text := 'everhold_' || service || '_system';
BEGIN
    EXECUTE pg_catalog.format($ddl$
        CREATE TABLE %1$I.outbox (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
            -- Order inside one transaction; across transactions the transaction id decides.
            position bigint GENERATED ALWAYS AS IDENTITY,
            topic text NOT NULL,
            payload jsonb NOT NULL,
            trace_context text,
            created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
            xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
            delivered_at timestamptz,
            -- Its receiver will never take it; a person has to look. Everything after it went on.
            parked_at timestamptz,
            PRIMARY KEY (tenant_id, id),
            CONSTRAINT outbox_topic_check CHECK (topic ~ '^[a-z_]{1,40}$')
        );
        CREATE INDEX outbox_undelivered_idx ON %1$I.outbox (xid, position)
            WHERE delivered_at IS NULL AND parked_at IS NULL;
        ALTER TABLE %1$I.outbox ENABLE ROW LEVEL SECURITY;
        ALTER TABLE %1$I.outbox FORCE ROW LEVEL SECURITY;
        ALTER TABLE %1$I.outbox OWNER TO everhold_owner;
        CREATE POLICY tenant_writes ON %1$I.outbox FOR INSERT TO %2$I
            WITH CHECK (tenant_id = app.tenant_id());
        CREATE POLICY system_relays ON %1$I.outbox FOR SELECT TO %3$I USING (true);
        CREATE POLICY system_marks_delivered ON %1$I.outbox FOR UPDATE TO %3$I
            USING (app.system_reason() = 'outbox_relay');
        CREATE POLICY system_forgets_delivered ON %1$I.outbox FOR DELETE TO %3$I
            USING (delivered_at IS NOT NULL AND app.system_reason() = 'outbox_relay');
        CREATE POLICY system_writes ON %1$I.outbox FOR INSERT TO %3$I WITH CHECK (true);
        GRANT INSERT ON %1$I.outbox TO %2$I;
        GRANT SELECT, INSERT, DELETE, UPDATE (delivered_at, parked_at) ON %1$I.outbox TO %3$I;
    $ddl$, service, login, system_login);
END
$$;
ALTER FUNCTION app.create_outbox(text) OWNER TO everhold_owner;
REVOKE ALL ON FUNCTION app.create_outbox(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.create_outbox(text) TO everhold_owner;

-- The schemas are made here, empty; services fill theirs.
DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['auth', 'catalog', 'scheduler', 'audit', 'billing'] LOOP
        EXECUTE pg_catalog.format('CREATE SCHEMA %I AUTHORIZATION everhold_owner', service);
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I, app TO %I, %I',
            service, 'everhold_' || service, 'everhold_' || service || '_system');
        EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I, %I',
            current_database(), 'everhold_' || service, 'everhold_' || service || '_system');
    END LOOP;
END
$$;
