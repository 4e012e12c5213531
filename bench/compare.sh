#!/usr/bin/env bash
# The same load on the Postgres log and on the Kafka log, in turns, on one machine: bench/compare.sh [seconds] [turns] [bench options...]
# KAFKA_HOME names an Apache Kafka. Everything is built in Release, and its data is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
turns=${2:-2}
shift $(($# < 2 ? $# : 2))
: "${KAFKA_HOME:?names no Apache Kafka}"

dotnet build -c Release -v quiet
directory=$(mktemp -d)
chmod 755 "$directory"
trap 'kill "${apphost:-}" 2>/dev/null; wait; rm -rf "$directory"' EXIT

for ((turn = 1; turn <= turns; turn++)); do
    for log in postgres kafka; do
        home=$([ $log = kafka ] && echo "$KAFKA_HOME" || true)
        # The AppHost itself, so that the signal that ends it reaches it.
        dotnet Triggers.AppHost/bin/Release/net10.0/Triggers.AppHost.dll --Data:Directory="$directory/$log-$turn" --Data:Temporary=true \
            --Dashboard:Enabled=false --Ports:Api=18088 --Ports:Receiver=0 --Ports:Kafka=0 --Kafka:Home="$home" \
            --RateLimiting:RequestsPerSecond=1000000 --RateLimiting:Burst=1000000 --RateLimiting:EventsPerSecond=0 --RateLimiting:BytesPerSecond=0 \
            --environment=Production >"$directory/out" 2>&1 &
        apphost=$!
        until grep -q 'Ctrl-C stops' "$directory/out"; do
            kill -0 $apphost || { cat "$directory/out"; exit 1; }
            sleep 0.2
        done
        key=$(awk '/admin key/ { print $3 }' "$directory/out")
        echo "== $log, turn $turn"
        # A little first, so that nobody is measured while the code is being compiled.
        dotnet bench/bin/Release/net10.0/Triggers.Bench.dll --api http://localhost:18088 --key "$key" --rate 500 --seconds 5 >/dev/null
        dotnet bench/bin/Release/net10.0/Triggers.Bench.dll --api http://localhost:18088 --key "$key" --seconds "$seconds" "$@"
        kill $apphost
        wait $apphost || true
    done
done
