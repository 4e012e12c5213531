-- Events of a range of time that are delivered to a subscription again, or for the first time, in portions.
CREATE TABLE replay_jobs (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    reason text,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    event_types text[] CHECK (cardinality(event_types) > 0),
    include text NOT NULL CHECK (include IN ('undelivered', 'all')),
    next_event uuid NOT NULL,
    end_event uuid NOT NULL,
    matched bigint NOT NULL DEFAULT 0,
    deliveries bigint NOT NULL DEFAULT 0,
    next_step_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT finished_has_an_end CHECK ((status = 'running') = (finished_at IS NULL))
);
COMMENT ON COLUMN replay_jobs.event_types IS 'null: those that the subscription wants';
COMMENT ON COLUMN replay_jobs.next_event IS
    'every event below it has been dealt with; it moves in the transaction that makes the deliveries';
-- One at a time for each subscription, and what there is to do.
CREATE UNIQUE INDEX replay_jobs_running ON replay_jobs (subscription_id) WHERE status = 'running';

-- Tests are looked for by themselves: they wait neither for a full lane nor for a subscription to be enabled.
CREATE INDEX deliveries_tests ON deliveries (subscription_id, next_attempt_at) WHERE status = 'pending' AND test;
