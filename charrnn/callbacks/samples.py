"""Samples: short texts during training: printed, in samples.jsonl and in TensorBoard."""

from pathlib import Path

from pytorch_lightning import Callback
from tqdm import tqdm

from charrnn import generation
from charrnn.callbacks.loggers import add_text
from charrnn.callbacks.samples_file import NAME, append_sample
from charrnn.data.charset import Charset
from charrnn.data.text import unescape
from charrnn.data.waiting import say_if_slow
from charrnn.errors import check, escape_text
from charrnn.generation.decoding import Decoding


class Samples(Callback):
    """Prints a sample at the start, early on, every ``every_n_steps`` windows and at the end.

    Sampling uses its own state and random number generator, so that training is not affected.

    Args:
        every_n_steps: windows between two samples.
        early: windows before one more sample, in which a model has learned letters and not yet
            words; None leaves it out.
        length: characters of a sample, without the prompt.
        temperature: divides the logits.
        prompt: the beginning of each sample, with \\n for a newline and \\t for a tab. Characters
            outside the alphabet are left out.
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        early: int | None = 100,
        length: int = 200,
        temperature: float = 0.8,
        prompt: str = "",
    ):
        check("every_n_steps", every_n_steps, every_n_steps >= 1, "a whole number, at least 1")
        check("early", early, early is None or early >= 1, "a whole number, at least 1, or null")
        generation.check_length(length)
        Decoding(temperature=temperature)
        self.every_n_steps, self.early, self.length = every_n_steps, early, length
        self.temperature, self.prompt = temperature, unescape(prompt)
        self.last: int | None = None

    def state_dict(self) -> dict:
        return {"last": self.last}

    def load_state_dict(self, state: dict) -> None:
        self.last = state["last"]

    def on_train_start(self, trainer, task) -> None:
        self.charset = Charset(**task.description["charset"])
        if trainer.ckpt_path is None:
            self._sample(trainer, task)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        windows = trainer.global_step
        if windows % self.every_n_steps == 0 or windows == self.early:
            self._sample(trainer, task)

    def on_train_end(self, trainer, task) -> None:
        if self.last != trainer.global_step:
            self._sample(trainer, task)

    def _sample(self, trainer, task) -> None:
        self.last = windows = trainer.global_step
        if not trainer.is_global_zero:
            return
        steps = generation.generate_texts(
            task.model, self.charset, self.prompt, self.length,
            temperature=self.temperature, seed=windows, unknown="skip",
        )  # fmt: skip
        with say_if_slow(f"writing a sample of {self.length:,} characters"):
            text = escape_text("".join(added for (added,) in steps))
        tqdm.write(f"--- sample after {windows} windows ---\n{text}\n---")
        add_text(trainer, "sample", text, windows)
        if trainer.fast_dev_run:
            return
        try:
            append_sample(Path(trainer.default_root_dir), windows, text)
        except OSError as error:
            tqdm.write(f"{NAME}: cannot be written ({error.strerror}); it lacks this sample")
