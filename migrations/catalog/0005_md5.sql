-- Stores that check SHA-256 are not sent an MD5 any more: it would say nothing new.
ALTER TABLE catalog.packs ALTER COLUMN md5 DROP NOT NULL;
