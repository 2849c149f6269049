-- What the stream does not carry, and what needs care beside it. The role kinds_owner exists on the source alone.

DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kinds_owner') THEN CREATE ROLE kinds_owner LOGIN; END IF;
END $$;

CREATE TABLE item (id integer PRIMARY KEY, name text, price numeric);
INSERT INTO item SELECT g, 'item ' || g, g FROM generate_series(1, 500) g;

-- Materialized views that read each other, directly and through a view.
CREATE MATERIALIZED VIEW zero AS SELECT count(*) AS items, sum(price) AS total FROM item;
CREATE VIEW between_them AS SELECT items + 1 AS more FROM zero;
CREATE MATERIALIZED VIEW one AS SELECT more FROM between_them;
CREATE MATERIALIZED VIEW a_two AS SELECT o.more, z.items FROM one o, zero z;
CREATE UNIQUE INDEX ON a_two (more);
CREATE MATERIALIZED VIEW empty_one AS SELECT 1 AS one WITH NO DATA;

CREATE UNLOGGED TABLE cache (key text PRIMARY KEY, value jsonb);
INSERT INTO cache SELECT 'key ' || g, jsonb_build_object('g', g) FROM generate_series(1, 200) g;
CREATE UNLOGGED TABLE cache_without_key (v text);
INSERT INTO cache_without_key VALUES ('twice'), ('twice'), (NULL);

-- Large objects: small, empty, with a hole, of several pages, owned and granted to others, with a comment.
SELECT lo_from_bytea(900001, 'small');
SELECT lo_create(900002);
SELECT lo_create(900003);
SELECT lo_put(900003, 100000, '\x00ff00ff');
SELECT lo_from_bytea(900004, decode(repeat('00ff10', 30000), 'hex'));
SELECT lo_from_bytea(910000 + g, convert_to('object ' || g, 'UTF8')) FROM generate_series(1, 1500) g;
ALTER LARGE OBJECT 900004 OWNER TO kinds_owner;
GRANT SELECT ON LARGE OBJECT 900004 TO PUBLIC;
COMMENT ON LARGE OBJECT 900001 IS 'it''s commented';
CREATE TABLE document (id integer PRIMARY KEY, contents oid);
INSERT INTO document VALUES (1, 900001), (2, 900004);

-- Inheritance, and constraints that existing rows do not satisfy.
CREATE TABLE parent (id integer PRIMARY KEY, v text);
CREATE TABLE child (extra integer, PRIMARY KEY (id)) INHERITS (parent);
INSERT INTO parent VALUES (1, 'parent');
INSERT INTO child VALUES (2, 'child', 2);
CREATE TABLE strict_later (id integer PRIMARY KEY, v integer, item_id integer);
INSERT INTO strict_later VALUES (1, -1, 100000);
ALTER TABLE strict_later ADD CONSTRAINT v_positive CHECK (v > 0) NOT VALID,
  ADD CONSTRAINT of_item FOREIGN KEY (item_id) REFERENCES item NOT VALID;

CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE remote_item (id integer, v text) SERVER elsewhere OPTIONS (a 'b');

CREATE TABLE "Up.Per" ("a.b" integer PRIMARY KEY, "new
line" text, "with ""quotes""" text);
INSERT INTO "Up.Per" VALUES (1, E'x\ny', '"');
CREATE SCHEMA "Schema of sixty-three bytes, which is the longest that there is";
CREATE TABLE "Schema of sixty-three bytes, which is the longest that there is".
  "Table of sixty-three bytes, which is the longest that there are" (id integer PRIMARY KEY);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
ALTER TABLE no_columns REPLICA IDENTITY FULL;

ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO kinds_owner;
COMMENT ON COLUMN item.price IS 'what it costs';
