-- Whether the origin's answer may lower the cost of a call with the field X-Tollgate-Cost. An origin that
-- sends back what a client sends must not have it: its clients would name their own price.
ALTER TABLE route_costs ADD COLUMN reprice INTEGER NOT NULL DEFAULT 0
  CONSTRAINT "reprice is 0 or 1" CHECK (reprice IN (0, 1));
