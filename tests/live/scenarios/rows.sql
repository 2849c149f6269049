-- How a changed row is found on the target and what of it is written: replica identities, unchanged TOAST, keys,
-- columns matched by name, and what must stop the stream.

-- scenario: toast_unchanged (points 1, 6)
-- An update does not carry TOASTed values that it left alone; they must stay, whatever else changes, the key included.
-- before
CREATE TABLE t (id int PRIMARY KEY, a text, b text, n int DEFAULT 0);
ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
INSERT INTO t SELECT g, repeat('a' || g, 3000), repeat('b' || g, 3000) FROM generate_series(1, 8) g;
-- meanwhile
UPDATE t SET n = 1 WHERE id = 1;
UPDATE t SET a = repeat('changed', 900) WHERE id = 2;
UPDATE t SET b = NULL WHERE id = 3;
UPDATE t SET a = 'short', b = 'short' WHERE id = 4;
UPDATE t SET id = 105 WHERE id = 5;
UPDATE t SET id = 106, b = repeat('new', 2000) WHERE id = 6;
BEGIN;
UPDATE t SET n = 2 WHERE id = 7;
UPDATE t SET a = repeat('first', 1000) WHERE id = 7;
UPDATE t SET n = 3 WHERE id = 7;
UPDATE t SET id = 107 WHERE id = 7;
UPDATE t SET n = 4 WHERE id = 107;
COMMIT;
INSERT INTO t VALUES (9, repeat('n', 9000), repeat('m', 9000));
UPDATE t SET n = 9 WHERE id = 9;
DELETE FROM t WHERE id = 8;
INSERT INTO t VALUES (8, 'again', 'short');
-- expect
SELECT id, length(a), length(b), n FROM t ORDER BY id;
--> 1 | 6000 | 6000 | 1
--> 2 | 6300 | 6000 | 0
--> 3 | 6000 | NULL | 0
--> 4 | 5 | 5 | 0
--> 8 | 5 | 5 | 0
--> 9 | 9000 | 9000 | 9
--> 105 | 6000 | 6000 | 0
--> 106 | 6000 | 6000 | 0
--> 107 | 5000 | 6000 | 4

-- scenario: toast_unchanged_full (points 1, 4)
-- Under identity FULL the old row holds the whole value while the new one still says "unchanged".
-- before
CREATE TABLE t (id int, a text, n int);
ALTER TABLE t REPLICA IDENTITY FULL, ALTER a SET STORAGE EXTERNAL;
INSERT INTO t SELECT g, repeat('a' || g, 3000), 0 FROM generate_series(1, 4) g;
-- meanwhile
UPDATE t SET n = 1 WHERE id = 1;
UPDATE t SET id = 20 WHERE id = 2;
UPDATE t SET a = repeat('x', 5000) WHERE id = 3;
UPDATE t SET n = n + 1 WHERE id = 3;
DELETE FROM t WHERE id = 4;
-- expect
SELECT id, length(a), n FROM t ORDER BY id;
--> 1 | 6000 | 1
--> 3 | 5000 | 1
--> 20 | 6000 | 0

-- scenario: identity_default (points 2, 6, 9)
-- A key of several columns that are not the first, of several types; parts of it change.
-- before
CREATE TABLE t (v text, region text, n int DEFAULT 0, at timestamptz, id bigint, PRIMARY KEY (id, region, at));
INSERT INTO t SELECT 'v', 'r' || g % 3, 0, '2024-01-01 00:00:00+00'::timestamptz + g * interval '1 day', g FROM generate_series(1, 9) g;
-- meanwhile
UPDATE t SET n = n + 1;
UPDATE t SET region = 'R' WHERE id < 4;
UPDATE t SET at = at + interval '1 microsecond', v = 'moved' WHERE id = 5;
DELETE FROM t WHERE id = 9;
-- expect
SELECT count(*), sum(n), count(*) FILTER (WHERE region = 'R'), count(*) FILTER (WHERE v = 'moved') FROM t;
--> 8 | 8 | 3 | 1

