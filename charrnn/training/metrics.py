"""Numbers for the readers of ``LightningModule.log``, without its cost at each window."""

import torch


def publish(trainer, numbers: dict[str, float]) -> None:
    """Set numbers in ``trainer.callback_metrics``, ``logged_metrics`` and ``progress_bar_metrics``.

    There EarlyStopping, ModelCheckpoint and progress bars look for what a module logs. ``log``
    itself costs a millisecond per number, and is not called: each rank calls this with the same
    numbers.
    """
    tensors = {name: torch.tensor(value) for name, value in numbers.items()}
    trainer.callback_metrics.update(tensors)
    trainer.logged_metrics.update(tensors)
    trainer.progress_bar_metrics.update(numbers)
