-- Which events of its types a subscription wants, as JSON text; null: all. The version before sends all.
ALTER TABLE subscriptions ADD COLUMN filter text;
