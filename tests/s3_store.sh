#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Object stores that speak S3: a real one (radosgw) passes the doctor and the conformance suite and names its refusals;
# small ones that lie are refused, and those that are only in trouble are survived.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
source "$source_dir/tests/ceph.bash"
requires python3 curl jq openssl
ceph_requires

server_pid=
# start_server OPTIONS...: a server of ours; its address in $server.
start_server() {
  [[ -z $server_pid ]] || { kill -9 "$server_pid"; wait "$server_pid" 2>/dev/null || true; }
  rm -f "$tmp/port"
  python3 "$source_dir/tests/s3_server.py" "$tmp/port" "$@" 2>"$tmp/server.err" &
  server_pid=$!
  at_exit kill -9 "$server_pid"
  eventually "the small server listens" test -s "$tmp/port"
  server=http://127.0.0.1:$(cat "$tmp/port")
}
doctor() { "$firn" archive doctor "$@"; }
# fails_check CHECK PATTERN URL: the doctor says that this check fails, and is unfit because of it.
fails_check() {
  refuses 1 "not fit for an archive: .*$2" "$firn" archive doctor --json "$3"
  jq -e --arg check "$1" '.[] | select(.check == $check) | .result == "fail"' "$tmp/refusal.out" >/dev/null || fail "$1 did not fail: $(cat "$tmp/refusal.out")"
}

export HOME=$tmp/home
mkdir -p "$HOME/.aws"
unset AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_CA_BUNDLE
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE
# Whoever asks a proxy that the environment names has failed.
export http_proxy=http://127.0.0.1:1 https_proxy=http://127.0.0.1:1 all_proxy=http://127.0.0.1:1 no_proxy=

say "--- a real server"
http_proxy='' all_proxy='' FIRN_CEPH_CLASSES='GLACIER_IR STANDARD_IA' ceph_start "$tmp/ceph"
s3_curl() { # USER:SECRET METHOD PATH [CURL OPTIONS]
  local empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  curl -fsS --noproxy '*' -X "$2" --aws-sigv4 aws:amz:us-east-1:s3 -u "$1" -H "x-amz-content-sha256: $empty" "${@:4}" "$ceph_endpoint$3"
}
s3_curl "$ceph_key:$ceph_secret" PUT /firn
ceph_admin "$tmp/ceph" user create --uid=stranger --display-name=stranger --access-key=STRANGER --secret=stranger >/dev/null
url="s3://firn/test?endpoint=$ceph_endpoint"

refuses 1 'no credentials for S3' "$firn" archive doctor "$url"
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = wrong\n[good]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
  "$ceph_key" "$ceph_key" "$ceph_secret" >"$HOME/.aws/credentials"
printf '[profile good]\nendpoint_url = %s\nregion = us-east-1\n[profile sso]\nsso_start_url = https://x\n' "$ceph_endpoint" >"$HOME/.aws/config"
refuses 1 'secret key is wrong.*SignatureDoesNotMatch' "$firn" archive doctor "$url"
refuses 1 'profile sso.*sso_start_url' "$firn" archive doctor "$url&profile=sso"
AWS_PROFILE=good doctor "s3://firn/test" >/dev/null || fail "a profile with an endpoint"
doctor "s3://firn/test?profile=good" --json >"$tmp/checks"
same "$(jq -r '[.[] | select(.result == "fail")] | length' "$tmp/checks")" 0 "checks that failed"
same "$(jq -r '.[] | select(.check == "large object") | .result' "$tmp/checks")" pass "an object in parts"

# The bucket in the name of the host.
doctor "s3://firn/test?profile=good&endpoint=${ceph_endpoint/127.0.0.1/localhost}&style=host" >/dev/null || fail "style=host"

export AWS_ACCESS_KEY_ID=$ceph_key AWS_SECRET_ACCESS_KEY=$ceph_secret
refuses 1 'no such bucket' "$firn" archive doctor "s3://nobucket/test?endpoint=$ceph_endpoint"
AWS_ACCESS_KEY_ID=NOBODY refuses 1 'does not know this access key' "$firn" archive doctor "$url"
AWS_ACCESS_KEY_ID=STRANGER AWS_SECRET_ACCESS_KEY=stranger refuses 1 'no permission' "$firn" archive doctor "$url"
! grep -qF -- "$ceph_secret" "$tmp/refusal" || fail "a secret in a sentence"

say "--- the conformance suite on it"
FIRN_TEST_STORE=$url "${FIRN_BUILD:-$source_dir/build/release}/io_test" --gtest_filter='Named/*' >"$tmp/suite" 2>&1 ||
  fail "$(grep -E 'Failure|FAILED' -A8 "$tmp/suite")"
grep -q 'PASSED.*12 tests' "$tmp/suite" || fail "the suite did not run: $(tail -n 3 "$tmp/suite")"
same "$(s3_curl "$ceph_key:$ceph_secret" GET '/firn?list-type=2' | grep -c '<Key>')" 0 "objects left behind"

say "--- a lifecycle rule that eats, versioning"
printf '<LifecycleConfiguration><Rule><ID>eater</ID><Filter><Prefix>te</Prefix></Filter>%s</Rule></LifecycleConfiguration>' \
  '<Status>Enabled</Status><Expiration><Days>30</Days></Expiration>' >"$tmp/rule"
