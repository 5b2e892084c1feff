#!/usr/bin/env bash
# Makes a certificate authority, and a certificate for a server: for trials, and for networks
# without an authority of their own.
#
#   deploy/certificates.sh FOLDER [NAME...]
#
# FOLDER gets ca.pem for clients, and server.pem and server.key for the server. The names are host
# names or addresses of the server, besides those of loopback. Run it again, with the same names, to
# renew the server's certificate, every 90 days at the latest; the authority stays, and so does the
# owner of the key if root runs it. Its key is in FOLDER.authority,
# which no server needs.
set -euo pipefail

(($# > 0)) || {
    echo "usage: $0 FOLDER [NAME...]" >&2
    exit 2
}
readonly folder=$1 authority=$1.authority
shift
readonly key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
umask 077
mkdir -p "$folder" "$authority"

if [[ ! -e $authority/ca.key ]]; then
    openssl req -x509 "${key[@]}" -days 3650 -subj "/CN=Leadline's authority" \
        -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$authority/ca.key" -out "$authority/ca.pem" 2>/dev/null
fi

names=DNS:localhost,IP:127.0.0.1,IP:::1
for name in "$@"; do
    if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then names+=,IP:$name; else names+=,DNS:$name; fi
done
openssl req "${key[@]}" -subj "/CN=leadline" -keyout "$folder/server.key.new" 2>/dev/null |
    openssl x509 -req -days 90 -CA "$authority/ca.pem" -CAkey "$authority/ca.key" \
        -extfile <(printf '%s\n' "subjectAltName=$names" extendedKeyUsage=serverAuth \
            keyUsage=critical,digitalSignature basicConstraints=critical,CA:FALSE) \
        -out "$folder/server.pem.new" 2>/dev/null

cp "$authority/ca.pem" "$folder/ca.pem"
chmod 755 "$folder"
chmod 644 "$folder/ca.pem" "$folder/server.pem.new"
if [[ -e $folder/server.key && $EUID == 0 ]]; then
    chown --reference="$folder/server.key" "$folder/server.key.new"
fi
# A running server waits until both belong together.
mv "$folder/server.key.new" "$folder/server.key"
mv "$folder/server.pem.new" "$folder/server.pem"
