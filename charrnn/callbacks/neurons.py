"""Neurons: activations and gates along a text during training, in TensorBoard.

T characters, L layers, H hidden size.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning import Callback

from charrnn.analysis import index_label
from charrnn.callbacks.loggers import experiment_of, to_loggers
from charrnn.data.charset import Charset
from charrnn.errors import check
from charrnn.generation.generate import evaluation_mode
from charrnn.models import contract

LOW, MIDDLE, HIGH = np.array([[0x6A, 0xA5, 0xEE], [0xFF, 0xFF, 0xFF], [0xF0, 0x87, 0x3C]])
"""Colors of -1, 0 and 1."""
WIDE, TALL, MARGIN, FOOT = 8, 6, 30, 11
"""Pixels of a cell (a unit at a character), and of the left and bottom margins with labels."""
WIDTH = 40
"""Characters of a band. TensorBoard shows pictures 350 pixels wide, and in TIME SERIES 215 high:
two bands of 16 units."""
WITHIN = "within/"
"""Prefix of the tags. TensorBoard sorts them: ``train`` and ``val`` come before it."""


class Neurons(Callback):
    """Reads a text from a zero state at the start, every ``every_n_steps`` windows and at the end.

    Logs for each layer a heat map of some units (IMAGES), histograms of activations, reset gates
    and update gates (HISTOGRAMS), and the fractions of gate values below 0.1 and above 0.9
    (SCALARS), called left and right saturated by Karpathy et al. 2015, arXiv:1506.02078, section
    4.2. The model needs a method ``activations``; gates are logged where it has ``gates``. Training
    is not affected, and no random number is drawn.

    Args:
        every_n_steps: windows between two readings.
        text: the text to read; None reads the beginning of the validation text.
        length: characters of the text that are read.
        units: units of each layer in its heat map: their number, or a list of them.
    """

    required_methods = ("activations",)
    """What a model must define besides the contract."""

    def __init__(
        self,
        every_n_steps: int = 500,
        text: str | None = None,
        length: int = 80,
        units: int | list[int] = 16,
    ):
        check("every_n_steps", every_n_steps, every_n_steps >= 1, "a whole number, at least 1")
        check("text", text, text != "", "a text, or null")
        check("length", length, 1 <= length <= 1000, "a whole number from 1 to 1000")
        some = units >= 1 if isinstance(units, int) else units and min(units) >= 0
        check("units", units, some, "a whole number, at least 1, or a list of units")
        self.every_n_steps, self.text, self.length, self.units = every_n_steps, text, length, units
        self.last: int | None = None

    def state_dict(self) -> dict:
        return {"last": self.last}

    def load_state_dict(self, state: dict) -> None:
        self.last = state["last"]

    def on_train_start(self, trainer, task) -> None:
        charset = Charset(**task.description["charset"])
        if self.text is None:
            data = trainer.datamodule
            begin = data.validation.begin - 1 if data.validation else 0
            tokens = (data.validation or data.stream).tokens[begin : begin + self.length].long()
        else:
            tokens = torch.from_numpy(charset.encode(self.text).astype(np.int64))[: self.length]
        self.inputs = tokens[:, None].to(task.device)
        self.labels = [index_label(charset, index) for index in tokens.tolist()]
        hidden = self._activations(task.model).size(3)
        self.chosen = self.units
        if isinstance(self.units, int):
            self.chosen = list(range(min(self.units, hidden)))
        expected = f"units of a layer of {hidden}, 0 to {hidden - 1}"
        check("callbacks.neurons.units", self.units, max(self.chosen) < hidden, expected)
        if trainer.ckpt_path is None:
            self._log(trainer, task)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, task)

    def on_train_end(self, trainer, task) -> None:
        if self.last != trainer.global_step:
            self._log(trainer, task)

    @torch.inference_mode()
    def _activations(self, model) -> torch.Tensor:
        with evaluation_mode(model):
            return contract.activations(model, self.inputs, contract.initial_state(model, 1))

    @torch.inference_mode()
    def _log(self, trainer, task) -> None:
        self.last = windows = trainer.global_step
        if not trainer.is_global_zero:
            return
        parts = {"activations": self._activations(task.model)}
        if contract.method(task.model, "gates"):
            state = contract.initial_state(task.model, 1)
            gates = contract.gates(task.model, self.inputs, state, parts["activations"])
            parts |= zip(("reset_gate", "update_gate"), gates)
        parts = {name: part[:, :, 0].mT.float().cpu().numpy() for name, part in parts.items()}
        shares = {}
        for name in parts.keys() - {"activations"}:
            for layer, gate in enumerate(parts[name]):
                shares[f"{WITHIN}saturation/{name}_below_0.1/layer_{layer}"] = float(
                    (gate < 0.1).mean()
                )
                shares[f"{WITHIN}saturation/{name}_above_0.9/layer_{layer}"] = float(
                    (gate > 0.9).mean()
                )
        to_loggers(trainer, lambda logger: logger.log_metrics(shares, step=windows))

        def add(logger) -> None:
            if not hasattr(experiment_of(logger), "add_histogram"):
                return
            for layer, values in enumerate(parts["activations"]):
                picture = heat_map(values[self.chosen], self.chosen, self.labels)
                tag = f"{WITHIN}neurons/layer_{layer}"
                logger.experiment.add_image(tag, picture, windows, dataformats="HWC")
            for name, part in parts.items():
                bound = max(1, np.ceil(np.abs(part).max()))  # 1 for a GRU
                bins = np.linspace(-bound if name == "activations" else 0, bound, 41)
                for layer, values in enumerate(part):
                    tag = f"{WITHIN}{name}/layer_{layer}"
                    logger.experiment.add_histogram(tag, values, windows, bins=bins)

        to_loggers(trainer, add)


def heat_map(activations: np.ndarray, units: list[int], labels: list[str]) -> np.ndarray:
    """Draw activations (U, T) of U units over their text as pixels (height, width, 3) uint8.

    The text is divided into bands of ``WIDTH`` characters, one below the other. Where some are
    outside [-1, 1], all are scaled.
    """
    weight = np.abs(activations)[..., None]
    weight = weight / max(1, weight.max())
    ends = np.where(activations[..., None] < 0, LOW, HIGH)
    colors = np.rint(MIDDLE + weight * (ends - MIDDLE)).astype(np.uint8)
    cells = colors.repeat(TALL, 0).repeat(WIDE, 1)
    starts = range(0, len(labels), WIDTH)
    high, width = len(units) * TALL, min(WIDTH, len(labels)) * WIDE
    picture = Image.new("RGB", (MARGIN + width, len(starts) * (high + FOOT)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    for band, start in enumerate(starts):
        top, end = band * (high + FOOT), start + WIDTH
        picture.paste(Image.fromarray(cells[:, start * WIDE : end * WIDE]), (MARGIN, top))
        # Every second label, or they would overlap, and not the first, which a band would cut.
        for row in range(min(1, len(units) - 1), len(units), 2):
            point = (MARGIN - 4, top + TALL * (row + 0.5))
            draw.text(point, str(units[row]), fill=(88, 100, 115), font=font, anchor="rm")
        for t, name in enumerate(labels[start:end]):
            glyph = {"\n": "|", "\t": "»"}.get(name, name if len(name) == 1 else "·")
            point = (MARGIN + WIDE * (t + 0.5), top + high + FOOT - 3)
            draw.text(point, glyph, fill=(22, 32, 43), font=font, anchor="ms")
    return np.array(picture)
