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
  # Ray's own: its processes are not to notice others, and it would kill the small process that watches the large ones.
  export RAY_worker_niceness=0 RAY_memory_monitor_refresh_ms=0
  export RAY_ADDRESS="${FIRST_MACHINE:-${HOSTNAME%-*}-0.rebuild}:${RAY_PORT:-6379}"
  if [ "$JOB_COMPLETION_INDEX" -eq 0 ]; then
    # Ends with the command, whose process this one becomes and whose standard output is the command's own.
    setpriv --pdeathsig TERM ray start --head --block --port "${RAY_PORT:-6379}" --include-dashboard false \
      ${FIRST_MACHINE:+--node-ip-address "$FIRST_MACHINE"} >&2 &
  fi
  trap 'exit 143' TERM
  until said=$(ray health-check --address "$RAY_ADDRESS" 2>&1); do
    [ "$JOB_COMPLETION_INDEX" -eq 0 ] || echo "waiting for the first machine, $RAY_ADDRESS: $(echo "$said" | tail -n 1)"
    sleep 1
  done
  [ "$JOB_COMPLETION_INDEX" -eq 0 ] || exec ray start --block --address "$RAY_ADDRESS"
fi
exec "$@"
