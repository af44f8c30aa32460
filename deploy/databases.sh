#!/bin/sh
# Runs once, when PostgreSQL's volume is new: a user and a database each for Prefect, MLflow and MLflow's accounts.
set -eu
for name in prefect mlflow mlflow_auth; do
  case $name in
    prefect) password=$PREFECT_DATABASE_PASSWORD ;;
    *) password=$MLFLOW_DATABASE_PASSWORD ;;
  esac
  # psql quotes both: a password may hold anything.
  psql --set ON_ERROR_STOP=1 --set name="$name" --set password="$password" --username "$POSTGRES_USER" <<'END'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
END
done