-- scenario: identity_index (points 3, 6)
-- REPLICA IDENTITY USING INDEX in place of a primary key, and beside one; INCLUDE columns are no key.
-- before
CREATE TABLE t (a text NOT NULL, b int NOT NULL, v text, w text);
CREATE UNIQUE INDEX t_ab ON t (b, a) INCLUDE (w);
ALTER TABLE t REPLICA IDENTITY USING INDEX t_ab;
CREATE TABLE u (id int PRIMARY KEY, code text NOT NULL CONSTRAINT u_code UNIQUE, v text);
ALTER TABLE u REPLICA IDENTITY USING INDEX u_code;
INSERT INTO t SELECT 'a' || g, g % 2, 'v', 'w' FROM generate_series(1, 6) g;
INSERT INTO u SELECT g, 'c' || g, 'v' FROM generate_series(1, 6) g;
-- meanwhile
UPDATE t SET v = 'x', w = NULL WHERE a = 'a1';
UPDATE t SET a = 'A2', b = 7 WHERE a = 'a2';
DELETE FROM t WHERE a = 'a3';
UPDATE u SET id = id + 100 WHERE id < 4;
UPDATE u SET code = 'C4' WHERE id = 4;
DELETE FROM u WHERE id = 5;

-- scenario: identity_full_duplicates (point 4)
-- check: source.identity_full
-- Of equal rows exactly one changes with each change; NULLs are equal to each other here.
-- before
CREATE TABLE t (a int, b text, c numeric);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT 1, 'same', NULL FROM generate_series(1, 5);
INSERT INTO t SELECT NULL, NULL, NULL FROM generate_series(1, 3);
-- meanwhile
DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 1);
UPDATE t SET b = 'other' WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 1);
DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a IS NULL);
INSERT INTO t SELECT 1, 'same', NULL FROM generate_series(1, 2);
UPDATE t SET c = 1 WHERE ctid = (SELECT max(ctid) FROM t WHERE a = 1);
-- expect
SELECT a, b, c, count(*) FROM t GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
--> 1 | other | NULL | 1
--> 1 | same | 1 | 1
--> 1 | same | NULL | 4
--> NULL | NULL | NULL | 2

-- scenario: identity_full_equal_but_not_same (point 4)
-- Values that are equal to each other and yet differ in their text: the row that is meant must be the one that changes.
-- before
CREATE TABLE n (v numeric, note text);
CREATE TABLE f (v float8, note text);
CREATE TABLE j (v jsonb, note text);
CREATE TABLE i (v interval, note text);
CREATE TABLE z (v timetz, note text);
CREATE TABLE c (v char(5), note text);
ALTER TABLE n REPLICA IDENTITY FULL;
ALTER TABLE f REPLICA IDENTITY FULL;
ALTER TABLE j REPLICA IDENTITY FULL;
ALTER TABLE i REPLICA IDENTITY FULL;
ALTER TABLE z REPLICA IDENTITY FULL;
ALTER TABLE c REPLICA IDENTITY FULL;
INSERT INTO n VALUES ('1.0', 'x'), ('1.00', 'x'), ('1.000', 'x');
INSERT INTO f VALUES ('0', 'x'), ('-0', 'x');
INSERT INTO j VALUES ('{"a": 1.0}', 'x'), ('{"a": 1.00}', 'x');
INSERT INTO i VALUES ('1 mon', 'x'), ('30 days', 'x'), ('720:00:00', 'x');
INSERT INTO z VALUES ('12:00+00', 'x'), ('12:00+00', 'x');
INSERT INTO c VALUES ('a', 'x'), ('a    ', 'x');
-- meanwhile
UPDATE n SET note = 'three digits' WHERE v::text = '1.000';
DELETE FROM n WHERE v::text = '1.00';
UPDATE f SET note = 'minus' WHERE v::text = '-0';
DELETE FROM j WHERE v::text = '{"a": 1.00}';
UPDATE i SET note = 'hours' WHERE v::text = '720:00:00';
DELETE FROM i WHERE v::text = '30 days';
UPDATE z SET note = 'y' WHERE ctid = '(0,2)';
UPDATE c SET note = 'y' WHERE ctid = '(0,1)';

-- scenario: identity_full_case_insensitive (points 4, 14, 26; extension citext)
-- before
CREATE TABLE t (v citext, note text);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t VALUES ('abc', 'x'), ('ABC', 'x');
-- meanwhile
DELETE FROM t WHERE v::text = 'ABC';
-- expect
SELECT v::text FROM t;
--> abc

