"""Folders of runs and sweeps: records, locks, provenance, reports."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DONE": "records",
        "Job": "sweep",
        "RunLock": "lock",
        "Trial": "search",
        "find_checkpoints": "members",
        "free_folder_name": "names",
        "is_running": "lock",
        "job_folder_name": "names",
        "job_identity": "names",
        "read_job": "sweep",
        "read_jobs": "sweep",
        "read_record": "records",
        "report_sweep": "report",
        "run_lock": "lock",
        "varied_overrides": "names",
        "write_provenance": "provenance",
        "write_record": "records",
        "write_report": "run_report",
    },
)
