-- W3C trace context of the last failed attempt, when that was traced: the next attempt's span links to it.
ALTER TABLE deliveries ADD COLUMN last_trace_parent text;
