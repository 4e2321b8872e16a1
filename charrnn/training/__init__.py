"""One window's step and its state: task, schedulers, precision, distributed."""
