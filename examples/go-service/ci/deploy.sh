#!/bin/sh
# Installs a build and starts it to see that it is well: deploy.sh PROGRAM FOLDER
#
# Each version is kept below FOLDER/releases; FOLDER/current is changed only when the new one
# answers. Prints what the job reports as a file for dotenv: DEPLOY_URL and DEPLOY_VERSION.
set -eu
program=$1
folder=$2
version=$("$program" -version)
release=$folder/releases/$version
mkdir -p "$release"
cp "$program" "$release/linkd.new"
mv "$release/linkd.new" "$release/linkd"

"$release/linkd" -listen "127.0.0.1:${PORT:-0}" >"$release/address" 2>"$release/log" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true' EXIT
tries=0
until [ -s "$release/address" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
        cat "$release/log" >&2
        echo "the service does not start" >&2
        exit 1
    fi
    sleep 0.1
done
url=$(cat "$release/address")
[ "$(curl -fsS "$url/healthz")" = ok ]
[ "$(curl -fsS "$url/version")" = "$version" ]
short=$(curl -fsS --data-binary 'https://example.org/deployed' "$url/links")
target=$(curl -fsS -o /dev/null -w '%{redirect_url}' "$url$short")
[ "$target" = https://example.org/deployed ]
kill "$pid"
wait "$pid"
trap - EXIT

ln -sfn "releases/$version" "$folder/current.new"
mv -T "$folder/current.new" "$folder/current"
echo "DEPLOY_URL=$url"
echo "DEPLOY_VERSION=$version"
