#!/usr/bin/env bash
# Records the traces of this folder again: redis, gcc, python and sqlite of Debian, each in the middle of its work. They
# are built into the perseq command and replayed by E15. A recording is never twice the same; the files here are the ones
# that results were made with.
#
#   apt-get install redis-server redis-tools gcc python3 sqlite3
#   cargo build --release -p perseq-experiments -p perseq-recorder
#   experiments/traces/record.sh target/release/perseq
set -euo pipefail
perseq="$(realpath "$1")"
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"

# keep NAME SKIP MOST: of the recordings of NAME the largest becomes a trace, without its start.
keep() {
    local recording
    recording="$(ls -s "$1"/recording.* | sort -rn | head -1 | sed 's/^ *[0-9]* //')"
    "$perseq" trace import "$recording" "$here/$1.trace.gz" --skip "$2" --most "$3"
}
record() { local name="$1"; shift; "$perseq" trace record --events 4000000 --out "$work/$name.trace" --keep "$work/$name" -- "$@" >/dev/null; }

cat >tree.py <<'END'
import json, re, collections
words = re.findall(r"[a-z]+", " ".join(chr(97 + i % 26) * (1 + i % 7) + " " + str(i) for i in range(20000)))
count = collections.Counter(words)
tree = {}
for i in range(20000):
    at = tree
    for letter in format(i, "x"):
        at = at.setdefault(letter, {})
    at["value"] = [i, str(i), {"id": i, "even": i % 2 == 0}]
text = json.dumps(tree)
print(len(text), len(json.loads(text)), count.most_common(3))
END
# Every object by malloc, none from the interpreter's own pools.
PYTHONMALLOC=malloc PYTHONHASHSEED=0 record python python3 tree.py
keep python 200000 40000

cat >program.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *left, *right; int key; char text[40]; };
static struct node *insert(struct node *at, int key) {
    if (!at) {
        at = calloc(1, sizeof *at);
        at->key = key;
        memset(at->text, 'a' + key % 26, sizeof at->text - 1);
        return at;
    }
    if (key < at->key) at->left = insert(at->left, key); else at->right = insert(at->right, key);
    return at;
}
int main(void) {
    struct node *root = 0;
    for (int k = 0; k < 500; k++) root = insert(root, k * 7919 % 1009);
    return printf("%d\n", root->key) < 0;
}
END
record gcc gcc -O2 -g -c program.c
keep gcc 10000 40000

record sqlite sqlite3 :memory: '
CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER, t TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000)
INSERT INTO a SELECT i, (i * 7919) % 10003, hex(i * 2654435761) || " row " || i FROM c;
CREATE INDEX an ON a(n); CREATE INDEX at ON a(t);
SELECT count(*), max(t) FROM a WHERE n < 5000;
UPDATE a SET t = upper(t) || substr(t, 1, 5) WHERE n < 5000;
SELECT length(group_concat(t)) FROM a;
SELECT n % 10 AS k, count(*), min(t) FROM a GROUP BY k;'
keep sqlite 20000 40000

record redis redis-server --port 0 --unixsocket "$work/socket" --dir "$work" --save '' --io-threads 2 --daemonize no &
for _ in $(seq 100); do [ "$(redis-cli -s socket ping 2>/dev/null)" = PONG ] && break; sleep 0.1; done
redis-benchmark -s "$work/socket" -q -P 8 -c 20 -n 20000 -r 1000 -t set,get,incr,lpush,rpush,lpop,sadd,hset,zadd >/dev/null
redis-cli -s socket shutdown nosave || true
wait
keep redis 20000 40000
