"""The small project of the flows' tests, and a process that read-only folders hold even where it is root's."""

import ctypes

from tests.flows.conftest import committed, project  # noqa: F401 (fixtures)

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h


def obey_permissions() -> None:
    """Before a program starts: root loses its right to write where permissions forbid it, as others have none."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)