-- scenario: identity_full_without_equality (point 4)
-- Types that have no equality, or one that means something else (box compares areas).
-- before
CREATE TABLE t (j json, x xml, p point, b box, l line, g polygon, c circle, q tsquery, k jsonpath, n int);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT '{"a":  1}', '<a>1</a>', '(1,2)', '((0,0),(1,1))', '{1,2,3}', '((0,0),(1,1),(1,0))', '<(0,0),1>',
  'a & b', '$.a', g FROM generate_series(1, 4) g;
INSERT INTO t (j, b, n) VALUES ('{"a": 1}', '((0,0),(2,0.5))', 5), (NULL, NULL, 6), ('null', '((5,5),(6,6))', 7);
CREATE TABLE only_json (j json);
ALTER TABLE only_json REPLICA IDENTITY FULL;
INSERT INTO only_json VALUES ('1'), ('1'), ('1 '), (NULL), (NULL);
-- meanwhile
UPDATE t SET n = 20 WHERE n = 2;
UPDATE t SET j = '[]' WHERE n = 5;
DELETE FROM t WHERE n IN (3, 6, 7);
DELETE FROM only_json WHERE ctid = '(0,1)' OR ctid = '(0,4)';
UPDATE only_json SET j = '2' WHERE j::text = '1 ';

