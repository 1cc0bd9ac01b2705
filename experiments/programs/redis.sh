# A server with two I/O threads under redis-benchmark, then 100 000 keys, a background save by fork, and a reload.
redis-server --port 0 --unixsocket "$PWD/socket" --dir "$PWD" --save '' --io-threads 2 --daemonize no --enable-debug-command yes >server.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
ask() { redis-cli -s "$PWD/socket" "$@"; }
for _ in $(seq 100); do [ "$(ask ping 2>/dev/null)" = PONG ] && break; sleep 0.1; done
redis-benchmark -s "$PWD/socket" -q -P 8 -c 50 -n 20000 -t set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,zadd,mset >bench.txt 2>&1 || cat bench.txt
echo "counter $(ask get counter:__rand_int__), list $(ask llen mylist)"
ask debug populate 100000 key 200
ask dbsize
awk 'BEGIN { for (i = 0; i < 20000; i++) { t = sprintf("%*s", i % 900 + 1, ""); gsub(/ /, "x", t); print "append key:" i " " t } }' | ask --pipe | tail -1
echo "length $(ask strlen key:1999)"
digest=$(ask debug digest)
ask bgsave
for _ in $(seq 300); do [ "$(ask info persistence | tr -d '\r' | grep rdb_bgsave_in_progress)" = rdb_bgsave_in_progress:0 ] && break; sleep 0.1; done
ask info persistence | tr -d '\r' | grep rdb_last_bgsave_status
ask debug reload
[ "$digest" = "$(ask debug digest)" ] && echo "the same data after the reload"
ask flushall
ask dbsize
ask shutdown nosave
wait $server
echo "server ended with $?"
