"""Settings in, a run out: Hydra, overrides, schema, the commands."""
