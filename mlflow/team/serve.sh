#!/usr/bin/env bash
# MLflow server for a team: PostgreSQL for runs, a folder or an S3-compatible store for artifacts, a login for everyone,
# and a list of allowed host names. Nothing has a default password; the script names what is missing.
# PostgreSQL's password comes from PGPASSWORD or ~/.pgpass; never put it into a URL.
set -euo pipefail
: "${TEAM_DATABASE:?a database for runs, such as postgresql+psycopg://mlflow@db.example/mlflow}"
: "${TEAM_LOGINS_DATABASE:?another database for logins, such as postgresql+psycopg://mlflow@db.example/logins}"
: "${TEAM_ARTIFACTS:?where to store artifacts: a folder, or s3://bucket/place}"
: "${TEAM_HOSTS:?allowed host names with ports, such as mlflow.example:5000,localhost:5000}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?a password of at least twelve characters for the user admin}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?a random secret, such as the output of: openssl rand -hex 32}"
if [ "${#MLFLOW_AUTH_ADMIN_PASSWORD}" -lt 12 ]; then
  echo "MLFLOW_AUTH_ADMIN_PASSWORD: twelve characters or more" >&2
  exit 2
fi
export MLFLOW_BACKEND_STORE_URI=$TEAM_DATABASE MLFLOW_AUTH_ADMIN_USERNAME=admin
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
cat > "$MLFLOW_AUTH_CONFIG_PATH" << EOF
[mlflow]
default_permission = READ
database_uri = $TEAM_LOGINS_DATABASE
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
EOF
exec mlflow server --app-name basic-auth --host "${TEAM_BIND:-127.0.0.1}" --port "${TEAM_PORT:-5000}" \
  --artifacts-destination "$TEAM_ARTIFACTS" --allowed-hosts "$TEAM_HOSTS"