set_bucket() { # BUCKET QUESTION FILE
  curl -fsS --noproxy '*' -X PUT --aws-sigv4 aws:amz:us-east-1:s3 -u "$ceph_key:$ceph_secret" \
    -H "x-amz-content-sha256: $(sha256sum "$3" | cut -d' ' -f1)" -H "Content-MD5: $(openssl md5 -binary "$3" | base64)" \
    -H 'Content-Type: text/xml' --data-binary "@$3" "$ceph_endpoint/$1?$2="
}
set_bucket firn lifecycle "$tmp/rule"
fails_check lifecycle "rule 'eater' deletes" "$url"
doctor "s3://firn/other?endpoint=$ceph_endpoint" >/dev/null || fail "a rule for another prefix"
printf '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>' >"$tmp/versioning"
s3_curl "$ceph_key:$ceph_secret" PUT /versioned
set_bucket versioned versioning "$tmp/versioning"
# This radosgw has no conditions in such a bucket: what else it says counts here.
doctor "s3://versioned/x?endpoint=$ceph_endpoint" --json >"$tmp/checks" 2>"$tmp/out" ||
  grep -q 'ignores conditions' "$tmp/out" || fail "$(cat "$tmp/out")"
same "$(jq -r '.[] | select(.check == "versioning") | .result' "$tmp/checks")" warn "versioning"

say "--- the server dies, and comes back"
ceph_end_one "$tmp/ceph" client.rgw.a
refuses 1 'no good answer within 1 s.*connect' "$firn" archive doctor "$url&patience=1"
doctor "s3://firn/other?endpoint=$ceph_endpoint&patience=60" >"$tmp/late" 2>&1 &
late=$!
http_proxy='' all_proxy='' ceph_start_gateway "$tmp/ceph"
wait "$late" || fail "not survived: $(cat "$tmp/late")"

say "--- servers that lie"
start_server
doctor "s3://firn/test?endpoint=$server" >/dev/null || fail "the small server, honest"
start_server --ignore-conditions
fails_check 'create once' 'ignores conditions' "s3://firn/test?endpoint=$server"
start_server --ignore-ranges
fails_check 'ranges' 'more than was asked for' "s3://firn/test?endpoint=$server"
start_server --flip-list
fails_check 'list' 'out of order' "s3://firn/test?endpoint=$server"
start_server --skew 3600
fails_check 'clock' '3[56][0-9][0-9] s ahead' "s3://firn/test?endpoint=$server"

say "--- servers that refuse"
refused() { # STATUS:CODE PATTERN
  start_server --refuse "$1"
  refuses 1 "$2" "$firn" archive doctor "s3://firn/test?endpoint=$server"
}
AWS_SESSION_TOKEN=session-token-of-old refused 400:ExpiredToken 'session token has expired'
! grep -q session-token-of-old "$tmp/refusal" || fail "a token in a sentence"
refused 403:RequestTimeTooSkewed 'clocks .* differ'
refused 403:AccessDenied 'no permission'
refused 301:PermanentRedirect 'elsewhere'
refused 307:TemporaryRedirect 'elsewhere'
refused 501:NotImplemented 'cannot do it'

say "--- a part is refused: the upload is aborted"
start_server --refuse-part 2 --log "$tmp/requests"
fails_check 'large object' 'no permission' "s3://firn/test?endpoint=$server"
grep -q '^DELETE .*uploadId=1 ' "$tmp/requests" || fail "the upload was left: $(grep uploadId "$tmp/requests")"
rm "$tmp/requests"

say "--- servers in trouble"
for trouble in 12 20; do
  start_server --trouble "$trouble"
  doctor "s3://firn/test?endpoint=$server&patience=120" >"$tmp/out" 2>&1 || fail "trouble 1 in $trouble: $(cat "$tmp/out")"
done
start_server --unavailable 5
doctor "s3://firn/test?endpoint=$server" >/dev/null || fail "503 for a while"
start_server --unavailable 1000000
refuses 1 'no good answer within 1 s.*503 SlowDown' "$firn" archive doctor "s3://firn/test?endpoint=$server&patience=1"

say "--- TLS: bodies have a digest of their own, strangers are not believed"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$tmp/key.pem" -out "$tmp/cert.pem" -days 1 -subj /CN=localhost \
  -addext subjectAltName=IP:127.0.0.1 2>/dev/null
start_server --tls "$tmp/cert.pem" "$tmp/key.pem" --log "$tmp/requests"
tls_url="s3://firn/test?endpoint=${server/http:/https:}"
refuses 1 'not to be trusted' "$firn" archive doctor "$tls_url"
AWS_SESSION_TOKEN=tok doctor "$tls_url&ca=$tmp/cert.pem" --json >"$tmp/checks" || fail "over TLS: $(cat "$tmp/checks")"
same "$(jq -r '.[] | select(.check == "transport") | .result' "$tmp/checks")" pass "transport"
grep -q '^PUT .*content-md5.*x-amz-security-token.* UNSIGNED-PAYLOAD' "$tmp/requests" || fail "$(head -n 3 "$tmp/requests")"
say "good"
