#!/bin/sh
# One machine of a job of several: the first runs a command, the others lend it their GPUs through Ray until it ends.
# machine.sh --machines=NUMBER COMMAND...; RAY_AUTH_TOKEN is the password between them, which all machines have.
# Which one this is stands in JOB_COMPLETION_INDEX, as Kubernetes' indexed jobs say it; the first one is 0.
set -eu
machines="${1#--machines=}"
shift
if [ "$machines" -gt 1 ]; then
  : "${RAY_AUTH_TOKEN:?got $machines machines but no RAY_AUTH_TOKEN, the password between them}"
  export STILLHOUSE_MACHINES="$machines" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
  export RAY_worker_niceness=0  # Ray's own is for work that others shall not notice
  export RAY_ADDRESS="${FIRST_MACHINE:-${HOSTNAME%-*}-0.rebuild}:${RAY_PORT:-6379}"
  if [ "$JOB_COMPLETION_INDEX" -gt 0 ]; then
    until ray health-check --address "$RAY_ADDRESS" > /dev/null 2>&1; do sleep 1; done
    exec ray start --block --address "$RAY_ADDRESS"
  fi
  ray start --head --port "${RAY_PORT:-6379}" --include-dashboard false
fi
exec "$@"
