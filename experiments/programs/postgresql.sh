# A cluster of its own, pgbench with eight clients, and the sums that must agree afterwards. Not as root: PostgreSQL refuses.
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | tail -1)
[ -x "$bin/initdb" ] || { echo "no initdb in /usr/lib/postgresql" >&2; exit 77; }
as=()
if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid nobody --regid nogroup --clear-groups)
    chown nobody:nogroup .
fi
data=$PWD/data
run() { "${as[@]}" env HOME="$PWD" "$@"; }
run "$bin/initdb" -D "$data" -U perseq --no-sync --locale C >init.log 2>&1 || { tail -5 init.log; exit 1; }
run "$bin/pg_ctl" -D "$data" -w -s -l server.log -o "-c listen_addresses='' -c unix_socket_directories='$PWD' -c fsync=off" start || { tail -5 server.log; exit 1; }
trap 'run "$bin/pg_ctl" -D "$data" -s -m immediate stop >/dev/null 2>&1 || true' EXIT
ask() { run "$bin/psql" -h "$PWD" -U perseq -d postgres -qAtX -c "$1"; }
run "$bin/pgbench" -h "$PWD" -U perseq -i -q -s 3 postgres >init-bench.log 2>&1 || cat init-bench.log
run "$bin/pgbench" -h "$PWD" -U perseq -c 8 -j 4 -t 300 postgres >bench.log 2>&1 || cat bench.log
grep -E '^number of transactions actually' bench.log
ask "SELECT count(*) FROM pgbench_history"
ask "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
            (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)"
ask "SET max_parallel_workers_per_gather = 4; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0;
     SELECT count(*), count(DISTINCT md5(a.aid::text)) FROM pgbench_accounts a JOIN pgbench_accounts b USING (aid)"
ask "CREATE TABLE j AS SELECT i, jsonb_build_object('k', i, 'v', repeat('x', i % 500)) AS d FROM generate_series(1, 30000) i;
     SELECT sum(length(d->>'v')), sum((d->>'k')::bigint) FROM j"
run "$bin/pg_ctl" -D "$data" -s -w stop && echo stopped
echo "$(grep -cE 'PANIC|terminated by signal|FATAL' server.log || true) crashes in the log"
