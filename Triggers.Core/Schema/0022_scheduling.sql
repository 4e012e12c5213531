-- Events that are delivered at a time, and those that are not delivered any more after one: docs/scheduling.md. A process of the version
-- before knows of neither: ask for them once all of them are new.
SET LOCAL lock_timeout = '500ms';
ALTER TABLE delivery_queue ADD COLUMN expires_at timestamptz;
COMMENT ON COLUMN delivery_queue.expires_at IS 'that of its event: from then on it is not sent';
CREATE INDEX delivery_queue_expiry ON delivery_queue (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE inbox
    ADD COLUMN deliver_at timestamptz,
    ADD COLUMN expires_at timestamptz;
COMMENT ON COLUMN inbox.deliver_at IS 'that of the event: nobody sees it before';
CREATE INDEX inbox_scheduled ON inbox (event_id) WHERE deliver_at IS NOT NULL;
CREATE INDEX inbox_expiry ON inbox (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE deliveries
    DROP CONSTRAINT is_final,
    ADD CONSTRAINT is_final CHECK (
        status IN ('succeeded', 'dead_lettered', 'cancelled', 'expired') AND finalized_at IS NOT NULL) NOT VALID;

CREATE OR REPLACE VIEW all_deliveries AS
SELECT tenant_id, id, event_id, subscription_id, 'pending' AS status, claim, claimed_by, retry_count,
    nullif(next_attempt_at, 'infinity') AS next_attempt_at, last_outcome, last_status_code,
    replay_of, test, NULL::timestamptz AS finalized_at, expires_at
FROM delivery_queue
UNION ALL
SELECT tenant_id, id, event_id, subscription_id, status, claim, NULL, retry_count, NULL, last_outcome, last_status_code,
    replay_of, test, finalized_at, NULL
FROM deliveries;

-- Last, since nobody appends from here to the end.
ALTER TABLE events
    ADD COLUMN deliver_at timestamptz,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN cancelled_at timestamptz,
    ADD COLUMN expired_at timestamptz;
COMMENT ON COLUMN events.deliver_at IS 'nobody gets it before';
COMMENT ON COLUMN events.expires_at IS 'nobody gets it from then on';
COMMENT ON COLUMN events.cancelled_at IS 'somebody took it back before its time came';
COMMENT ON COLUMN events.expired_at IS 'somebody has not got it in time';
-- For the lists of those. Only declared where there are events: see PartitionedIndexes.
DO $$
BEGIN
    EXECUTE format('CREATE INDEX events_timed ON %s events (tenant_id, id) WHERE deliver_at IS NOT NULL OR expires_at IS NOT NULL',
        CASE WHEN EXISTS (SELECT FROM events LIMIT 1) THEN 'ONLY' ELSE '' END);
END $$;
SET LOCAL lock_timeout = DEFAULT;
