-- `audit_days`: for how long the requests of the tier's keys are kept one by one; 0 is not at all.
ALTER TABLE tiers ADD COLUMN audit_days INTEGER NOT NULL DEFAULT 0
  CONSTRAINT "audit_days is 0 to 3650" CHECK (audit_days BETWEEN 0 AND 3650);
-- How often the admin API has changed the tier. It orders the changes on their way to the objects.
ALTER TABLE tiers ADD COLUMN version INTEGER NOT NULL DEFAULT 0 CHECK (version >= 0);

UPDATE tiers SET audit_days = CASE name WHEN 'free' THEN 7 WHEN 'basic' THEN 30 WHEN 'pro' THEN 90 ELSE 365 END
WHERE name IN ('free', 'basic', 'pro', 'enterprise');
