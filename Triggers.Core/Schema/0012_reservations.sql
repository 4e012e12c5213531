-- Which log the owner of a reservation appends to: only that one can tell what a dead owner left.
ALTER TABLE request_keys ADD COLUMN reserved_by text;
COMMENT ON COLUMN request_keys.reserved_by IS 'kafka or postgres; null where key and event were written together, or by a version before';
