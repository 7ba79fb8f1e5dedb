#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# TLS with certificates and with pre-shared keys, by libnbd and by QEMU; nobody without, where it is required.
source "$(dirname -- "$0")/lib.sh"
requires nbdinfo nbdcopy certtool psktool python3

pki=$tmp/pki
mkdir -p "$pki" "$tmp/empty"
certify() { # certify NAME TEMPLATE-LINES...: NAME-key.pem, NAME-cert.pem, signed by the CA.
  local name=$1
  shift
  printf '%s\n' "$@" >"$tmp/$name.template"
  certtool --generate-privkey --key-type ecdsa --outfile "$pki/$name-key.pem" 2>/dev/null
  local how=(--generate-certificate --load-ca-certificate "$pki/ca-cert.pem" --load-ca-privkey "$pki/ca-key.pem")
  [[ $name != ca ]] || how=(--generate-self-signed)
  certtool "${how[@]}" --load-privkey "$pki/$name-key.pem" --template "$tmp/$name.template" --outfile "$pki/$name-cert.pem" 2>/dev/null
}
certify ca 'cn = "Test CA"' ca cert_signing_key 'expiration_days = 30'
certify server 'cn = "localhost"' 'dns_name = "localhost"' 'ip_address = "127.0.0.1"' tls_www_server signing_key 'expiration_days = 30'
certify client 'cn = "a client"' tls_www_client signing_key 'expiration_days = 30'
psktool -u alice -p "$tmp/keys" >/dev/null 2>&1
psktool -u alice -p "$tmp/wrong-keys" >/dev/null 2>&1

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
some_bytes 8388608 8 >"$tmp/in.raw"
rejected() { ! timeout 30 nbdinfo --size "$1" >"$tmp/rejected" 2>&1 || fail "let in: $1"; }

port=$(free_port)
start_firn --nbd "tcp:127.0.0.1:$port" --tls-certificates "$pki" --tls required
make_disk d 8M
secure="nbds://localhost:$port/d?tls-certificates=$pki"
same "$(nbdinfo --size "$secure")" 8388608 "size through TLS"
nbdcopy --flush "$tmp/in.raw" "$secure"
nbdcopy "$secure" "$tmp/out.raw"
cmp "$tmp/in.raw" "$tmp/out.raw"
rejected "nbd://127.0.0.1:$port/d"
mkdir "$tmp/nocert"
cp "$pki/ca-cert.pem" "$tmp/nocert/"
rejected "nbds://localhost:$port/d?tls-certificates=$tmp/nocert"
stop_firn

port=$(free_port)
start_firn --nbd "tcp:127.0.0.1:$port" --tls-psk "$tmp/keys" --tls required
secure="nbds://alice@localhost:$port/d?tls-psk-file=$tmp/keys"
nbdcopy "$secure" "$tmp/out2.raw"
cmp "$tmp/in.raw" "$tmp/out2.raw"
rejected "nbds://alice@localhost:$port/d?tls-psk-file=$tmp/wrong-keys"
rejected "nbds://mallory@localhost:$port/d?tls-psk-file=$tmp/keys"
rejected "nbd://127.0.0.1:$port/d"
same "$(nbdinfo --size "$secure")" 8388608 "size, after all of these"
stop_firn
pool_is_clean
