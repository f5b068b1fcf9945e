-- What a month or hour was ever charged and what of that was returned. Both only grow, so rows merge them by the larger value;
-- `cost` and `tokens` are the differences. A version that does not know these columns leaves them at 0 or behind: the next
-- flush takes the larger of `cost` and `cost_charged`, and of `tokens` and `tokens_charged`.
ALTER TABLE usage_monthly ADD COLUMN cost_charged INTEGER NOT NULL DEFAULT 0 CHECK (cost_charged >= 0);
ALTER TABLE usage_monthly ADD COLUMN cost_returned INTEGER NOT NULL DEFAULT 0 CHECK (cost_returned >= 0);
ALTER TABLE usage_monthly ADD COLUMN tokens_charged INTEGER NOT NULL DEFAULT 0 CHECK (tokens_charged >= 0);
ALTER TABLE usage_monthly ADD COLUMN tokens_returned INTEGER NOT NULL DEFAULT 0 CHECK (tokens_returned >= 0);
-- Tokens charged beyond what was held for them.
ALTER TABLE usage_monthly ADD COLUMN overdraft INTEGER NOT NULL DEFAULT 0 CHECK (overdraft >= 0);
UPDATE usage_monthly SET cost_charged = cost, tokens_charged = tokens;

ALTER TABLE usage_hourly ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0 CHECK (tokens >= 0);
ALTER TABLE usage_hourly ADD COLUMN cost_charged INTEGER NOT NULL DEFAULT 0 CHECK (cost_charged >= 0);
ALTER TABLE usage_hourly ADD COLUMN cost_returned INTEGER NOT NULL DEFAULT 0 CHECK (cost_returned >= 0);
ALTER TABLE usage_hourly ADD COLUMN tokens_charged INTEGER NOT NULL DEFAULT 0 CHECK (tokens_charged >= 0);
ALTER TABLE usage_hourly ADD COLUMN tokens_returned INTEGER NOT NULL DEFAULT 0 CHECK (tokens_returned >= 0);
UPDATE usage_hourly SET cost_charged = cost;

-- What the alert's quota counts.
ALTER TABLE alerts ADD COLUMN unit TEXT NOT NULL DEFAULT 'requests'
  CONSTRAINT "unit is requests or tokens" CHECK (unit IN ('requests', 'tokens'));
