-- One index for each question. A plan that is made while a table is empty takes all of its indexes for equally good, and is kept while the
-- table fills: a delivery, or an event, was then looked for by its id among all that its tenant has, in the index of something else. An
-- index with such a condition is offered only where its column is asked for. docs/decisions/0003 says more.
SET LOCAL lock_timeout = '500ms';
DROP INDEX delivery_queue_event;
CREATE INDEX delivery_queue_event ON delivery_queue (tenant_id, event_id) WHERE event_id IS NOT NULL;

DROP INDEX dead_letters_subscription;
CREATE INDEX dead_letters_subscription ON dead_letters (tenant_id, subscription_id, delivery_id) WHERE subscription_id IS NOT NULL;

-- Only declared where there are events: see PartitionedIndexes, which then drops those whose place they take.
DO $$
DECLARE
    what text;
    is_new boolean := NOT EXISTS (SELECT FROM events LIMIT 1);
BEGIN
    FOREACH what IN ARRAY ARRAY[
        'events_by_correlation ON %s events (tenant_id, correlation_id, id) WHERE correlation_id IS NOT NULL',
        'events_by_type ON %s events (tenant_id, type, id) WHERE type IS NOT NULL'
    ] LOOP
        EXECUTE format('CREATE INDEX ' || what, CASE WHEN is_new THEN '' ELSE 'ONLY' END);
    END LOOP;
    IF is_new THEN
        DROP INDEX events_of_correlation, events_type;
    END IF;
END $$;
SET LOCAL lock_timeout = DEFAULT;
