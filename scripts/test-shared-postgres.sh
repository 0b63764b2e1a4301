#!/bin/sh
# The tests of what is durable, on a PostgreSQL that is not ours: Debian's, over TCP, with a password.
# Takes `pg_virtualenv` of Debian's package postgresql-common, which makes a cluster and removes it again.
set -eu
exec pg_virtualenv -o max_connections=300 -- sh -c '
  export TOOLPLANE_TEST_DATABASE_URL="postgres://$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT/postgres"
  unset PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE
  # One of the tests needs the socket of a server of its own.
  exec vitest run --project unit --exclude server/event-log/lost-answers.test.ts \
    server/event-log server/orchestration server/test-runs test/orchestration.test.ts "$@"
' sh "$@"
