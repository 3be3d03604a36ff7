#!/usr/bin/env bash
# mosquitto_pub, mosquitto_sub and mosquitto_rr: mosquitto.sh mqtt://HOST:PORT or mqtts://HOST:PORT (with the authority in CA_FILE)
set -u
address=${1#*://} failed=0
at=(-h "${address%:*}" -p "${address##*:}")
[ "${1%%://*}" = mqtt ] || at+=(--cafile "$CA_FILE")
sub() { timeout 20 mosquitto_sub "${at[@]}" "$@"; }
pub() { timeout 20 mosquitto_pub "${at[@]}" "$@"; }

check() { # NAME EXPECTED FOUND
    if [ "$2" = "$3" ]; then
        echo "ok $1"
    else
        echo "not ok $1: expected $(printf %q "$2"), found $(printf %q "$3")"
        failed=1
    fi
}

for version in mqttv311 mqttv5; do
    for qos in 0 1 2; do
        # Retained: it does not matter who is first.
        seq 20 | while read -r n; do pub -V $version -q $qos -r -t "mosquitto/$version/$qos/$n" -m "$n"; done
        found=$(sub -V $version -q $qos -t "mosquitto/$version/$qos/+" -C 20 | sort -n | tr '\n' ' ')
        check "$version: retained at QoS $qos" "$(seq -s ' ' 20) " "$found"
    done
    sub -V $version -i "session-$version" -c -q 1 -t "mosquitto/$version/session" -E $([ $version = mqttv5 ] && echo "-x 60")
    seq 50 | pub -V $version -q 1 -t "mosquitto/$version/session" -l
    found=$(sub -V $version -i "session-$version" -c -q 1 -t "mosquitto/$version/session" -C 50 $([ $version = mqttv5 ] && echo "-x 60") | tr '\n' ' ')
    check "$version: a session waits" "$(seq -s ' ' 50) " "$found"
    head -c 1000000 /dev/urandom >"$TMPDIR/large"
    pub -V $version -q 2 -r -t "mosquitto/$version/large" -f "$TMPDIR/large"
    sub -V $version -q 2 -t "mosquitto/$version/large" -C 1 -N >"$TMPDIR/found"
    check "$version: a megabyte" "$(sha256sum <"$TMPDIR/large")" "$(sha256sum <"$TMPDIR/found")"
done

# mosquitto_rr asks, mosquitto_sub and mosquitto_pub answer.
sub -V mqttv5 -t mosquitto/ask -C 1 -F '%R %D' >"$TMPDIR/asked" &
sleep 1
timeout 20 mosquitto_rr "${at[@]}" -V mqttv5 -t mosquitto/ask -e mosquitto/answer -m question -D publish correlation-data 42 >"$TMPDIR/answer" &
rr=$!
wait $(jobs -p | head -1)
read -r topic data <"$TMPDIR/asked"
sleep 1
pub -V mqttv5 -t "$topic" -m answer -D publish correlation-data "$data"
wait $rr
check "mqttv5: request and response" answer "$(cat "$TMPDIR/answer")"
exit $failed
