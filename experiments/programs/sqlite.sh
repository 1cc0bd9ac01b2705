# Inserts, indexes, joins, updates, text functions and a rollback, in memory and in a file.
sql='
PRAGMA cache_size = 2000;
CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER, t TEXT);
CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER, x REAL);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 150000)
INSERT INTO a SELECT i, (i * 7919) % 100003, hex(i * 2654435761) || " row " || i FROM c;
INSERT INTO b SELECT id, n, id * 0.5 FROM a WHERE id % 3 = 0;
CREATE INDEX an ON a(n);
CREATE INDEX at ON a(t);
CREATE INDEX ba ON b(a);
SELECT count(*), sum(b.x), max(a.t) FROM a JOIN b ON b.a = a.n;
UPDATE a SET t = upper(t) || substr(t, 1, 5) WHERE n < 50000;
DELETE FROM a WHERE id % 5 = 0;
SELECT count(*), count(DISTINCT substr(t, 1, 3)), sum(length(t)) FROM a;
BEGIN; DELETE FROM b; ROLLBACK;
SELECT count(*), length(group_concat(id)) FROM b;
SELECT n % 10 AS k, count(*), min(t) FROM a GROUP BY k ORDER BY k;
VACUUM;
PRAGMA integrity_check;
'
sqlite3 :memory: "$sql"
sqlite3 file.db "PRAGMA synchronous = OFF; $sql"
