"""The data of the neurons page: labels, properties, correlations and predictions along a text.

T characters, K predictions for each, L layers, H hidden size, V vocabulary size.
"""

import re

import numpy as np
import torch
from torch import nn

from charrnn.analysis.labels import index_label, text_labels
from charrnn.analysis.properties import correlations, text_properties
from charrnn.data.charset import Charset
from charrnn.gru.hooks import has_hooks
from charrnn.models import contract
from charrnn.models.char_model import CharModel

NUM_PREDICTIONS = 5
"""K."""


def page_data(
    model: nn.Module, charset: Charset, text: str | bytes, activations: np.ndarray
) -> dict:
    """Collect what the page shows besides the activations (L, H, T), as containers for JSON."""
    indices = charset.encode(text).astype(np.int64)
    characters = charset.preprocess(text)
    layers, hidden, length = activations.shape
    flat = activations.reshape(layers * hidden, length)
    in_bytes = charset.unit == "byte"
    # Bytes beyond ASCII are mostly parts of letters.
    known = text_properties(re.sub("[\x80-\xff]", "a", characters) if in_bytes else characters)
    strengths = correlations(flat, np.stack([*known.values()]))
    measures = [
        {"name": name, "mean": round(values.mean(), 4), "strengths": rounded(column, 3)}
        for (name, values), column in zip(known.items(), strengths.T)
    ]
    measures.append({"name": "standard deviation", "strengths": rounded(flat.std(1), 3)})
    likeliest, probabilities, actual = predict(model, indices, activations)
    used, numbers = np.unique(likeliest, return_inverse=True)
    return {
        "kind": type(model).__name__,
        "layers": layers,
        "hidden": hidden,
        "parameters": sum(p.numel() for p in model.parameters()),
        "unit": "bytes" if in_bytes else "characters",
        "characters": text_labels(charset, indices, characters),
        "unknown": np.flatnonzero(indices == 0).tolist(),
        "measures": measures,
        "labels": [index_label(charset, index) for index in used.tolist()],
        "likeliest": numbers.reshape(likeliest.shape).tolist(),
        "probabilities": [rounded(row, 4) for row in probabilities],
        "actual": [float(f"{p:.5g}") for p in actual.tolist()],  # however unlikely
    }


@torch.inference_mode()
def predict(
    model: nn.Module, indices: np.ndarray, activations: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict the next character at every position of a text.

    Args:
        indices: (T,) of the text.
        activations: (L, H, T) along it, of which one of our models needs no second pass.

    Returns:
        Indices (T, K) of the likeliest next characters in descending order, their probabilities
        (T, K), and the probability of the character that follows, (T - 1,).
    """
    device, state = contract.device_of(model), contract.initial_state(model, 1)
    likeliest, probabilities, actual = [], [], []
    inputs, targets = (torch.from_numpy(i).to(device) for i in (indices, np.append(indices[1:], 0)))
    is_ours = runs_as_char_model(model)
    outputs = torch.from_numpy(activations[-1].T).to(device) if is_ours else inputs
    # In chunks, because (T, V) may not fit in memory.
    for part, output, target in zip(*(x.split(1000) for x in (inputs, outputs, targets))):
        if is_ours:
            logits = model.decoder(output.to(state.dtype))
        else:
            logits, state = contract.run(model, part[:, None], state)
            logits = logits[:, 0]
        p = logits.softmax(1)
        top = p.topk(min(NUM_PREDICTIONS, p.size(1)))
        likeliest.append(top.indices.cpu())
        probabilities.append(top.values.cpu())
        actual.append(p.gather(1, target[:, None])[:, 0].cpu())
    arrays = (torch.cat(x).numpy() for x in (likeliest, probabilities, actual))
    likeliest, probabilities, actual = arrays
    return likeliest, probabilities, actual[:-1]


def runs_as_char_model(model: nn.Module) -> bool:
    """Whether a model's logits are its last linear layer of its last layer's activations."""
    methods = ("forward", "outputs", "activations")
    same = all(getattr(type(model), m, None) is getattr(CharModel, m) for m in methods)
    return same and not has_hooks(model)


def rounded(values: np.ndarray, digits: int) -> list[float]:
    """Round numbers for JSON."""
    return np.round(values.astype(np.float64), digits).tolist()
