"""Folders of runs and sweeps: records, locks, provenance, reports."""

import importlib

_HOME = {
    "DONE": "records",
    "Job": "sweep",
    "RunLock": "lock",
    "find_checkpoints": "members",
    "finished_curves": "sweep",
    "is_running": "lock",
    "job_folder_name": "names",
    "read_job": "sweep",
    "read_jobs": "sweep",
    "read_record": "records",
    "report_sweep": "report",
    "resume_study": "search",
    "run_lock": "lock",
    "varied_overrides": "names",
    "write_provenance": "provenance",
    "write_record": "records",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a name when it is first used: the records of a sweep are read without torch."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
