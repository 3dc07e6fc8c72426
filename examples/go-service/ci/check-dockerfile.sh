#!/bin/sh
# Checks the stages of a Dockerfile without building it: check-dockerfile.sh FILE
#
# More than one stage, each with a name; images with a version; what is copied from a stage comes
# from an earlier one; the last stage runs as somebody other than root and has no shell to run.
set -eu
awk '
function wrong(what) { printf "%s:%d: %s\n", FILENAME, FNR, what; bad = 1 }
/^[[:space:]]*(#|$)/ { next }
toupper($1) == "FROM" {
    user = ""; entry = 0; stages++
    if (toupper($3) != "AS" || $4 == "") wrong("a stage without a name")
    if ($2 != "scratch" && !($2 in known) && $2 !~ /:[^:]*[0-9]/) wrong("an image without a version: " $2)
    if ($2 ~ /:latest$/) wrong("latest is no version")
    base = $2; known[$4] = 1; next
}
stages == 0 && toupper($1) != "ARG" { wrong("an instruction before the first stage") }
toupper($1) == "COPY" && match($0, /--from=[^ ]+/) {
    from = substr($0, RSTART + 7, RLENGTH - 7)
    if (!(from in known)) wrong("copies from a stage that is not there: " from)
}
toupper($1) == "ADD" { wrong("COPY says what it does, ADD guesses") }
toupper($1) == "RUN" && base == "scratch" { wrong("there is nothing to run in scratch") }
toupper($1) == "USER" { user = $2 }
toupper($1) == "ENTRYPOINT" { entry = 1; if ($2 !~ /^\[/) wrong("an entry point as a list needs no shell") }
END {
    if (stages < 2) wrong("one stage only: the tools to build with would be delivered")
    if (user == "" || user ~ /^(root|0)(:|$)/) wrong("the last stage runs as root")
    if (!entry) wrong("the last stage has no entry point")
    if (!bad) printf "%s: %d stages, the last one on %s as %s\n", FILENAME, stages, base, user
    exit bad
}' "$1"
