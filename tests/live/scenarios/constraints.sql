-- Constraints, triggers, rules, and the order of changes within and between transactions.

-- scenario: triggers_and_rules (points 38, 39)
-- check: source.triggers
-- check: source.rules
-- What triggers and rules do on the source arrives as changes; on the target none of them may fire, of whatever kind.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text, stamped text);
CREATE TABLE log (id serial PRIMARY KEY, what text);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.stamped := TG_NAME; RETURN NEW; END';
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS 'BEGIN INSERT INTO log (what) VALUES (TG_NAME || TG_OP); RETURN NULL; END';
CREATE TRIGGER stamp_ordinary BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER note_ordinary AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note_always AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note_replica AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note_off AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE t ENABLE ALWAYS TRIGGER note_always, ENABLE REPLICA TRIGGER note_replica, DISABLE TRIGGER note_off;
ALTER TABLE t ENABLE ALWAYS TRIGGER note_truncate;
CREATE TABLE r (id int PRIMARY KEY, v text);
CREATE RULE r_insert AS ON INSERT TO r DO ALSO INSERT INTO log (what) VALUES ('rule');
CREATE RULE r_update AS ON UPDATE TO r DO ALSO INSERT INTO log (what) VALUES ('rule');
ALTER TABLE r ENABLE ALWAYS RULE r_update;
INSERT INTO t VALUES (1, 'one'), (2, 'two'), (5, 'five');
INSERT INTO r VALUES (1, 'one');
-- meanwhile
INSERT INTO t VALUES (3, 'three');
UPDATE t SET v = 'uno' WHERE id = 1;
DELETE FROM t WHERE id = 2;
INSERT INTO r VALUES (2, 'two');
UPDATE r SET v = 'x';
TRUNCATE t;
INSERT INTO t VALUES (9, 'nine');

-- scenario: event_triggers (points 39, 52)
-- alone:
-- An event trigger comes with the schema, and must not fire for what walferry itself creates.
-- before
CREATE TABLE seen (id serial PRIMARY KEY, tag text);
CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS 'BEGIN INSERT INTO seen (tag) VALUES (tg_tag); END';
CREATE EVENT TRIGGER see_ordinary ON ddl_command_end EXECUTE FUNCTION see();
CREATE EVENT TRIGGER see_always ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION see();
ALTER EVENT TRIGGER see_always ENABLE ALWAYS;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE INDEX ON t (v);
-- meanwhile
INSERT INTO t VALUES (1, 'one');

-- scenario: deferrable_unique (points 40, 41, 45; source >= 14)
-- check: source.deferrable_keys
-- Unique values that change places: on the source only possible inside a statement or transaction.
-- before
CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, w int CONSTRAINT w_unique UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE x (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO t SELECT g, g, g FROM generate_series(1, 6) g;
INSERT INTO x SELECT g, int4range(g * 10, g * 10 + 5) FROM generate_series(1, 3) g;
-- meanwhile
UPDATE t SET u = 3 - u WHERE u IN (1, 2);
UPDATE t SET w = w + 1;
BEGIN;
UPDATE t SET u = 4 WHERE id = 3;
UPDATE t SET u = 3 WHERE id = 4;
COMMIT;
BEGIN;
UPDATE x SET r = '[20,25)' WHERE id = 1;
UPDATE x SET r = '[10,15)' WHERE id = 2;
COMMIT;
BEGIN;
INSERT INTO t VALUES (7, 5, 100);
DELETE FROM t WHERE id = 5;
COMMIT;

-- scenario: unique_values_wander (points 45, 46)
-- A unique value is freed by one row and taken by another, by deletes, updates and key changes, within a transaction and
-- over several: whoever folds or reorders changes meets a duplicate.
-- before
CREATE TABLE t (id int PRIMARY KEY, u int NOT NULL UNIQUE, v text UNIQUE, n int);
CREATE UNIQUE INDEX ON t (n) WHERE n > 100;
CREATE UNIQUE INDEX ON t ((lower(v)));
INSERT INTO t SELECT g, g, 'v' || g, g FROM generate_series(1, 20) g;
CREATE TABLE e (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&));
INSERT INTO e SELECT g, int4range(g * 10, g * 10 + 10) FROM generate_series(1, 5) g;
-- meanwhile
BEGIN;
DELETE FROM t WHERE id = 1;
INSERT INTO t VALUES (101, 1, 'V1', 1);
COMMIT;
BEGIN;
UPDATE t SET u = 1000 WHERE id = 2;
UPDATE t SET u = 2 WHERE id = 3;
UPDATE t SET u = 3 WHERE id = 2;
COMMIT;
BEGIN;
UPDATE t SET v = 'free' WHERE id = 4;
INSERT INTO t VALUES (104, 104, 'v4', 4);
DELETE FROM t WHERE id = 104;
UPDATE t SET v = 'v4' WHERE id = 4;
COMMIT;
UPDATE t SET u = 500 WHERE id = 5;
UPDATE t SET u = 5 WHERE id = 6;
UPDATE t SET u = 6 WHERE id = 5;
BEGIN;
UPDATE t SET id = 207, u = 207 WHERE id = 7;
UPDATE t SET id = 7, u = 7 WHERE id = 8;
UPDATE t SET id = 8, u = 8 WHERE id = 207;
COMMIT;
UPDATE t SET n = 900 WHERE id = 9;
UPDATE t SET n = NULL WHERE id = 9;
UPDATE t SET n = 900 WHERE id = 10;
DELETE FROM t WHERE id = 10;
INSERT INTO t VALUES (10, 10, 'v10', 900);
DELETE FROM e WHERE id = 2;
UPDATE e SET r = '[10,25)' WHERE id = 1;
INSERT INTO e VALUES (2, '[25,30)');
UPDATE e SET r = NULL WHERE id = 3;
UPDATE e SET r = '[25,40)' WHERE id = 2;

