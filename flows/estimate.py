"""What the stages of a rebuild were expected to cost: device-hours by the plan of its recipe and its curated texts."""

import json
import sys
from pathlib import Path

from prefect import get_run_logger

from flows.process_group import output

PLAN = (sys.executable, "-m", "stages.plan", "--json")


def planned_hours(folder: Path) -> dict[str, float]:
    """Device-hours by stage on devices like this machine's; none where no plan can be made, with a word in the log."""
    try:
        plan = json.loads(output(PLAN, folder))
    except RuntimeError as error:
        get_run_logger().warning("no estimate of the cost: %s", str(error).splitlines()[-1])
        return {}
    return {one["stage"]: one["device_hours"] for one in plan["phases"]}
