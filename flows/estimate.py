"""The planned cost of a rebuild: device-hours of each stage, from the plan of its recipe and its curated texts."""

import json
import sys
from pathlib import Path

from prefect import get_run_logger

from flows.process_group import output

# Count on a share of this machine's peak instead of timing passes, which takes a minute; steps of the default recipe
# reach 0.6 of the peak on CPUs.
PLAN = (sys.executable, "-m", "flows.cli", "plan", "--json", "--utilisation", "0.5")


def planned_hours(folder: Path) -> dict[str, float]:
    """Plan the device-hours of each stage on devices like this machine's; a plan that fails is logged and left out."""
    try:
        plan = json.loads(output(PLAN, folder))
    except RuntimeError as error:
        get_run_logger().warning("no estimate of the cost: %s", str(error).splitlines()[-1])
        return {}
    return {phase["stage"]: phase["device_hours"] for phase in plan["phases"]}