-- scenario: identity_full_with_key (points 4, 12)
-- Identity FULL although there is a primary key: the target finds rows by the key, the key itself may change.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text, j json);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT g, 'v', '{}' FROM generate_series(1, 5) g;
CREATE TABLE d (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
ALTER TABLE d REPLICA IDENTITY FULL;
INSERT INTO d SELECT g, 'v' FROM generate_series(1, 5) g;
-- meanwhile
UPDATE t SET v = 'w' WHERE id = 1;
UPDATE t SET id = 20 WHERE id = 2;
DELETE FROM t WHERE id = 3;
UPDATE d SET id = 6 - id;
DELETE FROM d WHERE id = 1;

-- scenario: identity_missing (points 5, 12)
-- alone:
-- refused: no_key \(no primary key\)[\s\S]*nothing_set \(replica identity NOTHING\)[\s\S]*postponed \(its primary key is deferrable\)
-- check: source.replica_identity
-- check: source.deferrable_keys
-- before
CREATE TABLE no_key (a int);
CREATE TABLE nothing_set (id int PRIMARY KEY);
ALTER TABLE nothing_set REPLICA IDENTITY NOTHING;
CREATE TABLE postponed (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE part_index (a int);
CREATE UNIQUE INDEX ON part_index (a) WHERE a > 0;

-- scenario: identity_set_full (points 5, 12, 82)
-- alone: --replica-identity-full
-- check: source.replica_identity
-- Tables without a key move when it is asked for; their identity is put back by the end.
-- before
CREATE TABLE no_key (a int, b text);
CREATE TABLE nothing_set (id int PRIMARY KEY, v text);
ALTER TABLE nothing_set REPLICA IDENTITY NOTHING;
CREATE TABLE postponed (id int PRIMARY KEY DEFERRABLE, v text);
INSERT INTO no_key SELECT g % 3, 'b' FROM generate_series(1, 9) g;
INSERT INTO nothing_set SELECT g, 'b' FROM generate_series(1, 9) g;
INSERT INTO postponed SELECT g, 'b' FROM generate_series(1, 9) g;
-- meanwhile
DELETE FROM no_key WHERE ctid = '(0,1)';
UPDATE no_key SET b = 'c' WHERE a = 2;
UPDATE nothing_set SET v = 'c' WHERE id > 5;
UPDATE postponed SET id = 10 - id;

-- scenario: no_rows_but_inserts (point 5)
-- Whether an identity is NOTHING because no update ever comes, nobody but a person can know.
-- alone:
-- check: source.replica_identity
-- refused: no_rows_but_inserts\.t \(replica identity NOTHING\)[\s\S]*--replica-identity-full
-- before
CREATE TABLE t (a int, b text);
ALTER TABLE t REPLICA IDENTITY NOTHING;
INSERT INTO t VALUES (1, 'a');

-- scenario: nothing_but_inserts_under_full (point 5)
-- Told so it is carried: under FULL an insert is the same, and an update that comes after all is not lost. The identity is
-- NOTHING again afterwards.
-- alone: --replica-identity-full
-- before
CREATE TABLE t (a int, b text);
ALTER TABLE t REPLICA IDENTITY NOTHING;
INSERT INTO t VALUES (1, 'a');
-- meanwhile
INSERT INTO t VALUES (1, 'a'), (1, 'a'), (NULL, 'b');
UPDATE t SET b = 'after all' WHERE a IS NULL;

-- scenario: key_moves (point 6)
-- Keys that change, chains and rings of them, and keys that are taken again after they were freed.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 10) g;
-- meanwhile
UPDATE t SET id = 100 WHERE id = 1;
BEGIN;
UPDATE t SET id = -2 WHERE id = 2;
UPDATE t SET id = 2 WHERE id = 3;
UPDATE t SET id = 3 WHERE id = -2;
COMMIT;
BEGIN;
DELETE FROM t WHERE id = 4;
INSERT INTO t VALUES (4, 'new');
UPDATE t SET id = 44 WHERE id = 4;
INSERT INTO t VALUES (4, 'newer');
DELETE FROM t WHERE id = 44;
COMMIT;
UPDATE t SET id = id + 1000 WHERE id > 6;
UPDATE t SET id = id - 1000 WHERE id > 1000;
-- expect
SELECT string_agg(id || '=' || v, ' ' ORDER BY id) FROM t;
--> 2=v3 3=v2 4=newer 5=v5 6=v6 7=v7 8=v8 9=v9 10=v10 100=v1

-- scenario: update_changes_nothing (points 2, 7)
-- Updates that write the values that are there, of tables that are all key or that have no column.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE k (a int, b int, PRIMARY KEY (a, b));
INSERT INTO t VALUES (1, 'v');
INSERT INTO k VALUES (1, 1), (2, 2);
-- meanwhile
UPDATE t SET v = v;
UPDATE t SET id = id;
UPDATE k SET a = a;
UPDATE k SET b = 3 WHERE a = 2;

-- scenario: no_columns (points 4, 11)
-- A table without columns has rows all the same; a dropped column leaves holes.
-- before
CREATE TABLE none ();
ALTER TABLE none REPLICA IDENTITY FULL;
INSERT INTO none DEFAULT VALUES;
INSERT INTO none DEFAULT VALUES;
CREATE TABLE lost (a int);
ALTER TABLE lost DROP COLUMN a;
ALTER TABLE lost REPLICA IDENTITY FULL;
INSERT INTO lost DEFAULT VALUES;
-- meanwhile
INSERT INTO none DEFAULT VALUES;
INSERT INTO lost DEFAULT VALUES;
DELETE FROM none WHERE ctid = '(0,1)';
-- expect
SELECT (SELECT count(*) FROM none), (SELECT count(*) FROM lost);
--> 2 | 2

-- scenario: dropped_and_added_columns (points 9, 11)
-- Dropped columns, defaults that old rows hold only in the catalog, under a key and under FULL.
-- before
CREATE TABLE t (gone int, id int PRIMARY KEY, gone_too text DEFAULT 'x', v text);
CREATE TABLE f (gone int, id int, gone_too text DEFAULT 'x', v text);
INSERT INTO t (id, v) SELECT g, 'v' FROM generate_series(1, 5) g;
INSERT INTO f (id, v) SELECT g, 'v' FROM generate_series(1, 5) g;
ALTER TABLE t DROP gone, DROP gone_too, ADD extra int NOT NULL DEFAULT 7, ADD "Gone" text DEFAULT 'here';
ALTER TABLE f DROP gone, DROP gone_too, ADD extra int NOT NULL DEFAULT 7, ADD "Gone" text DEFAULT 'here';
ALTER TABLE f REPLICA IDENTITY FULL;
-- meanwhile
UPDATE t SET v = 'w' WHERE id = 1;
UPDATE f SET v = 'w' WHERE id = 1;
UPDATE f SET extra = 8 WHERE id = 2;
DELETE FROM f WHERE id = 3;
DELETE FROM t WHERE id = 3;
INSERT INTO t (id) VALUES (9);
INSERT INTO f (id) VALUES (9);

-- scenario: column_order_differs (point 9)
-- differs: pg_dump gives a child that was attached later the parent's order of columns
-- before
CREATE TABLE parent (a int, b text, c date);
CREATE TABLE child (c date, x int PRIMARY KEY, b text, a int);
ALTER TABLE child INHERIT parent;
ALTER TABLE parent REPLICA IDENTITY FULL;
INSERT INTO child SELECT '2024-01-01', g, 'b', g FROM generate_series(1, 4) g;
INSERT INTO parent VALUES (1, 'p', NULL);
-- meanwhile
UPDATE parent SET b = b || a;
INSERT INTO child VALUES ('2024-02-02', 9, 'nine', 9);
DELETE FROM parent WHERE a = 2;
-- expect
SELECT tableoid::regclass::text, a, b, c FROM parent ORDER BY 1, 2;
--> child | 1 | b1 | 2024-01-01
--> child | 3 | b3 | 2024-01-01
--> child | 4 | b4 | 2024-01-01
--> child | 9 | nine | 2024-02-02
--> parent | 1 | p1 | NULL
SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'child'::regclass AND attnum > 0;
--> a b c x

-- scenario: target_has_more_columns (point 9)
-- differs: the target's table has a column more and another order
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one'), (2, 'two');
-- target
ALTER TABLE t ADD extra text DEFAULT 'default';
-- meanwhile
INSERT INTO t VALUES (3, 'three');
UPDATE t SET v = 'uno' WHERE id = 1;
DELETE FROM t WHERE id = 2;
-- expect
SELECT id, v, extra FROM t ORDER BY id;
--> 1 | uno | default
--> 3 | three | default

-- scenario: target_types_wider (points 10, 36)
-- differs: the target's columns hold more than the source's
-- before
CREATE TABLE t (id int PRIMARY KEY, s varchar(5), n numeric(5, 2), b smallint, at date, f real);
INSERT INTO t VALUES (1, 'abc', 1.5, 3, '2024-05-06', 0.1);
-- target
ALTER TABLE t ALTER id TYPE bigint, ALTER s TYPE text, ALTER n TYPE numeric, ALTER b TYPE int, ALTER at TYPE timestamp;
-- meanwhile
INSERT INTO t VALUES (2, 'wxyz', 2.25, 4, '2025-06-07', 1.5);
UPDATE t SET s = 'xxxxx', b = 32767 WHERE id = 1;
UPDATE t SET id = 22 WHERE id = 2;
-- expect
SELECT id, s, n, b, at FROM t ORDER BY id;
--> 1 | xxxxx | 1.50 | 32767 | 2024-05-06 00:00:00
--> 22 | wxyz | 2.25 | 4 | 2025-06-07 00:00:00

-- scenario: target_type_narrower (point 36)
-- stops: insert into :schema\.t \(id\)=\(2\).*value too long for type character varying\(3\)
-- before
CREATE TABLE t (id int PRIMARY KEY, s varchar(5));
INSERT INTO t VALUES (1, 'abc');
-- target
ALTER TABLE t ALTER s TYPE varchar(3);
-- meanwhile
INSERT INTO t VALUES (2, 'abcde');
-- repair
ALTER TABLE t ALTER s TYPE varchar(5);

-- scenario: row_missing_for_update (point 7)
-- stops: update of :schema\.t \(id\)=\(1\) of transaction \d+ \(commit LSN [0-9A-F]+/[0-9A-F]+\).*no such row
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one'), (2, 'two');
-- target
DELETE FROM t WHERE id = 1;
-- meanwhile
UPDATE t SET v = 'uno' WHERE id = 1;
-- repair
INSERT INTO t VALUES (1, 'one');

-- scenario: row_missing_for_delete (point 7)
-- stops: delete from :schema\.t \(id\)=\(1\).*no such row
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one'), (2, 'two');
-- target
DELETE FROM t WHERE id = 1;
-- meanwhile
DELETE FROM t WHERE id = 1;
-- repair
INSERT INTO t VALUES (1, 'one');

-- scenario: row_missing_full (points 4, 7)
-- stops: delete from :schema\.t.*no such row
-- before
CREATE TABLE t (id int, v text);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t VALUES (1, 'one'), (2, 'two');
-- target
UPDATE t SET v = 'foreign' WHERE id = 1;
-- meanwhile
DELETE FROM t WHERE id = 1;
-- repair
UPDATE t SET v = 'one' WHERE id = 1;

-- scenario: row_there_twice (point 7)
-- stops: update of :schema\.t \(id\)=\(1\).*2 rows
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one');
-- target
ALTER TABLE t DROP CONSTRAINT t_pkey;
INSERT INTO t VALUES (1, 'copy');
-- meanwhile
UPDATE t SET v = 'uno' WHERE id = 1;
-- repair
DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t);
ALTER TABLE t ADD PRIMARY KEY (id);

