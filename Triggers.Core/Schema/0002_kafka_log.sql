-- The Kafka log. Its positions are rows of log_positions too: log is 'kafka:' and the topic's id, so that a topic made anew begins anew.

-- When the newest record below `next` was appended. Whoever reads in the order of time goes no further while the projection lags.
ALTER TABLE log_positions ADD COLUMN passed_at timestamptz;

-- Partitions for the days from one to another (UTC). After a long outage the log holds events of days that nobody made partitions for.
CREATE FUNCTION ensure_partitions_between(first date, last date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
BEGIN
    PERFORM pg_advisory_xact_lock(7305, 2);
    FOREACH parent IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
        FOR day IN SELECT generate_series(first, last, interval '1 day')::date LOOP
            IF to_regclass(format('%I', parent || '_' || to_char(day, 'YYYYMMDD'))) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent || '_' || to_char(day, 'YYYYMMDD'), parent,
                    uuid_at(day::timestamp AT TIME ZONE 'UTC'), uuid_at((day + 1)::timestamp AT TIME ZONE 'UTC'));
            END IF;
        END LOOP;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION ensure_partitions(days int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM ensure_partitions_between(today - 1, today + days);
    RETURN days;
END $$;
