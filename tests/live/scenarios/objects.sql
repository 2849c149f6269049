-- Objects: partitions, inheritance, sequences, names, views, and what the stream does not carry.

-- scenario: partitions_same_tree (points 55, 57)
-- Leaf by leaf, with several levels, other column orders, rows that move between partitions, and a default partition.
-- before
CREATE TABLE p (id int, k text, day date, v text, PRIMARY KEY (id, k, day)) PARTITION BY LIST (k);
CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b', 'B') PARTITION BY RANGE (day);
CREATE TABLE p_b_old PARTITION OF p_b FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE p_b_new (v text, gone int, day date NOT NULL, k text NOT NULL, id int NOT NULL);
ALTER TABLE p_b_new DROP gone;
ALTER TABLE p_b ATTACH PARTITION p_b_new FOR VALUES FROM ('2024-01-01') TO (MAXVALUE);
CREATE TABLE p_rest PARTITION OF p DEFAULT;
CREATE TABLE h (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO p SELECT g, (ARRAY['a', 'b', 'B', 'z'])[g % 4 + 1], '2023-12-20'::date + g, 'v' FROM generate_series(1, 40) g;
INSERT INTO h SELECT g, 'v' FROM generate_series(1, 20) g;
-- meanwhile
UPDATE p SET k = 'a' WHERE id IN (1, 2);
UPDATE p SET day = '2020-01-01' WHERE k = 'b';
UPDATE p SET v = 'w' WHERE id % 5 = 0;
UPDATE h SET id = id + 1000 WHERE id > 10;
DELETE FROM p WHERE id = 40;
INSERT INTO p VALUES (100, 'a', '2024-05-05', NULL), (101, 'b', '2025-01-01', NULL), (102, 'new', '2025-01-01', NULL);
INSERT INTO p_a VALUES (103, 'a', '2024-05-05', 'straight');
BEGIN;
UPDATE p SET k = 'z' WHERE id = 100;
UPDATE p SET k = 'b' WHERE id = 100;
UPDATE p SET v = 'home', k = 'a' WHERE id = 100;
COMMIT;

-- scenario: partitions_without_key (points 4, 55)
-- before
CREATE TABLE p (k int, v text) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
ALTER TABLE p REPLICA IDENTITY FULL;
ALTER TABLE p1 REPLICA IDENTITY FULL;
ALTER TABLE p2 REPLICA IDENTITY FULL;
INSERT INTO p SELECT g % 2 + 1, 'same' FROM generate_series(1, 10) g;
-- meanwhile
DELETE FROM p1 WHERE ctid = '(0,1)';
UPDATE p SET k = 3 - k WHERE ctid = '(0,2)';
UPDATE p SET v = 'w' WHERE ctid = '(0,3)';

-- scenario: plain_target_partitioned (points 56, 57)
-- alone: --no-schema
-- differs: a plain table of the source is partitioned on the target, which routes the rows
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 10) g;
-- target
CREATE SCHEMA :schema;
CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (100) TO (MAXVALUE);
-- meanwhile
UPDATE t SET v = 'w' WHERE id < 3;
UPDATE t SET id = id + 200 WHERE id = 5;
INSERT INTO t VALUES (300, 'high');
DELETE FROM t WHERE id = 7;
TRUNCATE t;
INSERT INTO t VALUES (1, 'low'), (400, 'high'), (500, 'high');
UPDATE t SET v = 'moved', id = 2 WHERE id = 400;
-- expect
SELECT tableoid::regclass::text, id, v FROM t ORDER BY id;
--> t_low | 1 | low
--> t_low | 2 | moved
--> t_high | 500 | high

-- scenario: partitions_by_their_root (point 56)
-- alone: --publication root_publication
-- before
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (100) TO (MAXVALUE);
INSERT INTO p SELECT g * 20, 'v' FROM generate_series(1, 10) g;
CREATE PUBLICATION root_publication FOR TABLE p WITH (publish_via_partition_root = true);
-- meanwhile
UPDATE p SET id = id + 1 WHERE id < 200;
UPDATE p SET id = 500 WHERE id = 21;
INSERT INTO p VALUES (1, 'low'), (1000, 'high');
DELETE FROM p WHERE id = 41;

