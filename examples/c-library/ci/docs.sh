#!/bin/sh
# Makes a page of a header: docs.sh HEADER VERSION. What is documented are the declarations with a
# comment before them.
set -eu
awk -v version="$2" '
function html(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/>/, "\\&gt;", s); return s }
BEGIN {
    printf "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
    printf "<title>csv %s</title>\n<h1>csv %s</h1>\n", html(version), html(version)
}
/^\/\*/ { comment = ""; inside = 1 }
inside {
    line = $0
    sub(/^(\/\*| \*) ?/, "", line)
    if (sub(/ ?\*\/.*/, "", line)) inside = 0
    comment = comment (comment == "" ? "" : " ") line
    next
}
/^#include/ && !intro { printf "<p>%s</p>\n", html(comment); comment = ""; intro = 1 }
comment != "" && /;$/ && /^[a-z]/ && /\(/ {
    printf "<h2><code>%s</code></h2>\n<p>%s</p>\n", html($0), html(comment)
    comment = ""; count++
}
END { if (!count) exit 1 }
' "$1"
