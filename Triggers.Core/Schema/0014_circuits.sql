-- Circuit breakers that are not closed: a subscription whose receiver is well has no row, and costs nothing.
CREATE TABLE circuits (
    subscription_id uuid PRIMARY KEY REFERENCES subscriptions (id),
    tenant_id uuid NOT NULL,
    epoch bigint GENERATED ALWAYS AS IDENTITY,
    state text NOT NULL CHECK (state IN ('open', 'half_open')),
    reason text NOT NULL CHECK (reason IN ('failures', 'requested')),
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    failing_since timestamptz,
    failed_probes int NOT NULL DEFAULT 0 CHECK (failed_probes >= 0),
    next_probe_at timestamptz CHECK ((next_probe_at IS NULL) = (reason = 'requested')),
    last_outcome text,
    last_status_code int
);
COMMENT ON COLUMN circuits.epoch IS 'another one with every change: who has seen an older one changes nothing';
COMMENT ON COLUMN circuits.next_probe_at IS 'when the next probe may be made; while one is under way, when it is given up';