-- scenario: inheritance (point 59)
-- before
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE grandchild (more text DEFAULT 'more', PRIMARY KEY (id)) INHERITS (child);
CREATE TABLE other (w int);
CREATE TABLE both_of (PRIMARY KEY (id)) INHERITS (parent, other);
ALTER TABLE other REPLICA IDENTITY FULL;
INSERT INTO parent VALUES (1, 'parent'), (2, 'parent');
INSERT INTO child VALUES (1, 'child', 1), (2, 'child', 2);
INSERT INTO grandchild VALUES (1, 'grandchild', 1);
INSERT INTO both_of VALUES (1, 'both', 5);
INSERT INTO other VALUES (5), (5);
-- meanwhile
UPDATE parent SET v = v || '!';
UPDATE ONLY parent SET v = 'only' WHERE id = 1;
DELETE FROM parent WHERE id = 2;
INSERT INTO grandchild VALUES (9, 'g', 9, NULL);
UPDATE other SET w = 6;

-- scenario: sequences (point 51)
-- Every kind of sequence ends where it is on the source, owned or not.
-- before
CREATE SEQUENCE plain;
CREATE SEQUENCE never_used START 42;
CREATE SEQUENCE down INCREMENT -3 MINVALUE -1000 MAXVALUE 100 START 100;
CREATE SEQUENCE cycled AS smallint MAXVALUE 5 CYCLE;
CREATE SEQUENCE cached CACHE 20;
CREATE SEQUENCE "odd ""name""" START 7;
CREATE TABLE t (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY (START 500 INCREMENT 10), v text);
CREATE SEQUENCE owned OWNED BY t.v;
CREATE SEQUENCE used_up AS smallint MAXVALUE 3;
SELECT nextval('plain'), nextval('used_up'), nextval('used_up'), nextval('used_up');
-- meanwhile
SELECT count(nextval('plain')) FROM generate_series(1, 77);
SELECT nextval('down'), nextval('down'), nextval('cached'), nextval('"odd ""name"""');
SELECT count(nextval('cycled')) FROM generate_series(1, 7);
SELECT setval('owned', 1000, false);
INSERT INTO t (v) VALUES ('a'), ('b');
ALTER SEQUENCE plain RESTART 900;

-- scenario: views (point 61)
-- check: source.materialized_views
-- Materialized views hold at the end what a refresh of the source's rows gives, one after the other where they build on
-- each other; an unpopulated one stays so.
-- before
CREATE TABLE t (id int PRIMARY KEY, v int);
INSERT INTO t SELECT g, g FROM generate_series(1, 10) g;
CREATE VIEW plain AS SELECT id, v * 2 AS twice FROM t;
CREATE MATERIALIZED VIEW a_last AS SELECT 1 AS one WITH NO DATA;
CREATE MATERIALIZED VIEW first AS SELECT sum(twice) AS total FROM plain;
CREATE MATERIALIZED VIEW b_second AS SELECT total + 1 AS more FROM first;
CREATE UNIQUE INDEX ON first (total);
-- meanwhile
UPDATE t SET v = v + 100;
REFRESH MATERIALIZED VIEW first;
REFRESH MATERIALIZED VIEW b_second;

-- scenario: unlogged_and_foreign (point 60; extension postgres_fdw)
-- check: source.unlogged_tables
-- check: source.foreign_tables
-- Changes of unlogged tables are in no stream: they are copied at the cutover. Foreign tables move as definitions.
-- before
CREATE UNLOGGED TABLE u (id int PRIMARY KEY, v text);
CREATE UNLOGGED TABLE no_key (v text);
INSERT INTO u SELECT g, 'v' FROM generate_series(1, 5) g;
INSERT INTO no_key VALUES ('a'), ('a');
CREATE SERVER ":schema" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere', dbname 'none');
CREATE FOREIGN TABLE far (id int) SERVER ":schema" OPTIONS (table_name 't');
CREATE TABLE t (id int PRIMARY KEY);
-- meanwhile
UPDATE u SET v = 'w' WHERE id = 1;
DELETE FROM u WHERE id = 2;
INSERT INTO no_key VALUES ('b');
INSERT INTO t VALUES (1);
-- expect
SELECT (SELECT string_agg(id || v, ' ' ORDER BY id) FROM u), (SELECT string_agg(v, '' ORDER BY v) FROM no_key), (SELECT relpersistence FROM pg_class WHERE oid = 'u'::regclass);
--> 1w 3v 4v 5v | aab | u

-- scenario: large_objects (point 62)
-- alone:
-- before
CREATE TABLE t (id int PRIMARY KEY, picture oid);
INSERT INTO t SELECT g, lo_from_bytea(0, repeat('bytes', 1000 * g)::bytea) FROM generate_series(1, 3) g;
-- meanwhile
SELECT lo_put(picture, 3, 'changed') FROM t WHERE id = 1;
INSERT INTO t VALUES (4, lo_from_bytea(0, 'new'));