-- scenario: insert_of_existing_key (point 8)
-- stops: insert into :schema\.t \(id\)=\(2\).*duplicate key value violates unique constraint
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one');
-- target
INSERT INTO t VALUES (2, 'foreign');
-- meanwhile
UPDATE t SET v = 'before' WHERE id = 1;
INSERT INTO t VALUES (2, 'mine');
UPDATE t SET v = 'after' WHERE id = 1;
-- repair
DELETE FROM t WHERE id = 2;

-- scenario: check_only_on_target (points 8, 38)
-- stops: insert into :schema\.t \(id\)=\(-1\).*violates check constraint
-- CHECK constraints hold for the apply as for anybody.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
-- target
ALTER TABLE t ADD CONSTRAINT stricter CHECK (id > 0);
-- meanwhile
INSERT INTO t VALUES (-1, 'below');
-- repair
ALTER TABLE t DROP CONSTRAINT stricter;

-- scenario: constraint_broken_in_a_set (point 47)
-- stops: insert into :schema\.t \(id\)=\(777\).*duplicate key
-- One bad row among a thousand of one statement is named, whatever the way in which they are written.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
-- target
INSERT INTO t VALUES (777, 'foreign');
-- meanwhile
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1000) g;
-- repair
DELETE FROM t WHERE id = 777;

