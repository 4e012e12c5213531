-- Events of which more deliveries follow than one transaction of the projection makes. They are made in portions, tenants in turn, so that
-- nobody waits behind them; a row goes with its last portion.
CREATE TABLE fan_outs (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    data_bytes int NOT NULL CHECK (data_bytes >= 0),
    after uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    PRIMARY KEY (tenant_id, event_id)
);
COMMENT ON COLUMN fan_outs.after IS 'the subscriptions up to this one have their delivery, in the order of their ids';
CREATE INDEX fan_outs_order ON fan_outs (tenant_id, number);
