# CPython's own tests of its core types, threads, processes and collector. Only the verdict is compared: the rest has times in
# it. The test left out fails wherever a site package imports threading first.
modules=(
    test_list test_tuple test_dict test_set test_deque test_array test_bytes test_unicode test_memoryview test_struct
    test_gc test_weakref test_re test_json test_pickle test_heapq test_sort test_bigmem test_thread test_threading
    test_threading_local test_queue test_fork1 test_zlib test_io
)
has='import importlib.util, sys; print(*(m for m in sys.argv[1:] if importlib.util.find_spec("test." + m)))'
modules=($(python3 -c "$has" "${modules[@]}" 2>/dev/null)) || true
((${#modules[@]} >= 15)) || { echo "python3 has no test package; Debian: libpython3.11-testsuite" >&2; exit 77; }
if python3 -m test --timeout 240 --ignore "*test_import_from_another_thread" "${modules[@]}" >log 2>&1; then
    echo "all ${#modules[@]} modules passed or were skipped as on any host"
else
    grep -E '^(test .* (failed|crashed)|FAIL|ERROR|Fatal)' log | sort -u
    tail -30 log >&2
fi
