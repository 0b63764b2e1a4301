#!/bin/sh
# The tests of what is durable, on a PostgreSQL that is not ours: Debian's, over TCP, with a password.
# Takes `pg_virtualenv` of Debian's package postgresql-common, which makes a cluster and removes it again.
set -eu
exec pg_virtualenv -o max_connections=300 -- sh -c '
  export TOOLPLANE_TEST_DATABASE_URL="postgres://$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT/postgres"
  unset PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE
  exec vitest run --project unit server/event-log server/orchestration server/test-runs test/orchestration.test.ts "$@"
' sh "$@"
