-- Large data is stored while the log is locked, and with pglz, Postgres' own compression, that takes 20 ms a megabyte: six times as long as
-- without. lz4 takes a tenth of that; a server that has none stores the data as it is. What is stored already stays as it is.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    ALTER TABLE events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE events ALTER COLUMN data SET STORAGE EXTERNAL;
END $$;
SET LOCAL lock_timeout = DEFAULT;