-- scenario: foreign_keys_any_order (points 42, 43, 44)
-- Tables that need each other, and what CASCADE, SET NULL and SET DEFAULT do on the source.
-- before
CREATE TABLE parent (id int PRIMARY KEY, child_id int);
CREATE TABLE child (id int PRIMARY KEY, parent_id int DEFAULT 1 REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE parent ADD FOREIGN KEY (child_id) REFERENCES child ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE leaf (id int PRIMARY KEY, parent_id int DEFAULT 1 REFERENCES parent ON DELETE SET DEFAULT ON UPDATE SET NULL, tree int REFERENCES leaf ON DELETE CASCADE);
BEGIN;
INSERT INTO parent SELECT g, g FROM generate_series(1, 6) g;
INSERT INTO child SELECT g, g FROM generate_series(1, 6) g;
COMMIT;
INSERT INTO leaf SELECT g, g % 6 + 1, NULLIF(g / 2, 0) FROM generate_series(1, 20) g;
-- meanwhile
BEGIN;
INSERT INTO child VALUES (7, 7);
INSERT INTO parent VALUES (7, 7);
COMMIT;
DELETE FROM parent WHERE id = 2;
UPDATE parent SET id = 30 WHERE id = 3;
UPDATE child SET id = 40 WHERE id = 4;
DELETE FROM child WHERE id = 5;
DELETE FROM leaf WHERE id = 3;
-- expect
SELECT (SELECT count(*) FROM parent), (SELECT count(*) FROM child), (SELECT count(*) FROM leaf);
--> 6 | 5 | 13

-- scenario: changes_fold (points 1, 45)
-- Many changes of one row within a transaction and over several: what remains is the last of each column.
-- before
CREATE TABLE t (id int PRIMARY KEY, a text, b text, n int);
ALTER TABLE t ALTER a SET STORAGE EXTERNAL;
INSERT INTO t SELECT g, repeat('long', 2000), 'b', 0 FROM generate_series(1, 5) g;
-- meanwhile
BEGIN;
INSERT INTO t VALUES (10, 'a', 'b', 1);
UPDATE t SET a = repeat('x', 9000) WHERE id = 10;
UPDATE t SET b = 'c' WHERE id = 10;
DELETE FROM t WHERE id = 10;
INSERT INTO t VALUES (10, NULL, 'again', 2);
UPDATE t SET id = 11 WHERE id = 10;
COMMIT;
UPDATE t SET n = 1 WHERE id = 1;
UPDATE t SET a = repeat('y', 9000) WHERE id = 1;
UPDATE t SET b = 'z' WHERE id = 1;
UPDATE t SET id = 12 WHERE id = 1;
UPDATE t SET n = 2 WHERE id = 12;
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (2, 'short', 'b', 5);
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (20, 'gone at once', NULL, NULL);
DELETE FROM t WHERE id = 20;
TRUNCATE t;
INSERT INTO t VALUES (1, 'after', 'truncate', 1);
UPDATE t SET n = 2;

-- scenario: checks_and_not_valid (points 38, 63)
-- Rows that break a constraint NOT VALID have to come along; the constraint stays NOT VALID.
-- before
CREATE TABLE p (id int PRIMARY KEY);
CREATE TABLE t (id int PRIMARY KEY, v int, p int);
INSERT INTO t VALUES (1, -1, 99), (2, 5, NULL);
ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
ALTER TABLE t ADD CONSTRAINT to_p FOREIGN KEY (p) REFERENCES p NOT VALID;
-- meanwhile
INSERT INTO t VALUES (3, 3, NULL);
DELETE FROM t WHERE id = 1;
INSERT INTO p VALUES (1);
UPDATE t SET p = 1 WHERE id = 3;

-- scenario: truncate_forms (point 49)
-- One TRUNCATE of several tables, with foreign keys among them, CASCADE, RESTART IDENTITY, partitions, and work around it.
-- before
CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE TABLE b (id serial PRIMARY KEY, a int REFERENCES a);
CREATE TABLE c (id serial PRIMARY KEY, b int REFERENCES b);
CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
CREATE TABLE i (id int PRIMARY KEY);
CREATE TABLE i_child (PRIMARY KEY (id)) INHERITS (i);
CREATE TABLE f (v int);
ALTER TABLE f REPLICA IDENTITY FULL;
INSERT INTO a (v) SELECT 'v' FROM generate_series(1, 3);
INSERT INTO b (a) VALUES (1), (2);
INSERT INTO c (b) VALUES (1), (2);
INSERT INTO p SELECT g, g % 2 + 1 FROM generate_series(1, 6) g;
INSERT INTO i VALUES (1);
INSERT INTO i_child VALUES (2);
INSERT INTO f VALUES (1), (1);
-- meanwhile
TRUNCATE a, b, c RESTART IDENTITY;
INSERT INTO a (v) VALUES ('first');
INSERT INTO b (a) VALUES (1);
TRUNCATE a CASCADE;
INSERT INTO a (v) VALUES ('second');
BEGIN;
INSERT INTO c VALUES (50, NULL);
TRUNCATE c;
INSERT INTO c VALUES (51, NULL);
SAVEPOINT s;
TRUNCATE a, b, c, f RESTART IDENTITY CASCADE;
ROLLBACK TO s;
COMMIT;
TRUNCATE p1;
INSERT INTO p VALUES (100, 1);
TRUNCATE p;
INSERT INTO p VALUES (200, 2);
TRUNCATE ONLY i;
INSERT INTO i VALUES (7);
TRUNCATE i;
INSERT INTO i_child VALUES (8);
TRUNCATE f;
INSERT INTO f VALUES (2), (2);
-- expect
SELECT (SELECT string_agg(v, ',') FROM a), (SELECT count(*) FROM b), (SELECT string_agg(id::text, ',') FROM c), (SELECT count(*) FROM p), (SELECT count(*) FROM i), (SELECT count(*) FROM f);
--> second | 0 | 51 | 1 | 1 | 2

-- scenario: truncate_meets_reader (point 49)
-- stops: truncate of :schema\.a.*referenced in a foreign key constraint
-- A table of the target's own that refers to a truncated one: the truncate is refused, it never cascades.
-- before
CREATE TABLE a (id int PRIMARY KEY);
INSERT INTO a VALUES (1);
-- target
CREATE TABLE own (id int REFERENCES a);
-- meanwhile
TRUNCATE a;
-- repair
DROP TABLE own;

-- scenario: maintenance (point 50)
-- What rewrites a table without changing its rows leaves no trace in the stream.
-- before
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE f (v text);
ALTER TABLE f REPLICA IDENTITY FULL;
CREATE INDEX t_v ON t (v);
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 100) g;
INSERT INTO f SELECT 'v' || g FROM generate_series(1, 100) g;
DELETE FROM t WHERE id % 3 = 0;
-- meanwhile
VACUUM t;
VACUUM FULL t;
CLUSTER t USING t_v;
ALTER TABLE t SET WITHOUT CLUSTER;
REINDEX TABLE t;
ANALYZE t;
UPDATE t SET v = 'x' WHERE id = 1;
VACUUM FULL f;
DELETE FROM f WHERE v = 'v7';
BEGIN;
LOCK TABLE t IN ACCESS EXCLUSIVE MODE;
UPDATE t SET v = 'y' WHERE id = 2;
COMMIT;
