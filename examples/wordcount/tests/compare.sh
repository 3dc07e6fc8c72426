#!/bin/sh
# Compares with wc on random text, round after round: compare.sh PROGRAM ROUNDS
set -eu
program=$1
rounds=$2
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
i=1
while [ "$i" -le "$rounds" ]; do
    head -c $((i * 997)) /dev/urandom | tr -dc 'a-z \n\t' >"$tmp"
    want=$(LC_ALL=C wc <"$tmp" | awk '{print $1, $2, $3}')
    got=$("$program" <"$tmp")
    if [ "$want" != "$got" ]; then
        echo "round $i: wc says $want, we say $got" >&2
        exit 1
    fi
    echo "round $i of $rounds: $got"
    sleep 0.5
    i=$((i + 1))
done
