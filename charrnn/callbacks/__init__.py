"""What happens around the windows: numbers written, text sampled, checkpoints saved."""

from charrnn.callbacks.checkpoint import Checkpoint
from charrnn.callbacks.metrics import Metrics
from charrnn.callbacks.neurons import Neurons
from charrnn.callbacks.progress import Progress
from charrnn.callbacks.samples import Samples
from charrnn.callbacks.stop_worse import StopWorse

__all__ = ["Checkpoint", "Metrics", "Neurons", "Progress", "Samples", "StopWorse"]
