"""Folders of runs and sweeps: records, locks, provenance, reports."""
