"""Small models for tests, with random weights that make their choices differ.

``small_model`` is for sampling; ``native_model`` is one that the kernels know, with ``drawn`` and
``by_the_loop`` to compare them with the plain loop; ``saved_model`` comes with the least of a
checkpoint that holds it.
"""

import itertools

import torch
from helpers import TEXT
from torch import nn

from charrnn import Charset, GRUEncode, generation
from charrnn.api import LanguageModel
from charrnn.checkpoint.format import FORMAT, PREFIX
from charrnn.generation.decoding import Decoding
from charrnn.gru.generate import supports_model

ALPHABET = "\nabcdefghijklmnopqrstuvwxyzäöüß"
SMALL_ALPHABET = "\nabcd"


def small_model(alphabet=SMALL_ALPHABET, unit="char", kind=GRUEncode, sharpness=4.0, **settings):
    """A float64 model with a peaked distribution that varies along a text."""
    torch.manual_seed(0)
    charset = Charset.from_text(alphabet, unit)
    model = kind(len(charset), 5, 2, **settings).double()
    for p in model.parameters():
        torch.nn.init.uniform_(p, -1, 1)
    with torch.no_grad():
        model.decoder.weight.mul_(sharpness)
    return LanguageModel(model.eval(), charset)


@torch.no_grad()
def following(model, text):
    """The probabilities of each index after a text, read one character at a time."""
    state = model.model.initial_state(1)
    for index in model.charset.encode(text).tolist():
        logits, state = model.model(torch.tensor([[index]]), state)
    return logits[0, 0].softmax(0)


def greedy(model, prompt, length):
    """The prompt, and after it the likeliest character each time."""
    text = prompt
    for _ in range(length):
        index = following(model, text).argmax().item()
        text += ("\ufffd" + model.charset.alphabet)[index]
    return text


def native_model(
    kind=GRUEncode, hidden=13, layers=2, dtype=torch.float64, backend="native", **variant
):
    """A model with large weights that the kernels support, and its charset."""
    torch.manual_seed(hidden)
    charset = Charset(ALPHABET)
    model = kind(len(charset), hidden, layers, backend=backend, **variant).to(dtype)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -2 * hidden**-0.5, 2 * hidden**-0.5)
    nn.init.normal_(model.decoder.weight)
    return model.eval(), charset


def drawn(model, charset, samples, decoding, prompt="ab", length=300):
    """Indices (length, samples) that generation draws after a prompt, with seed 5."""
    if not isinstance(decoding, Decoding):
        decoding = Decoding(*decoding)
    steps = generation.generate_indices(
        model, charset, charset.encode(prompt), samples, 5, decoding
    )
    return torch.stack(list(itertools.islice(steps, length)))


def by_the_loop(model, *settings):
    """What :func:`drawn` returns of the plain loop in Python."""
    model.gru.backend = "reference"
    try:
        assert not supports_model(model)
        return drawn(model, *settings)
    finally:
        model.gru.backend = "native"


def random_model(
    characters=TEXT, unit="char", kind=GRUEncode, layers=2, hidden=5, documents=False, **settings
):
    """A model with large random weights and biases, so that its units vary along a text."""
    torch.manual_seed(0)
    charset = Charset(characters, unit, documents=documents)
    model = kind(len(charset), hidden, layers, **settings).eval()
    for p in model.parameters():
        torch.nn.init.uniform_(p, -1.5, 1.5)
    model.boundary = charset.boundary
    return LanguageModel(model, charset)


def saved_model(kind, alphabet, hidden_size=5, num_layers=3, unit="char", seed=0, **settings):
    """A model, its charset, and the least of a checkpoint that holds both."""
    torch.manual_seed(seed)
    charset = Charset(alphabet, unit)
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, **settings}
    model = kind(len(charset), **sizes)
    for p in model.parameters():
        torch.nn.init.normal_(p)
    target = {"_target_": f"charrnn.models.{kind.__name__}"}
    ours = {
        "format": FORMAT, "version": "0", "settings": {"model": target | sizes},
        "charset": charset.state_dict(),
    }  # fmt: skip
    state = {PREFIX + k: v for k, v in model.state_dict().items()}
    return model.eval(), charset, {"charrnn": ours, "state_dict": state}
