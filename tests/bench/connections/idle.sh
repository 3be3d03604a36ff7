#!/bin/sh
# idle.sh CORE LOAD FOLDER PORT COUNT: idle connections to a core, first without a subscription, then with one each. Every line of figures begins
# with "result ". Runs as well in a machine that has only busybox.
core=$1 load=$2 folder=$3 port=$4 count=$5
# As many as are allowed.
ulimit -n "$(ulimit -H -n)"
for kind in without with; do
    mkdir -p "$folder/$kind"
    "$core" --data-dir "$folder/$kind/data" --listen-mqtt "0.0.0.0:$port" --listen-sync 127.0.0.1:0 --listen-admin 127.0.0.1:0 --listen-kafka off \
        --listen-amqp off --anonymous allow --max-connections "$count" >"$folder/$kind/ready" 2>"$folder/$kind/log" &
    pid=$!
    until grep -q ^ready "$folder/$kind/ready"; do
        kill -0 $pid || {
            cat "$folder/$kind/log"
            exit 1
        }
        sleep 0.2
    done
    subscribe=
    [ $kind = without ] || subscribe=--subscribe
    figures=$("$load" idle --port "$port" --pid $pid --clients "$count" $subscribe) && echo "result $kind $figures"
    # What it complained of.
    grep -E 'WARN|ERROR' "$folder/$kind/log" | tail -n 3
    # Its data are thrown away.
    kill -9 $pid
    wait $pid 2>/dev/null
done
echo finished
