#!/bin/bash
# The steps of the official image that deploy/ counts on: at the first start a server on its socket alone makes the
# databases, with the scripts of /docker-entrypoint-initdb.d; then the server starts for all.
set -eu
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown -R postgres "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  exec gosu postgres "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") > /dev/null
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=''" start
  for script in /docker-entrypoint-initdb.d/*.sh; do
    PGPASSWORD="$POSTGRES_PASSWORD" bash "$script"
  done
  pg_ctl --wait --mode=fast stop
fi
exec "$@"
