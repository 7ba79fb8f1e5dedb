#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The archive in a real S3 server (radosgw): pushed from one host, and restored on another that has nothing but the
# address and the keys, after the first host's pool is gone. Encrypted with a passphrase; a killed push leaves nothing.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
source "$source_dir/tests/ceph.bash"
requires jq openssl curl cmp qemu-img nbdcopy
ceph_requires

export HOME=$tmp/home
mkdir -p "$HOME"
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE
unset http_proxy https_proxy all_proxy
ceph_start "$tmp/ceph"
empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
curl -fsS --noproxy '*' -X PUT --aws-sigv4 aws:amz:us-east-1:s3 -u "$ceph_key:$ceph_secret" \
  -H "x-amz-content-sha256: $empty" "$ceph_endpoint/firn"
export AWS_ACCESS_KEY_ID=$ceph_key AWS_SECRET_ACCESS_KEY=$ceph_secret
url="s3://firn/vms?endpoint=$ceph_endpoint"
printf 'correct horse battery staple\n' >"$tmp/secret"
printf 'another\n' >"$tmp/wrong"
archive() { local verb=$1; shift; "$firn" archive "$verb" "$@" --passphrase-file "$tmp/secret"; }
push() { f archive push "$1" "$url" --passphrase-file "$tmp/secret" "${@:2}"; }

"$firn" archive create "$url" --passphrase-file "$tmp/secret" --segment 4M >/dev/null
start_firn
make_disk web 64M
some_bytes 50000000 1 >"$tmp/image"
truncate -s 64M "$tmp/image"
qemu-img convert -n -f raw -O raw "$tmp/image" "$(uri web)"
f snapshot create web@one >/dev/null

say "--- a push that is killed leaves nothing that anybody sees"
push web@one >"$tmp/out" 2>&1 &
pusher=$!
kill -9 "$pusher" 2>/dev/null || true
wait "$pusher" 2>/dev/null || true
same "$(archive list "$url" --json | jq length)" 0 "snapshots after a killed push"

push web@one --take-over --json >"$tmp/pushed"
same "$(jq -r .base "$tmp/pushed")" null "a first push has no base"
must web "write -P 5 3M 2M" "discard 40M 4M" flush
f snapshot create web@two >/dev/null
push web@two --json >"$tmp/pushed"
same "$(jq -r .base "$tmp/pushed")" web@one "the second is a difference"
nbdcopy "$(uri web@two)" "$tmp/two"
refuses 1 'passphrase|key' "$firn" archive check "$url" --passphrase-file "$tmp/wrong"
refuses 1 'passphrase|key|encrypted' f restore "$url" web@two stolen

say "--- the host and its pool are gone"
kill_firn
rm -rf "$pool"
pool=$tmp/elsewhere
"$firn" pool create "$pool" --size 1G >/dev/null
f restore "$url" web@two web --passphrase-file "$tmp/secret" >/dev/null
f restore "$url" web@one old --passphrase-file "$tmp/secret" >/dev/null
start_firn
nbdcopy "$(uri web)" "$tmp/restored"
cmp "$tmp/two" "$tmp/restored" || fail "web@two came back different"
nbdcopy "$(uri old)" "$tmp/restored"
cmp "$tmp/image" "$tmp/restored" || fail "web@one came back different"

archive delete "$url" web@one --grace 0 >/dev/null
archive clean "$url" --grace 0 --min-age 0 --garbage >/dev/null
archive check "$url" >/dev/null || fail "the counters are wrong"
"$firn" archive scrub "$url" >/dev/null || fail "scrub, without the key"
f restore "$url" web@two again --passphrase-file "$tmp/secret" >/dev/null
nbdcopy "$(uri again)" "$tmp/restored"
cmp "$tmp/two" "$tmp/restored" || fail "web@two is different after the cleaning"
stop_firn
pool_is_clean
