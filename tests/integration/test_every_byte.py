"""Each byte of what is kept, flipped, and each truncation: detected, or without effect."""

import io

import pytest
import torch
from helpers import same
from small_models import saved_model, small_model

from charrnn import Charset, GRUEncode, InputError, checkpoint
from charrnn.data import cache


class Checkpoint:
    """What a run resumes from."""

    suffix = ".ckpt"

    def __init__(self, file):
        _, _, content = saved_model(GRUEncode, "abc", hidden_size=2, num_layers=1)
        content["charrnn"] |= {"windows": 3, "carry": torch.rand(1, 2, 2)}
        checkpoint.save(content, file)

    def read(self, file):
        try:
            return checkpoint.read(file)
        except InputError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)


class Safetensors(Checkpoint):
    """An exported model."""

    suffix = ".safetensors"

    def __init__(self, file):
        from charrnn.export import export

        super().__init__(file.with_suffix(".ckpt"))
        export(file.with_suffix(".ckpt"), "safetensors", file)


class Session:
    """The state of a model along a text."""

    suffix = ".session"

    def __init__(self, file):
        self.model = small_model("abc", backend="reference")
        self.model.session(seed=5).feed("abcab").save(file)

    def read(self, file):
        session = self.model.session(seed=1)
        try:
            session.load(file)
        except InputError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)
            assert session.context is None and session.seed == 1
            return None
        context = session.context
        recent = torch.from_numpy(context.recent)
        return {"seed": session.seed, "context": [*context[:2], recent, context.count]}


class Entry:
    """A text in the cache, whose two files are flipped one after the other."""

    suffix = ""

    def __init__(self, folder):
        charset = Charset("abc")
        indices = charset.encode("abcabcaabbcc")
        cache.write_entry(folder, "text", charset, [indices])

    def read(self, folder):
        entry = cache.read_entry(folder)
        return entry and [entry.tokens.clone(), entry.charset.state_dict(), entry.unknown]


class Archive:
    """A compressed file."""

    suffix = ".crnn"

    def __init__(self, file):
        from charrnn.evaluation import Compressor

        Checkpoint(file.with_suffix(".ckpt"))
        self.compressor = Compressor(file.with_suffix(".ckpt"))
        source = io.BytesIO(b"abcabcaabb\xe9c")
        with open(file, "w+b") as archive:
            self.compressor.compress(source, archive, io.BytesIO())

    def read(self, file):
        made = io.BytesIO()
        with open(file, "rb") as archive:
            try:
                self.compressor.decompress(archive, made, str(file))
            except InputError as error:
                assert str(file) in str(error) and "\n" not in str(error)
                return None
        return made.getvalue()


def damaged(data, step):
    """A file with each byte changed in turn, in each bit and in all, and cut at each length."""
    bits = [1 << bit for bit in range(8)]
    for at in range(0, len(data), step):
        for mask in (*(bits if step == 1 else bits[at % 8 :][:1]), 0xFF):
            yield f"byte {at} ^ {mask}", data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
        yield f"cut at {at}", data[:at]


def check(kind, tmp_path, step):
    path = tmp_path / f"file{kind.suffix}"
    made = kind(path)
    whole = made.read(path)
    assert whole is not None
    tried = 0
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        data = file.read_bytes()
        for what, changed in damaged(data, step):
            file.write_bytes(changed)
            found = made.read(path)
            assert found is None or same(found, whole), f"{file.name}, {what}"
            tried += 1
        file.write_bytes(data)
    return tried


KINDS = pytest.mark.parametrize("kind", [Checkpoint, Safetensors, Session, Entry, Archive])


@KINDS
def test_some_bytes(kind, tmp_path):
    assert check(kind, tmp_path, 61 if kind is not Entry else 7) > 10


@pytest.mark.slow
@KINDS
def test_every_byte(kind, tmp_path):
    print(f"{kind.__name__}: {check(kind, tmp_path, 1)} changes, each found or without effect")
