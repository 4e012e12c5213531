-- What keys may do, under a name: plans are everybody's, a key has one or none.
CREATE TABLE usage_plans (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    requests_per_second int NOT NULL CHECK (requests_per_second > 0),
    burst int NOT NULL CHECK (burst > 0),
    events_per_day int CHECK (events_per_day > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE api_keys ADD COLUMN usage_plan_id uuid REFERENCES usage_plans (id);
CREATE INDEX api_keys_usage_plan ON api_keys (usage_plan_id) WHERE usage_plan_id IS NOT NULL;
