#!/bin/sh
# MLflow with basic authentication, whose settings it reads from a file alone: written here from the environment.
# A password that was right is not checked again for a minute, since each check costs half a second of a core by design; so
# a changed password or a deleted account may be accepted that much longer.
set -eu
umask 077
settings=$(mktemp)
cat > "$settings" <<END
[mlflow]
default_permission = READ
database_uri = $MLFLOW_AUTH_DATABASE_URI
admin_username = $MLFLOW_TRACKING_USERNAME
admin_password = $MLFLOW_TRACKING_PASSWORD
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
END
export MLFLOW_AUTH_CONFIG_PATH="$settings"
exec mlflow server --app-name basic-auth --host "${MLFLOW_HOST:-0.0.0.0}" --port "${MLFLOW_PORT:-5000}" \
  --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-localhost:*,127.0.0.1:*}" \
  ${MLFLOW_ALLOWED_ORIGINS:+--cors-allowed-origins "$MLFLOW_ALLOWED_ORIGINS"} \
  --backend-store-uri "$MLFLOW_BACKEND_STORE_URI" --artifacts-destination "$MLFLOW_ARTIFACTS" --workers "${MLFLOW_WORKERS:-2}"
