-- What is not final moves to a small table of its own; deliveries becomes the history, written once.
-- docs/decisions/0009-queue-and-history.md says why. Only this change is not additive: the delivery processes of the version before must
-- have stopped. Nothing here waits for, or holds up, the acceptance of events.

-- What has an attempt ahead of it, or one in flight. Every index of the hot path is here.
CREATE TABLE delivery_queue (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    event_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    claim int NOT NULL DEFAULT 0 CHECK (claim >= 0),
    claimed_by int,
    retry_count int NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
    next_attempt_at timestamptz NOT NULL,
    data_bytes int NOT NULL DEFAULT 0 CHECK (data_bytes >= 0),
    is_replay boolean NOT NULL DEFAULT false,
    replay_of uuid,
    test boolean NOT NULL DEFAULT false,
    last_outcome text,
    last_status_code int,
    last_trace_parent text,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON COLUMN delivery_queue.next_attempt_at IS 'the schedule, and while it is claimed the lease';
COMMENT ON COLUMN delivery_queue.is_replay IS 'somebody asked for it: its event is no more pending than before';
COMMENT ON COLUMN delivery_queue.data_bytes IS 'length of the event''s data, which bounds how much of it a lane has in memory';
CREATE INDEX delivery_queue_due ON delivery_queue (subscription_id, next_attempt_at) WHERE NOT test;
-- Tests are looked for by themselves: they wait neither for a full lane nor for a subscription to be enabled.
CREATE INDEX delivery_queue_tests ON delivery_queue (subscription_id, next_attempt_at) WHERE test;
CREATE INDEX delivery_queue_event ON delivery_queue (tenant_id, event_id);

-- Events that nobody got and nobody is about to get: matched by nobody, or every delivery cancelled or given up.
CREATE TABLE inbox (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, event_id)
);

CREATE TABLE acknowledgements (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    acknowledged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
) PARTITION BY RANGE (event_id);

-- A partition of one day (UTC). It is made apart and then attached, so that whoever writes to the table waits for nothing; whoever has to
-- wait for is not waited for longer than the lock_timeout of the session. Rows that the default partition caught come along, as long as
-- they are few: the default partition is locked meanwhile.
-- Answers whether the day has its partition now.
CREATE FUNCTION make_partition(parent text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || to_char(day, 'YYYYMMDD');
    rest text := parent || '_default';
    key text := CASE parent WHEN 'attempts' THEN 'delivery_id' WHEN 'acknowledgements' THEN 'event_id' ELSE 'id' END;
    first uuid := uuid_at(day::timestamp AT TIME ZONE 'UTC');
    next uuid := uuid_at((day + 1)::timestamp AT TIME ZONE 'UTC');
BEGIN
    PERFORM pg_advisory_xact_lock(7305, 2);
    IF to_regclass(quote_ident(child)) IS NOT NULL THEN
        RETURN true;
    END IF;
    IF to_regclass(quote_ident(rest)) IS NOT NULL AND pg_relation_size(quote_ident(rest)) > 16 * 1024 * 1024 THEN
        -- To move that many rows, or only to look at them, would stop whoever writes. They stay where they are, with what else comes of
        -- days up to tomorrow; a later day is certain to have none yet, and a constraint tells Postgres so.
        RETURN make_partition_beside_default(parent, day);
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
    IF to_regclass(quote_ident(rest)) IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', rest);
        EXECUTE format('WITH caught AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM caught',
            rest, key, first, key, next, child);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, first, next);
    RETURN true;
END $$;

-- The same where the default partition holds much. Called again and again: a step a call, each a transaction of its own, since what the
-- first step locks must be free again while the second reads through the default partition.
CREATE FUNCTION make_partition_beside_default(parent text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || to_char(day, 'YYYYMMDD');
    rest text := parent || '_default';
    holds_none text := 'none_of_' || to_char(day, 'YYYYMMDD');
    key text := CASE parent WHEN 'attempts' THEN 'delivery_id' WHEN 'acknowledgements' THEN 'event_id' ELSE 'id' END;
    first uuid := uuid_at(day::timestamp AT TIME ZONE 'UTC');
    next uuid := uuid_at((day + 1)::timestamp AT TIME ZONE 'UTC');
    validated boolean;
BEGIN
    IF day < (now() AT TIME ZONE 'UTC')::date + 2 THEN
        RETURN false;
    END IF;
    SELECT convalidated INTO validated FROM pg_constraint WHERE conrelid = to_regclass(quote_ident(rest)) AND conname = holds_none;
    IF validated IS NULL THEN
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (%I < %L OR %I >= %L) NOT VALID', rest, holds_none, key, first, key, next);
    ELSIF NOT validated THEN
        EXECUTE format('ALTER TABLE %I VALIDATE CONSTRAINT %I', rest, holds_none);
    ELSE
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, first, next);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', rest, holds_none);
        RETURN true;
    END IF;
    RETURN false;
END $$;

DROP FUNCTION ensure_partitions(int);
DROP FUNCTION ensure_partitions_between(date, date);

