#!/bin/sh
set -eu
cd "$(dirname "$0")"
test "$(printf 'a bbb c\naaaa b\n\n' | awk -f columns)" = "$(printf 'a     bbb  c\naaaa  b\n')"
