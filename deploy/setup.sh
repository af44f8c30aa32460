#!/bin/sh
# What a new server needs once, and may be told again: buckets, work pools, limits, deployments, the recovery of lost runs.
# Run from the checkout.
set -eu
if [ -n "${AWS_ENDPOINT_URL:-}" ]; then
  python -c "
import boto3
store = boto3.client('s3')
known = {bucket['Name'] for bucket in store.list_buckets()['Buckets']}
for name in {'mlflow'} - known:
    store.create_bucket(Bucket=name)
"
fi
prefect work-pool create machines --type process --overwrite
prefect work-pool create cluster --type kubernetes --base-job-template deploy/job-template.json --overwrite
prefect global-concurrency-limit inspect tag:gpu > /dev/null 2>&1 ||
  prefect concurrency-limit create gpu "${GPU_SLOTS:-1}"
prefect global-concurrency-limit inspect tag:cpu-heavy > /dev/null 2>&1 ||
  prefect concurrency-limit create cpu-heavy "${CPU_SLOTS:-1}"
prefect --no-prompt deploy --prefect-file deploy/prefect.yaml --all
prefect automation inspect "A lost run goes on" > /dev/null 2>&1 ||
  prefect automation create --from-file deploy/recovery.yaml