-- What no day covers. Whoever comes late, and whoever comes when nobody has made partitions for days, has a place.
DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['events', 'deliveries', 'attempts', 'acknowledgements'] LOOP
        -- deliveries gets its own below, when it has its new form.
        CONTINUE WHEN parent = 'deliveries';
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', parent || '_default', parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', parent, parent || '_default');
    END LOOP;
    PERFORM make_partition('acknowledgements', day::date)
    FROM generate_series((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 7, interval '1 day') day;
END $$;

-- From here on nobody reads or writes deliveries until this is done.
LOCK TABLE deliveries, open_events IN ACCESS EXCLUSIVE MODE;

INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, claim, claimed_by, retry_count, next_attempt_at,
    data_bytes, is_replay, replay_of, test,
    last_outcome, last_status_code, last_trace_parent)
SELECT d.tenant_id, d.id, d.event_id, d.subscription_id, d.claim, d.claimed_by, d.retry_count, d.next_attempt_at,
    coalesce((SELECT octet_length(e.data) FROM events e WHERE e.tenant_id = d.tenant_id AND e.id = d.event_id), 0),
    -- A delivery of an event that was settled is a replay, also where the event went there for the first time.
    d.replay_of IS NOT NULL OR NOT EXISTS (SELECT FROM open_events o WHERE o.tenant_id = d.tenant_id AND o.event_id = d.event_id),
    d.replay_of, d.test, d.last_outcome, d.last_status_code, d.last_trace_parent
FROM deliveries d WHERE d.status = 'pending';
DELETE FROM deliveries WHERE status = 'pending';

INSERT INTO acknowledgements (tenant_id, event_id, acknowledged_at)
SELECT tenant_id, event_id, acknowledged_at FROM open_events WHERE acknowledged_at IS NOT NULL;
INSERT INTO inbox (tenant_id, event_id)
SELECT tenant_id, event_id FROM open_events o
WHERE dead = 0 AND done = 0 AND acknowledged_at IS NULL
    AND NOT EXISTS (SELECT FROM delivery_queue q WHERE q.tenant_id = o.tenant_id AND q.event_id = o.event_id AND NOT q.is_replay);
DROP TABLE open_events;

-- The history. A row is written when a delivery has ended, with its last attempt in it; rows from before have all of theirs in attempts.
DROP TRIGGER deliveries_final ON deliveries;
DROP FUNCTION refuse_leaving_final_state();
DROP INDEX deliveries_due;
DROP INDEX deliveries_tests;
ALTER TABLE deliveries
    DROP CONSTRAINT pending_is_scheduled,
    DROP CONSTRAINT final_has_an_end,
    DROP CONSTRAINT final_is_not_claimed,
    DROP CONSTRAINT deliveries_status_check,
    DROP COLUMN claimed_by,
    DROP COLUMN next_attempt_at,
    DROP COLUMN last_trace_parent,
    ALTER COLUMN status DROP DEFAULT,
    ADD COLUMN attempt_id uuid,
    ADD COLUMN attempt_number int,
    ADD COLUMN attempt_started_at timestamptz,
    ADD COLUMN attempt_duration_ms int,
    ADD COLUMN attempt_error text,
    ADD COLUMN response_headers jsonb,
    ADD COLUMN response_body bytea,
    -- Not valid: what is there is known to keep them, and to read through it all takes long.
    ADD CONSTRAINT is_final CHECK (status IN ('succeeded', 'dead_lettered', 'cancelled') AND finalized_at IS NOT NULL) NOT VALID,
    ADD CONSTRAINT attempt_is_whole CHECK (
        num_nulls(attempt_id, attempt_number, attempt_started_at, attempt_duration_ms) IN (0, 4) AND attempt_number > 0
            AND attempt_duration_ms >= 0
        AND length(response_body) <= 4096) NOT VALID;
CREATE TABLE deliveries_default (LIKE deliveries INCLUDING ALL);
ALTER TABLE deliveries ATTACH PARTITION deliveries_default DEFAULT;

CREATE FUNCTION refuse_changing_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'delivery % is %: history is never changed', OLD.id, OLD.status USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER deliveries_are_history BEFORE UPDATE ON deliveries FOR EACH ROW EXECUTE FUNCTION refuse_changing_history();

CREATE INDEX dead_letters_unresolved_event ON dead_letters (tenant_id, event_id) WHERE state IN ('open', 'replaying');

-- Where a delivery stands, wherever it lies: what is read, and never written.
CREATE VIEW all_deliveries AS
SELECT tenant_id, id, event_id, subscription_id, 'pending' AS status, claim, claimed_by, retry_count, next_attempt_at,
    last_outcome, last_status_code,
    replay_of, test, NULL::timestamptz AS finalized_at
FROM delivery_queue
UNION ALL
SELECT tenant_id, id, event_id, subscription_id, status, claim, NULL, retry_count, NULL, last_outcome, last_status_code,
    replay_of, test, finalized_at
FROM deliveries;

CREATE VIEW all_attempts AS
SELECT tenant_id, delivery_id, claim, id, number, started_at, duration_ms, outcome, error, status_code, response_headers, response_body
FROM attempts
UNION ALL
SELECT tenant_id, id, claim, attempt_id, attempt_number, attempt_started_at, attempt_duration_ms, last_outcome, attempt_error,
    last_status_code,
    response_headers, response_body
FROM deliveries WHERE attempt_id IS NOT NULL;