-- scenario: nondeterministic_key (point 14)
-- Under a collation without case 'a' and 'A' are one key: the row is found by the column's own equality.
-- before
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE t (id text COLLATE no_case PRIMARY KEY, v int);
INSERT INTO t VALUES ('abc', 1), ('Über', 2), ('x', 3);
-- meanwhile
UPDATE t SET id = 'ABC' WHERE id = 'abc';
UPDATE t SET v = 10 WHERE id = 'aBc';
DELETE FROM t WHERE id = 'ÜBER';
INSERT INTO t VALUES ('über', 4);
-- expect
SELECT id, v FROM t ORDER BY v;
--> x | 3
--> über | 4
--> ABC | 10

-- scenario: temporal_key (point 13; source >= 18; extension btree_gist)
-- before
CREATE TABLE t (room int, during tsrange, who text, PRIMARY KEY (room, during WITHOUT OVERLAPS));
INSERT INTO t VALUES (1, '[2024-01-01,2024-01-02)', 'a'), (1, '[2024-01-02,2024-01-03)', 'b'), (2, '[2024-01-01,2024-01-03)', 'c');
-- meanwhile
UPDATE t SET who = 'z' WHERE during @> '2024-01-02'::timestamp AND room = 1;
UPDATE t SET during = '[2024-02-01,2024-02-02)' WHERE room = 2;
DELETE FROM t WHERE who = 'a';

-- scenario: widest_table (point 15)
-- 1600 columns is the most a table can have; rows of one statement exceed 65,535 values by far.
-- before
DO $$ BEGIN
  EXECUTE (SELECT 'CREATE TABLE t (c1 int PRIMARY KEY, ' || string_agg('c' || g || ' bool', ', ') || ')' FROM generate_series(2, 1600) g);
END $$;
INSERT INTO t (c1, c800) SELECT g, true FROM generate_series(1, 20) g;
-- meanwhile
INSERT INTO t (c1, c1600) SELECT g, false FROM generate_series(21, 100) g;
UPDATE t SET c1599 = true WHERE c1 % 2 = 0;
DELETE FROM t WHERE c1 = 100;

-- scenario: large_values (point 15)
-- Values of several megabytes, in the copy and in the stream. (PostgreSQL itself ends at 1 GB a value in text form.)
-- before
CREATE TABLE t (id int PRIMARY KEY, b bytea, s text);
INSERT INTO t VALUES (1, decode(repeat('00ff', 2000000), 'hex'), repeat('ü', 1000000));
-- meanwhile
INSERT INTO t VALUES (2, decode(repeat('ff00', 2000000), 'hex'), repeat('\', 3000000));
UPDATE t SET s = repeat(E'\n', 3000000) WHERE id = 1;
