-- Transactions of every kind: interleaved, rolled back in part, larger than the source's memory for decoding (64 kB
-- here, so that a few hundred rows are streamed while in progress), prepared, from elsewhere.

-- scenario: copy_and_multi_insert (points 44, 47)
-- All rows of one WAL record of COPY share one LSN.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE f (v text);
ALTER TABLE f REPLICA IDENTITY FULL;
-- meanwhile
COPY t FROM STDIN;
1	one
2	\N
3	tab\tand\\backslash
4	
\.
COPY f FROM STDIN;
same
same
same
\.
INSERT INTO t SELECT g, 'v' || g FROM generate_series(5, 50) g;
DELETE FROM f WHERE ctid = '(0,2)';
BEGIN;
COPY t (id) FROM STDIN;
60
61
\.
UPDATE t SET v = 'copied' WHERE id >= 60;
COMMIT;

-- scenario: interleaved (point 44)
-- Commit order decides, not the order of the first change.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0);
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 6) g;
-- meanwhile
-- session a
BEGIN;
UPDATE t SET v = 'a1' WHERE id = 1;
-- session b
BEGIN;
UPDATE t SET v = 'b2' WHERE id = 2;
INSERT INTO t VALUES (10, 'b');
-- session c
UPDATE t SET v = 'c3', n = 1 WHERE id = 3;
-- session b
COMMIT;
-- session a
UPDATE t SET v = 'a2', n = n + 1 WHERE id = 2;
DELETE FROM t WHERE id = 10;
COMMIT;
-- session c
BEGIN;
DELETE FROM t WHERE id = 4;
-- session a
BEGIN;
INSERT INTO t VALUES (40, 'a');
-- session c
ROLLBACK;
-- session a
UPDATE t SET id = 41 WHERE id = 40;
COMMIT;

-- scenario: savepoints (points 48, 76, 84)
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 5) g;
-- meanwhile
BEGIN;
INSERT INTO t VALUES (10, 'kept');
SAVEPOINT a;
INSERT INTO t VALUES (11, 'gone');
SAVEPOINT b;
UPDATE t SET v = 'gone' WHERE id = 1;
ROLLBACK TO a;
INSERT INTO t VALUES (11, 'kept');
SAVEPOINT b;
DELETE FROM t WHERE id = 2;
RELEASE b;
SAVEPOINT c;
UPDATE t SET id = 33 WHERE id = 3;
ROLLBACK TO c;
UPDATE t SET v = 'kept' WHERE id = 3;
COMMIT;
BEGIN;
CREATE TABLE never (id serial PRIMARY KEY);
INSERT INTO never DEFAULT VALUES;
INSERT INTO t VALUES (99, 'never');
ROLLBACK;
BEGIN;
SAVEPOINT only_this;
INSERT INTO t VALUES (98, 'never');
ROLLBACK TO only_this;
COMMIT;
-- expect
SELECT string_agg(id || v, ' ' ORDER BY id) FROM t;
--> 1v 3kept 4v 5v 10kept 11kept

-- scenario: many_subtransactions (point 76)
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
-- meanwhile
DO $$ BEGIN
  FOR i IN 1..300 LOOP
    BEGIN
      INSERT INTO t VALUES (i, repeat('x', 300));
      IF i % 3 = 0 THEN RAISE EXCEPTION 'back'; END IF;
    EXCEPTION WHEN raise_exception THEN
      INSERT INTO t VALUES (-i, 'instead');
    END;
  END LOOP;
END $$;
-- expect
SELECT count(*), count(*) FILTER (WHERE id < 0) FROM t;
--> 300 | 100

-- scenario: empty_transactions (points 78, 84)
-- before
CREATE TABLE t (id int PRIMARY KEY);
CREATE TEMP TABLE before_it (id int);
-- meanwhile
BEGIN;
COMMIT;
CREATE TEMP TABLE nowhere (id int);
INSERT INTO nowhere SELECT generate_series(1, 1000);
UPDATE t SET id = id;
SELECT txid_current();
BEGIN;
INSERT INTO t VALUES (1);
DELETE FROM t;
COMMIT;
SELECT count(*) FROM t;