-- scenario: everything_pg_dump_knows (points 64, 65, 70)
-- Owners, grants, policies, comments, statistics objects, storage settings: compared after the cutover by pg_dump.
-- before
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'scenario_owner') THEN CREATE ROLE scenario_owner; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'Scenario "Reader"') THEN CREATE ROLE "Scenario ""Reader"""; END IF;
END $$;
GRANT USAGE ON SCHEMA ":schema" TO scenario_owner, "Scenario ""Reader""";
CREATE TABLE t (id int PRIMARY KEY, owner name DEFAULT current_user, v text COLLATE "C", n int) WITH (fillfactor = 70);
ALTER TABLE t OWNER TO scenario_owner;
ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON t USING (owner = current_user) WITH CHECK (true);
CREATE POLICY read_all ON t AS PERMISSIVE FOR SELECT TO "Scenario ""Reader""" USING (n > 0);
GRANT SELECT (id, v), UPDATE (v) ON t TO "Scenario ""Reader""" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA ":schema" GRANT SELECT ON TABLES TO "Scenario ""Reader""";
COMMENT ON TABLE t IS E'it''s\na "comment"';
COMMENT ON COLUMN t.v IS '';
COMMENT ON SCHEMA ":schema" IS '$';
CREATE STATISTICS st (ndistinct, dependencies, mcv) ON id, n FROM t;
ALTER TABLE t ALTER v SET STATISTICS 500, ALTER v SET STORAGE EXTERNAL;
CREATE INDEX part ON t (n) WHERE n > 0;
CREATE INDEX expr ON t (lower(v) DESC NULLS LAST) INCLUDE (n);
CREATE INDEX hashed ON t USING hash (v);
CREATE INDEX kept_in_order ON t (n);
ALTER TABLE t CLUSTER ON kept_in_order;
CREATE FUNCTION f(a int DEFAULT 1, VARIADIC b text[] DEFAULT '{}') RETURNS SETOF t LANGUAGE sql ROWS 5 COST 7 AS 'SELECT * FROM :schema.t';
CREATE PROCEDURE pr(INOUT a int) LANGUAGE plpgsql AS 'BEGIN a := a + 1; END';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = ===);
CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
CREATE TEXT SEARCH CONFIGURATION ts (COPY = simple);
REVOKE ALL ON FUNCTION f FROM PUBLIC;
INSERT INTO t VALUES (1, 'nobody', 'ä', 1), (2, 'nobody', 'z', NULL);
-- meanwhile
INSERT INTO t VALUES (3, 'nobody', 'A', 3);
UPDATE t SET v = 'b' WHERE id = 2;
DELETE FROM t WHERE id = 1;

-- scenario: database_settings (point 64)
-- alone:
-- They come along, for the database and for a role in it.
-- before
ALTER DATABASE :database SET work_mem = '5MB';
ALTER ROLE postgres IN DATABASE :database SET temp_buffers = '9MB';
CREATE TABLE t (id int PRIMARY KEY);
-- meanwhile
INSERT INTO t VALUES (1);
-- expect
SELECT current_setting('work_mem'), current_setting('temp_buffers');
--> 5MB | 9MB

-- scenario: extension_members (points 26, 64; extension tcn)
-- Objects of an extension come with the extension, and are used by tables of ours.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION public.triggered_change_notification();
-- meanwhile
INSERT INTO t VALUES (1, 'one');

