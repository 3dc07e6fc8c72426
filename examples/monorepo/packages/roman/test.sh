#!/bin/sh
set -eu
cd "$(dirname "$0")"
test "$(printf '1\n4\n1987\n3999\n' | awk -f roman | tr '\n' ' ')" = "I IV MCMLXXXVII MMMCMXCIX "
for bad in 0 4000 x -1 ''; do
    if echo "$bad" | awk -f roman >/dev/null 2>&1; then
        echo "took '$bad'"
        exit 1
    fi
done