-- scenario: streamed (points 75, 76; source >= 14)
-- before
CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0);
CREATE TABLE other (id int PRIMARY KEY, v text);
-- meanwhile
INSERT INTO t SELECT g, repeat('streamed', 20) FROM generate_series(1, 2000) g;
BEGIN;
UPDATE t SET n = 1 WHERE id <= 1000;
UPDATE t SET id = id + 10000 WHERE id > 1500;
DELETE FROM t WHERE id BETWEEN 1001 AND 1100;
TRUNCATE other;
INSERT INTO other SELECT g, repeat('y', 200) FROM generate_series(1, 1000) g;
COMMIT;
BEGIN;
INSERT INTO t SELECT g, repeat('never', 20) FROM generate_series(20000, 22000) g;
ROLLBACK;

-- scenario: streamed_subtransactions_aborted (points 75, 76; source >= 14)
-- before
CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0);
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1000) g;
-- meanwhile
BEGIN;
INSERT INTO t SELECT g, repeat('kept', 50) FROM generate_series(2000, 2500) g;
SAVEPOINT a;
INSERT INTO t SELECT g, repeat('gone', 50) FROM generate_series(3000, 3500) g;
SAVEPOINT b;
UPDATE t SET n = 5, v = repeat('gone', 50);
SAVEPOINT c;
DELETE FROM t WHERE id < 500;
ROLLBACK TO b;
UPDATE t SET n = n + 1 WHERE id < 400;
ROLLBACK TO a;
INSERT INTO t SELECT g, repeat('instead', 50) FROM generate_series(3000, 3400) g;
SAVEPOINT d;
DELETE FROM t WHERE id BETWEEN 2000 AND 2200;
RELEASE d;
COMMIT;
-- expect
SELECT count(*), sum(n), count(*) FILTER (WHERE v LIKE 'gone%') FROM t;
--> 1701 | 0 | 0

-- scenario: streamed_interleaved (points 44, 75; source >= 14)
-- Several large transactions at once, with small ones between.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text, who text);
CREATE TABLE small (id serial PRIMARY KEY, v text);
-- meanwhile
-- session a
BEGIN;
INSERT INTO t SELECT g, repeat('a', 100), 'a' FROM generate_series(1, 1000) g;
-- session b
BEGIN;
INSERT INTO t SELECT g, repeat('b', 100), 'b' FROM generate_series(2001, 3000) g;
-- session c
INSERT INTO small (v) VALUES ('between');
BEGIN;
INSERT INTO t SELECT g, repeat('c', 100), 'c' FROM generate_series(4001, 5000) g;
-- session a
UPDATE t SET v = 'A' WHERE id <= 500;
SAVEPOINT s;
DELETE FROM t WHERE id > 0 AND who = 'a';
-- session b
UPDATE t SET v = repeat('B', 100);
COMMIT;
-- session c
UPDATE t SET v = 'seen by c' WHERE id = 2001;
ROLLBACK;
INSERT INTO small (v) VALUES ('after');
-- session a
ROLLBACK TO s;
INSERT INTO t SELECT g, repeat('a', 100), 'a2' FROM generate_series(6001, 7000) g;
UPDATE t SET who = 'a was last' WHERE id = 2001;
COMMIT;

-- scenario: streamed_toast_and_full (points 1, 4, 75; source >= 14)
-- before
CREATE TABLE t (id int PRIMARY KEY, a text, n int);
CREATE TABLE f (id int, a text);
ALTER TABLE t ALTER a SET STORAGE EXTERNAL;
ALTER TABLE f REPLICA IDENTITY FULL;
INSERT INTO t SELECT g, repeat('long' || g, 1000), 0 FROM generate_series(1, 60) g;
INSERT INTO f SELECT g % 10, 'same' FROM generate_series(1, 40) g;
-- meanwhile
BEGIN;
UPDATE t SET n = 1 WHERE id % 2 = 0;
UPDATE t SET a = repeat('new' || id, 2000) WHERE id % 3 = 0;
UPDATE t SET n = n + 1;
UPDATE f SET a = repeat('other', 500) WHERE id < 5;
DELETE FROM f WHERE id = 9;
UPDATE t SET id = id + 1000 WHERE id < 10;
COMMIT;

