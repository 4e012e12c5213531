-- What an event has beside the columns that every event has: the form of its data, and what a CloudEvent brought. Null for almost all.
-- The data of such an event is a JSON value all the same, so that the version before shows it, if not for what it is.
SET LOCAL lock_timeout = '500ms';
ALTER TABLE events ADD COLUMN attributes text;
SET LOCAL lock_timeout = DEFAULT;
