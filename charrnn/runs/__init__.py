"""Folders of runs and sweeps: records, locks, provenance, reports."""

from charrnn import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