-- scenario: odd_names (point 110)
-- Quotes, dots, line ends, 63 bytes, upper case, reserved words, a dollar, percent, backslash: in every kind of name.
-- before
CREATE TABLE "Table.With ""Quotes"" and $ 100% {braces} \ " ("Id" int PRIMARY KEY, "select" text, "a.b" int, "new
line" text, "ünï😀" text, "%s" text, "{}" text, "it's" text, "$1" text, "?" text, " " text, "ctid2" text);
CREATE TABLE "a_name_of_sixty_three_bytes_which_is_the_longest_that_fits_here" (
  "a_column_of_sixty_three_bytes_which_is_the_longest_that_fits_xx" int PRIMARY KEY, "b_column_of_sixty_three_bytes_which_is_the_longest_that_fits_xx" text);
CREATE TABLE "table" ("user" int, "order" text, "group" text, PRIMARY KEY ("order", "user"));
CREATE TABLE "TABLE" (a int, "A" int, PRIMARY KEY ("A"));
CREATE TABLE "😀" ("😀" text PRIMARY KEY);
CREATE TABLE ";DROP TABLE x;--" (a int, "b);--" text);
ALTER TABLE ";DROP TABLE x;--" REPLICA IDENTITY FULL;
CREATE TABLE "-- comment" (id int PRIMARY KEY, "/* */" text);
CREATE TABLE "two
lines" (id int PRIMARY KEY, v text);
CREATE TABLE "$1" ("$1" int PRIMARY KEY, "$2" text, oid int, n int, o int, t text, d int, i int);
INSERT INTO "Table.With ""Quotes"" and $ 100% {braces} \ " VALUES (1, 's', 2, 'n', 'u', '%', '{', 'it', '1', '?', ' ', 'c');
INSERT INTO ";DROP TABLE x;--" VALUES (1, 'x'), (1, 'x');
INSERT INTO "TABLE" VALUES (1, 1), (2, 2);
INSERT INTO "two
lines" VALUES (1, 'one');
-- meanwhile
UPDATE "Table.With ""Quotes"" and $ 100% {braces} \ " SET "a.b" = 3, "new
line" = E'\n', "it's" = 'it''s', " " = '', "$1" = '$2';
INSERT INTO "a_name_of_sixty_three_bytes_which_is_the_longest_that_fits_here" VALUES (1, 'long');
UPDATE "a_name_of_sixty_three_bytes_which_is_the_longest_that_fits_here" SET "b_column_of_sixty_three_bytes_which_is_the_longest_that_fits_xx" = 'longer';
INSERT INTO "table" VALUES (1, 'o', 'g');
UPDATE "table" SET "order" = 'p';
UPDATE "TABLE" SET "A" = 10 WHERE a = 1;
INSERT INTO "😀" VALUES ('😀'), ('');
UPDATE "😀" SET "😀" = '😀😀' WHERE "😀" = '😀';
DELETE FROM ";DROP TABLE x;--" WHERE ctid = '(0,1)';
INSERT INTO "-- comment" VALUES (1, '/*');
UPDATE "two
lines" SET v = 'uno';
INSERT INTO "$1" VALUES (1, '$1', 1, 1, 1, 't', 1, 1);
UPDATE "$1" SET "$2" = 'x', oid = 2, n = 2, o = 2, t = 'T', d = 2, i = 2;
TRUNCATE "two
lines", "😀";
-- expect
SELECT count(*) FROM "-- comment";
--> 1

-- scenario: odd_schemas (point 110)
-- before
CREATE SCHEMA "Odd.:schema ""x"" $ % 'y'
z";
CREATE TABLE "Odd.:schema ""x"" $ % 'y'
z"."t" (id serial PRIMARY KEY, v text);
INSERT INTO "Odd.:schema ""x"" $ % 'y'
z"."t" (v) VALUES ('one');
-- meanwhile
UPDATE "Odd.:schema ""x"" $ % 'y'
z"."t" SET v = 'uno';
INSERT INTO "Odd.:schema ""x"" $ % 'y'
z"."t" (v) VALUES ('two');

-- scenario: column_added_on_source (points 9, 52)
-- stops: :schema\.t
-- DDL is not silently missed: a change that the target has no column for stops before anything of it is applied.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one');
-- meanwhile
ALTER TABLE t ADD w int DEFAULT 5;
UPDATE t SET w = 6;
-- repair
ALTER TABLE t ADD w int DEFAULT 5;

-- scenario: table_renamed_on_source (points 52, 53)
-- stops: :schema\.(t|renamed)
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one');
-- meanwhile
ALTER TABLE t RENAME TO renamed;
INSERT INTO renamed VALUES (2, 'two');
-- repair
ALTER TABLE t RENAME TO renamed;

-- scenario: partition_added_on_source (points 52, 54, 58; source >= 14)
-- stops: :schema\.p(_high)?
-- before
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (MINVALUE) TO (100);
INSERT INTO p VALUES (1, 'one');
-- meanwhile
CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (100) TO (MAXVALUE);
INSERT INTO p VALUES (200, 'high');
-- repair
CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (100) TO (MAXVALUE);

-- scenario: statistics (point 67)
-- The planner knows the target's tables before anybody asks them anything.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' || g % 3 FROM generate_series(1, 3000) g;
CREATE INDEX ON t (lower(v));
-- meanwhile
INSERT INTO t VALUES (3001, 'later');
-- expect
SELECT reltuples FROM pg_class WHERE oid = 't'::regclass;
--> 3000.0
SELECT attname, n_distinct FROM pg_stats WHERE schemaname = ':schema' AND tablename = 't' ORDER BY 1;
--> id | -1.0
--> v | 3.0
