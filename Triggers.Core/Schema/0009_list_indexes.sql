-- What lists filter by. An index on a table with much in it takes minutes, and its building would hold up who writes to the table; so here
-- it is only declared there, and built partition by partition, beside those who write, when the migrations are done: see
-- PartitionedIndexes.
DO $$
DECLARE
    what text;
    is_new boolean := NOT EXISTS (SELECT FROM events LIMIT 1);
BEGIN
    FOREACH what IN ARRAY ARRAY[
        'events_of_correlation ON %s events (tenant_id, correlation_id, id)',
        'events_subject ON %s events (tenant_id, subject, id) WHERE subject IS NOT NULL',
        'events_source ON %s events (tenant_id, source, id) WHERE source IS NOT NULL',
        'deliveries_subscription ON %s deliveries (subscription_id, id)'
    ] LOOP
        EXECUTE format('CREATE INDEX ' || what, CASE WHEN is_new THEN '' ELSE 'ONLY' END);
    END LOOP;
    IF is_new THEN
        -- events_of_correlation takes its place.
        DROP INDEX events_correlation;
    END IF;
END $$;

CREATE INDEX dead_letters_subscription ON dead_letters (tenant_id, subscription_id, delivery_id);
