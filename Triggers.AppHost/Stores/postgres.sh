# Runs a PostgreSQL server, and ends it in time, and as it ends.
#
# The orchestrator says SIGTERM and, 6 s later, SIGKILL. To Postgres SIGTERM means: when every session has ended by itself, which those of the
# services do; SIGINT: now, in good order. So whoever else is still there after 2 s is told to go: the rest is for the checkpoint.
end() {
    kill -TERM $server
    (n=0; while [ $n -lt 20 ] && kill -0 $server 2>/dev/null; do sleep 0.1; n=$((n + 1)); done; kill -INT $server 2>/dev/null) &
}
"$@" & server=$!
trap end TERM INT HUP
while kill -0 $server 2>/dev/null; do wait $server; code=$?; done
[ $code -gt 128 ] && kill -KILL $$
exit $code
