-- Settings of servers, databases and roles, and encodings: they must not reach the rows.

-- scenario: odd_settings_of_the_database (points 27-31, 37, 97, 98)
-- alone:
-- Everything that changes how values are written or how long a session may live, set on the source's database.
-- before
ALTER DATABASE :database SET datestyle = 'SQL, DMY';
ALTER DATABASE :database SET intervalstyle = 'sql_standard';
ALTER DATABASE :database SET extra_float_digits = -3;
ALTER DATABASE :database SET bytea_output = 'escape';
ALTER DATABASE :database SET timezone = 'Asia/Kathmandu';
ALTER DATABASE :database SET xmlbinary = 'hex';
ALTER DATABASE :database SET xmloption = 'document';
ALTER DATABASE :database SET lc_monetary = 'C.UTF-8';
ALTER DATABASE :database SET quote_all_identifiers = on;
ALTER DATABASE :database SET search_path = 'nowhere';
ALTER DATABASE :database SET statement_timeout = '3s';
ALTER DATABASE :database SET lock_timeout = '3s';
ALTER DATABASE :database SET idle_in_transaction_session_timeout = '2s';
ALTER DATABASE :database SET default_transaction_isolation = 'serializable';
ALTER DATABASE :database SET default_transaction_read_only = on;
ALTER DATABASE :database SET row_security = off;
ALTER DATABASE :database SET session_replication_role = 'local';
ALTER DATABASE :database SET standard_conforming_strings = off;
ALTER DATABASE :database SET backslash_quote = on;
ALTER DATABASE :database SET array_nulls = off;
ALTER DATABASE :database SET client_encoding = 'LATIN1';
ALTER DATABASE :database SET enable_indexscan = off;
ALTER DATABASE :database SET synchronous_commit = off;
CREATE TABLE t (id int PRIMARY KEY, d date, ts timestamp, tz timestamptz, iv interval, f float8, r real, b bytea, m money,
  x xml, c regclass, a text[], s text, tm timetz);
CREATE TABLE f (f float8, iv interval, tz timestamptz, m money, x xml, b bytea);
ALTER TABLE f REPLICA IDENTITY FULL;
INSERT INTO t VALUES (1, '2026-03-04', '2026-03-04 05:06:07.89', '2026-03-04 05:06:07.89+02', '-1 year 2 mons -3 days 04:05:06.789',
  0.30000000000000004, 0.1, '\x00ff5c27', 1234.5, '<a/>', 'pg_catalog.pg_class', ARRAY['NULL', NULL, ''], E'back\\slash ''', '12:00+05:45');
INSERT INTO f SELECT f, iv, tz, m, x, b FROM t;
INSERT INTO f SELECT f, iv, tz, m, x, b FROM t;
-- meanwhile
SET default_transaction_read_only = off;
SET xmloption = content;
INSERT INTO t SELECT id + 1, d + 30, ts, tz, iv * 2, f * 3, r * 3, b, m * 2, 'not a document', c, a, s || E'\\', tm FROM t;
UPDATE t SET iv = '1 day -00:00:01', tz = tz + interval '1 microsecond', f = f / 3 WHERE id = 1;
DELETE FROM f WHERE ctid = '(0,1)';
UPDATE f SET m = 5;
-- expect
SELECT f = 0.10000000000000002, f * 3 = 0.30000000000000004, iv = '1 day -00:00:01', m::numeric FROM t WHERE id = 1;
--> True | True | True | 1234.50

-- scenario: settings_of_the_role (points 28, 97, 98)
-- alone:
-- The same set on the role that walferry connects as, in this database.
-- before
ALTER ROLE postgres IN DATABASE :database SET datestyle = 'German';
ALTER ROLE postgres IN DATABASE :database SET intervalstyle = 'iso_8601';
ALTER ROLE postgres IN DATABASE :database SET extra_float_digits = 0;
ALTER ROLE postgres IN DATABASE :database SET statement_timeout = '3s';
ALTER ROLE postgres IN DATABASE :database SET default_transaction_read_only = on;
CREATE TABLE t (id int PRIMARY KEY, d date, iv interval, f float8);
INSERT INTO t VALUES (1, '2026-03-04', '-1 year 2 mons', 0.30000000000000004);
-- meanwhile
SET default_transaction_read_only = off;
INSERT INTO t VALUES (2, '2026-03-04', '-1 year 2 mons', 0.30000000000000004);
UPDATE t SET f = f / 3 WHERE id = 1;

-- scenario: latin1_to_utf8 (point 33)
-- alone:
-- databases: ENCODING 'LATIN1' LOCALE 'C' | ENCODING 'UTF8' LOCALE 'C'
-- before
CREATE TABLE "käse" ("größe" text PRIMARY KEY, v text, e char(3), "char" "char");
CREATE TYPE stimmung AS ENUM ('fröhlich', 'traurig');
CREATE TABLE e (s stimmung PRIMARY KEY, f text DEFAULT 'ä');
INSERT INTO "käse" VALUES ('ä', 'ö', 'ü', 'x'), ('ÿ', repeat('é', 5000), NULL, NULL);
INSERT INTO e VALUES ('fröhlich');
-- meanwhile
UPDATE "käse" SET v = 'ß' WHERE "größe" = 'ä';
UPDATE "käse" SET "größe" = 'å' WHERE "größe" = 'ÿ';
INSERT INTO "käse" VALUES ('þ', '¼', 'æøå', 'a');
UPDATE e SET s = 'traurig', f = 'é';

-- scenario: utf8_to_latin1 (point 33)
-- alone:
-- databases: ENCODING 'UTF8' LOCALE 'C' | ENCODING 'LATIN1' LOCALE 'C'
-- differs: a character that the target cannot hold stops the stream
-- stops: insert into :schema\.t \(id\)=\(3\).*no equivalent in encoding "LATIN1"
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'äöü');
-- meanwhile
INSERT INTO t VALUES (2, 'ß');
INSERT INTO t VALUES (3, '€😀');

-- scenario: sql_ascii (points 33, 34)
-- alone:
-- databases: ENCODING 'SQL_ASCII' LOCALE 'C' | ENCODING 'SQL_ASCII' LOCALE 'C'
-- Bytes without a meaning, taken over as they are.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, E'\xff\xfe'), (2, 'plain');
-- meanwhile
INSERT INTO t VALUES (3, E'\xc3\x28');
UPDATE t SET v = E'\x80' WHERE id = 2;

-- scenario: sql_ascii_to_utf8 (points 33, 34)
-- alone:
-- databases: ENCODING 'SQL_ASCII' LOCALE 'C' | ENCODING 'UTF8' LOCALE 'C'
-- ends: a change of sql_ascii_to_utf8\.t \(id\)=\(3\) holds bytes .*invalid byte sequence for encoding "UTF8".*Remedy: mend such rows
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE other (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, E'\xc3\xa4'), (2, 'plain');
-- meanwhile
INSERT INTO t VALUES (4, 'plain');
BEGIN;
INSERT INTO t VALUES (5, 'plain');
INSERT INTO other VALUES (1, 'plain');
INSERT INTO t VALUES (3, E'\xff\xfe');
COMMIT;
