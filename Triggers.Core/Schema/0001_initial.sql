-- The whole schema. Later versions add files beside this one; a change must be additive, so that the version before it keeps working.

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes text[] NOT NULL,
    requests_per_second int CHECK (requests_per_second > 0),
    burst int CHECK (burst > 0),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);

CREATE TABLE subscriptions (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    url text NOT NULL,
    event_types text[] NOT NULL CHECK (cardinality(event_types) > 0),
    description text,
    headers jsonb NOT NULL DEFAULT '{}',
    secrets jsonb NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CHECK (enabled = (disabled_reason IS NULL))
);
CREATE INDEX subscriptions_tenant ON subscriptions (tenant_id, id) WHERE deleted_at IS NULL;

-- One row. Every write to subscriptions bumps it; every projection transaction reads it, so that matching is never stale.
CREATE TABLE subscriptions_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
);
INSERT INTO subscriptions_version (version) VALUES (1);

CREATE FUNCTION bump_subscriptions_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE subscriptions_version SET version = version + 1;
    PERFORM pg_notify('triggers_subscriptions', '');
    RETURN NULL;
END $$;
CREATE TRIGGER subscriptions_version_bump AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION bump_subscriptions_version();

-- Events. On the Postgres log this table is the log: seq is taken under the append lock, so its order is the order of commits.
-- Times of creation are in the ids (UUIDv7).
CREATE SEQUENCE events_seq AS bigint;
CREATE TABLE events (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    seq bigint,
    external_id text,
    type text NOT NULL,
    source text,
    subject text,
    time timestamptz,
    correlation_id text NOT NULL,
    trace_parent text,
    data bytea NOT NULL,
    PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX events_seq_order ON events (seq) WHERE seq IS NOT NULL;
CREATE INDEX events_type ON events (tenant_id, type, id);
CREATE INDEX events_correlation ON events (tenant_id, correlation_id);

-- What is not settled yet, and only that. No row: every delivery succeeded or was cancelled, or somebody acknowledged.
CREATE TABLE open_events (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    open int NOT NULL CHECK (open >= 0),
    done int NOT NULL DEFAULT 0 CHECK (done >= 0),
    dead int NOT NULL DEFAULT 0 CHECK (dead >= 0),
    acknowledged_at timestamptz,
    PRIMARY KEY (tenant_id, event_id)
) WITH (fillfactor = 70);
CREATE INDEX open_events_inbox ON open_events (tenant_id, event_id) WHERE acknowledged_at IS NULL AND dead = 0;

-- Idempotency keys and external ids: who came first, and with what.
CREATE TABLE request_keys (
    tenant_id uuid NOT NULL,
    kind smallint NOT NULL CHECK (kind IN (0, 1)),
    key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    event_id uuid NOT NULL,
    correlation_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    busy_until timestamptz,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, kind, key_hash)
);
COMMENT ON COLUMN request_keys.kind IS '0 = Idempotency-Key, 1 = external id';
CREATE INDEX request_keys_expiry ON request_keys (expires_at) WHERE expires_at < 'infinity';

CREATE TABLE deliveries (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    event_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'succeeded', 'dead_lettered', 'cancelled')),
    claim int NOT NULL DEFAULT 0,
    claimed_by int,
    retry_count int NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
    next_attempt_at timestamptz,
    last_outcome text,
    last_status_code int,
    replay_of uuid,
    test boolean NOT NULL DEFAULT false,
    finalized_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT pending_is_scheduled CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT final_has_an_end CHECK ((status = 'pending') = (finalized_at IS NULL)),
    CONSTRAINT final_is_not_claimed CHECK (status = 'pending' OR claimed_by IS NULL)
) PARTITION BY RANGE (id);
-- The only index on what is due: a lane each, in the order of the schedule.
CREATE INDEX deliveries_due ON deliveries (subscription_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX deliveries_event ON deliveries (event_id);

CREATE FUNCTION refuse_leaving_final_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'delivery % is %: a final state is never left', OLD.id, OLD.status USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER deliveries_final BEFORE UPDATE ON deliveries
    FOR EACH ROW WHEN (OLD.status <> 'pending') EXECUTE FUNCTION refuse_leaving_final_state();

CREATE TABLE attempts (
    delivery_id uuid NOT NULL,
    claim int NOT NULL,
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    number int NOT NULL CHECK (number > 0),
    started_at timestamptz NOT NULL,
    duration_ms int NOT NULL CHECK (duration_ms >= 0),
    outcome text NOT NULL,
    error text,
    status_code int,
    response_headers jsonb,
    response_body bytea CHECK (length(response_body) <= 4096),
    PRIMARY KEY (delivery_id, claim)
) PARTITION BY RANGE (delivery_id);

CREATE TABLE dead_letters (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    event_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replaying', 'resolved', 'discarded')),
    reason text NOT NULL,
    attempts int NOT NULL,
    last_outcome text,
    last_status_code int,
    created_at timestamptz NOT NULL DEFAULT now(),
    replay_delivery_id uuid,
    closed_at timestamptz,
    published_at timestamptz,
    PRIMARY KEY (tenant_id, delivery_id),
    CONSTRAINT closed_has_an_end CHECK ((state IN ('resolved', 'discarded')) = (closed_at IS NOT NULL)),
    CONSTRAINT replaying_names_its_replay CHECK (state <> 'replaying' OR replay_delivery_id IS NOT NULL)
);
CREATE INDEX dead_letters_event ON dead_letters (event_id);
CREATE INDEX dead_letters_unresolved ON dead_letters (tenant_id, delivery_id) WHERE state IN ('open', 'replaying');
CREATE INDEX dead_letters_unpublished ON dead_letters (created_at) WHERE published_at IS NULL;

CREATE TABLE log_positions (
    log text NOT NULL,
    partition int NOT NULL,
    next bigint NOT NULL,
    PRIMARY KEY (log, partition)
);
INSERT INTO log_positions (log, partition, next) VALUES ('postgres', 0, 1);

-- A row per living Delivery process; it holds a session advisory lock on its number for as long as it lives.
CREATE TABLE workers (
    number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now()
);

-- The smallest UUIDv7 of a moment.
CREATE FUNCTION uuid_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;

-- Daily partitions (UTC) of the tables with history, from yesterday to `days` ahead. Answers how many days ahead there are.
CREATE FUNCTION ensure_partitions(days int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM pg_advisory_xact_lock(7305, 2);
    FOREACH parent IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
        FOR day IN SELECT generate_series(today - 1, today + days, interval '1 day')::date LOOP
            IF to_regclass(format('%I', parent || '_' || to_char(day, 'YYYYMMDD'))) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent || '_' || to_char(day, 'YYYYMMDD'), parent,
                    uuid_at(day::timestamp AT TIME ZONE 'UTC'), uuid_at((day + 1)::timestamp AT TIME ZONE 'UTC'));
            END IF;
        END LOOP;
    END LOOP;
    RETURN days;
END $$;
SELECT ensure_partitions(7);
