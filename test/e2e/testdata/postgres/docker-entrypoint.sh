#!/bin/bash
# What everyday compose files expect of the image called "postgres" on Docker Hub: user,
# database and password from variables or files, and scripts that are run once.
set -euo pipefail
bin=$(echo /usr/lib/postgresql/*/bin)
export PATH="$bin:$PATH" PGDATA="${PGDATA:-/var/lib/postgresql/data}"
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA" /run/postgresql
	chown postgres:postgres "$PGDATA" /run/postgresql
	chmod 700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	for v in POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB; do
		file=${v}_FILE
		[ -z "${!file:-}" ] || printf -v "$v" %s "$(cat "${!file}")"
	done
	: "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE}"
	user=${POSTGRES_USER:-postgres} db=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
	initdb --no-sync --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --auth-local=trust >/dev/null
	echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
	pg_ctl --silent -w -o "-c listen_addresses=''" start >/dev/null
	[ "$db" = postgres ] || createdb -U "$user" "$db"
	for f in /docker-entrypoint-initdb.d/*.sql; do
		[ ! -e "$f" ] || psql -q -v ON_ERROR_STOP=1 -U "$user" -d "$db" -f "$f"
	done
	pg_ctl --silent -w -m fast stop
fi
exec "$@"