-- scenario: streamed_with_new_objects (points 52, 75, 84; source >= 14)
-- stops: with_new_objects|streamed_with_new_objects\.made
-- DDL inside a large transaction: nothing of the transaction is applied before the target has the table.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
-- meanwhile
BEGIN;
INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g;
CREATE TABLE made (id int PRIMARY KEY, v text);
INSERT INTO made SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g;
UPDATE t SET v = 'after';
COMMIT;
-- repair
CREATE TABLE made (id int PRIMARY KEY, v text);
-- expect
SELECT count(*), min(v) FROM t;
--> 1000 | after

-- scenario: two_phase (points 94, 8)
-- PREPARE TRANSACTION while following: the rows arrive with COMMIT PREPARED, whenever that is.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three');
-- meanwhile
BEGIN;
UPDATE t SET v = 'prepared' WHERE id = 1;
INSERT INTO t VALUES (10, 'prepared');
PREPARE TRANSACTION ':schema kept';
BEGIN;
DELETE FROM t WHERE id = 2;
SAVEPOINT s;
DELETE FROM t WHERE id = 3;
ROLLBACK TO s;
PREPARE TRANSACTION ':schema gone';
INSERT INTO t VALUES (11, 'between');
COMMIT PREPARED ':schema kept';
UPDATE t SET v = v || ' and after' WHERE id = 10;
ROLLBACK PREPARED ':schema gone';
BEGIN;
INSERT INTO t SELECT g, repeat('large', 50) FROM generate_series(1000, 1999) g;
PREPARE TRANSACTION ':schema large';
INSERT INTO t VALUES (12, 'between');
COMMIT PREPARED ':schema large';
-- expect
SELECT count(*), string_agg(v, ',' ORDER BY id) FILTER (WHERE id < 100) FROM t;
--> 1006 | prepared,two,three,prepared and after,between,between

-- scenario: logical_messages (points 45, 93; source >= 14)
-- Messages of other programs, transactional or not, in streamed and in aborted transactions; one that looks like ours.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
-- meanwhile
SELECT pg_logical_emit_message(false, 'app', 'outside');
SELECT pg_logical_emit_message(true, 'app', 'alone');
SELECT pg_logical_emit_message(true, 'walferry', 'not from walferry');
SELECT pg_logical_emit_message(false, 'walferry', 'not from walferry');
BEGIN;
INSERT INTO t VALUES (1, 'one');
SELECT pg_logical_emit_message(true, 'app', '\x00ff'::bytea);
SELECT pg_logical_emit_message(false, '', '');
INSERT INTO t VALUES (2, 'two');
COMMIT;
BEGIN;
INSERT INTO t SELECT g, repeat('large', 50) FROM generate_series(1000, 1999) g;
SELECT pg_logical_emit_message(true, 'app', repeat('m', 100000));
SELECT pg_logical_emit_message(false, 'app', repeat('m', 100000));
INSERT INTO t VALUES (3, 'three');
COMMIT;
BEGIN;
INSERT INTO t VALUES (4, 'never');
SELECT pg_logical_emit_message(false, 'app', 'from a transaction that aborts');
SELECT pg_logical_emit_message(true, 'app', 'never');
ROLLBACK;

-- scenario: from_another_origin (points 86, 87, 88)
-- Transactions that the source itself received by replication are the source's rows like any others.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT pg_replication_origin_create(':schema');
-- meanwhile
SELECT pg_replication_origin_session_setup(':schema');
INSERT INTO t VALUES (1, 'from elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/1234', now());
INSERT INTO t VALUES (2, 'with a position');
COMMIT;
BEGIN;
INSERT INTO t SELECT g, repeat('large', 50) FROM generate_series(1000, 1999) g;
COMMIT;
SELECT pg_replication_origin_session_reset();
INSERT INTO t VALUES (3, 'from here');
SELECT pg_replication_origin_drop(':schema');

-- scenario: long_transaction (points 71, 72)
-- One that began before and ends after others, holding its changes back.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
-- meanwhile
-- session old
BEGIN;
INSERT INTO t VALUES (1, 'first written, last committed');
-- session b
INSERT INTO t SELECT g, 'b' FROM generate_series(2, 500) g;
UPDATE t SET v = 'c' WHERE id > 100;
VACUUM t;
-- session old
UPDATE t SET v = 'old' WHERE id = 2;
COMMIT;
