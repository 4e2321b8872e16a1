"""Lossless compression: any file comes back, at the size that evaluation predicts; bad archives."""

import functools
import hashlib
import io
import json
import math
import zlib

import numpy as np
import pytest
import torch
from helpers import TEXT, assert_one_line, listing
from small_models import saved_model

from charrnn import GRUEncode, GRUResize, InputError, checkpoint
from charrnn.data import waiting
from charrnn.evaluation import Compressor, baselines, coding, compression, range_coder, symbols
from charrnn.evaluation import archive as archives
from charrnn.evaluation.archive import MAGIC
from charrnn.gru import coder
from charrnn.models import LSTM

FILES = {
    "empty": b"",
    "one byte": b"\xff",
    "text": TEXT[:3000].encode(),
    "unknown": "Grüße, 世界! \U0001f600 שלום \x00\x07".encode() * 30,
    "lines of Windows": TEXT[:600].replace("\n", "\r\n").encode(),
    "mixed newlines": b"a\r\nb\nc\rd\r\r\n" * 9,
    "binary": bytes(np.random.default_rng(0).integers(0, 256, 700, np.uint8)),
    "no UTF-8": "ab\ud800".encode("utf-8", "surrogatepass") + b"\xe4\xb8" + b"ab\xf0\x9f\x98",
}


def saved(folder, kind=GRUEncode, alphabet=TEXT, unit="char", **settings):
    """A Compressor of a small model that was saved, which predicts something."""
    _, _, content = saved_model(kind, alphabet, 8, 2, unit, **settings)
    checkpoint.save(content, folder / "model.ckpt")
    return Compressor(folder / "model.ckpt")


def archive_of(compressor, data, **settings):
    archive, scratch = io.BytesIO(), io.BytesIO()
    result = compressor.compress(io.BytesIO(data), archive, scratch, **settings)
    assert scratch.getvalue() == data
    return archive, result


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize, LSTM], ids=lambda k: k.__name__)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("unit", ["char", "byte"])
def test_any_file_comes_back(tmp_path, monkeypatch, kind, dynamic, unit):
    monkeypatch.setattr(archives, "BLOCK", 200)  # so that there are several
    compressor = saved(tmp_path, kind, TEXT, unit)
    for name, data in FILES.items():
        if kind is LSTM and len(data) > 300:  # the plain coder, which is slow
            continue
        archive, result = archive_of(compressor, data, dynamic=dynamic, streams=3)
        file = io.BytesIO()
        compressor.decompress(archive, file)
        assert file.getvalue() == data, name
        assert result.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("kind", [GRUEncode, LSTM], ids=lambda k: k.__name__)
def test_the_size_is_what_evaluation_predicts(tmp_path, kind, dynamic):
    data = TEXT[: 6000 if kind is GRUEncode else 1500].encode()
    _, result = archive_of(saved(tmp_path, kind), data, dynamic=dynamic, streams=2)
    assert 8 * result.code == pytest.approx(result.nats / math.log(2), rel=1e-3)
    assert result.unknown == 0 and result.characters == len(data)


def test_static_nats_are_those_of_score(tmp_path):
    compressor = saved(tmp_path)
    _, result = archive_of(compressor, TEXT.encode(), streams=1)
    from charrnn.evaluation import score

    indices = torch.from_numpy(compressor.charset.encode("\n" + TEXT).astype(np.int64))
    assert result.nats == pytest.approx(score(compressor.model, indices).sum(), rel=1e-6)


def test_unknown_characters_cost_little_when_there_are_many(tmp_path):
    data = "你好世界と".encode() * 300
    _, result = archive_of(saved(tmp_path, alphabet="\nabc"), data, streams=1)
    assert result.unknown == result.characters == 1500
    assert result.code < len(data) / 3


def test_the_coder_in_python_writes_the_same_bytes(tmp_path):
    """Logits that are all equal have the same frequencies in both, whatever their e^x."""
    compressor = saved(tmp_path, alphabet="\nabc")
    for parameter in compressor.model.parameters():
        torch.nn.init.zeros_(parameter)
    codes = {}
    rng = np.random.default_rng(1)
    indices, points = rng.integers(0, 5, (500, 3)), rng.integers(0, 0xD800, (500, 3), np.uint32)
    counts = np.array([500, 0, 333])
    for backend, module in (("native", coder), ("reference", symbols)):
        compressor.model.gru.backend = backend
        coding = compressor.coding(None, 3)
        assert isinstance(coding.streams, module.Streams)
        codes[backend] = []
        for begin in (0, 100):  # two blocks
            part = slice(begin, begin + 400)
            coding.code(indices[part].copy(), points[part].copy(), (counts - begin).clip(0), False)
            codes[backend].append(coding.streams.finish())
    assert codes["native"] == codes["reference"]
    assert len(codes["native"][0][0]) > 300 and not codes["native"][0][1]


def test_the_range_coder_carries():
    rng = np.random.default_rng(2)
    for total in (2, 3, 2**20, 2**48):
        encoder, intervals = range_coder.Encoder(), []
        for _ in range(300):
            # Sizes near the total, at its end, make long runs of carries.
            start = int(rng.choice([0, total - 1, total // 2, max(0, total - 2)]))
            size = int(rng.integers(1, total - start + 1)) if rng.random() < 0.5 else 1
            intervals.append((start, size))
            encoder.encode(start, size, total)
        decoder = range_coder.Decoder(encoder.finish())
        for start, size in intervals:
            assert start <= decoder.value(total) < start + size
            decoder.remove(start, size)


@pytest.fixture
def folder(tmp_path):
    saved(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def test_commands(folder, invoke):
    done = invoke("compress", "model.ckpt", "text.txt", "-o", "a", cwd=folder)
    assert done.code == 0, done.err
    assert "GRUEncode" in done.out and "evaluation says" in done.out
    assert all(f"\n{name} " in done.out for name in ("charrnn", "xz -9", "zstd -19", "gzip -9"))
    size = len(zlib.compress(TEXT.encode(), 9, wbits=31))
    assert f"{size:,}" in done.out and f"{(folder / 'a').stat().st_size:,}" in done.out
    back = invoke("decompress", "model.ckpt", "a", "-o", "back.txt", cwd=folder)
    assert back.code == 0 and "back.txt, 6,000 bytes" in back.out
    assert (folder / "back.txt").read_text() == TEXT
    # What is refused, in one line, with nothing written.
    good = bytearray((folder / "a").read_bytes())
    for name, at in (("magic", 3), ("header", 40), ("codes", len(good) // 2), ("sum", -1)):
        bad = bytearray(good)
        bad[at] ^= 1
        (folder / name).write_bytes(bad)
    (folder / "torn").write_bytes(good[:-100])
    (folder / "other").mkdir()
    saved(folder / "other", seed=1)
    before = listing(folder)
    for words, command in (
        ("no archive", ("decompress", "model.ckpt", "magic", "-o", "x")),
        ("damaged", ("decompress", "model.ckpt", "header", "-o", "x")),
        ("damaged", ("decompress", "model.ckpt", "codes", "-o", "x")),
        ("damaged", ("decompress", "model.ckpt", "sum", "-o", "x")),
        ("damaged", ("decompress", "model.ckpt", "torn", "-o", "x")),
        ("another model", ("decompress", "other/model.ckpt", "a", "-o", "x")),
        ("no such file", ("decompress", "model.ckpt", "b", "-o", "x")),
        ("is the file to read", ("compress", "model.ckpt", "text.txt", "-o", "text.txt")),
        ("is the model", ("compress", "model.ckpt", "text.txt", "-o", "model.ckpt")),
        ("is the model", ("decompress", "model.ckpt", "a", "-o", "model.ckpt")),
        ("give --dynamic", ("compress", *"model.ckpt text.txt -o x --lr 0.1".split())),
        ("folder that exists", ("compress", "model.ckpt", "text.txt", "-o", "no/x")),
        ("no checkpoint there", ("compress", "no.ckpt", "text.txt", "-o", "x")),
        ("streams=0", ("compress", "model.ckpt", "text.txt", "-o", "x", "--streams", "0")),
        ("lower --lr", ("compress", *"model.ckpt text.txt -o x --dynamic --lr 1e30".split())),
        ("required: -o", ("compress", "model.ckpt", "text.txt")),
    ):  # fmt: skip
        assert_one_line(invoke(*command, cwd=folder), [words])
    assert listing(folder) == before


def test_no_byte_of_an_archive_can_be_changed(tmp_path):
    """Nor its header, also with the checksum of what it was changed to."""
    compressor = saved(tmp_path)
    good = archive_of(compressor, TEXT[:40].encode(), streams=2)[0].getvalue()

    def refused(data):
        with pytest.raises(InputError) as caught:
            compressor.decompress(io.BytesIO(data), io.BytesIO())
        assert "\n" not in str(caught.value)

    for at in range(len(good)):
        refused(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        refused(good[:at])
    start = len(MAGIC) + 4
    end = start + int.from_bytes(good[len(MAGIC) : start], "little")
    header = json.loads(zlib.decompress(good[start:end]))

    def forged(text):
        packed = zlib.compress(text.encode())
        body = MAGIC + len(packed).to_bytes(4, "little") + packed + good[end:-32]
        return body + hashlib.sha256(body).digest()

    compressor.decompress(io.BytesIO(forged(json.dumps(header))), io.BytesIO())
    for key in header.keys() - {"description", "backend"}:
        for wrong in (None, [], [[1]], {}, "x", -1, 1 << 70, {"lr": "0.1", "decay": 0}):
            if (key, wrong) != ("dynamic", None):
                refused(forged(json.dumps(header | {key: wrong})))
        refused(forged(json.dumps({k: v for k, v in header.items() if k != key})))
    for text in ("", "null", "[" * 100_000):
        refused(forged(text))
    # Lengths that nobody would wait for, or that no text in UTF-8 has.
    many, huge = archives.BLOCK * len(good), 1 << 50
    for slices in ([[many, many]] * 2, [[huge, huge], [0, 0]], [[huge, 9], [9, 9]], [[0, 9]]):
        size = sum(size for size, _ in slices)
        refused(forged(json.dumps(header | {"slices": slices, "size": size})))


def test_blocks_are_bounded_whatever_the_streams():
    for rows in range(1, archives.MAX_STREAMS + 1):
        size = archives.block_size(rows)
        assert 0 < size * rows <= archives.LARGEST_BLOCK and size % archives.SEQ_LEN == 0


def test_calls_of_the_kernels_are_short_and_do_not_matter(tmp_path, monkeypatch):
    """So that Ctrl-C is heard between them."""
    compressor, data = saved(tmp_path), TEXT[:1000].encode()
    whole = archive_of(compressor, data, streams=3)[0].getvalue()
    calls, run = [], coder.run
    monkeypatch.setattr(coding, "OPERATIONS", 20_000)
    monkeypatch.setattr(coder, "run", lambda *a: calls.append(len(a[2])) or run(*a))
    assert archive_of(compressor, data, streams=3)[0].getvalue() == whole
    assert len(calls) > 100 and max(calls) < 10


def test_a_machine_with_other_numbers_is_refused(folder, monkeypatch):
    compressor = Compressor(folder / "model.ckpt")
    archive, _ = archive_of(compressor, TEXT[:500].encode())
    with torch.no_grad():  # as another rounding would
        weight = compressor.model.gru.weight_hh_l1
        weight[3, 3] = torch.nextafter(weight[3, 3], torch.tensor(9.0))
    with pytest.raises(InputError, match=r"compressed with native float32.*computes other numbers"):
        compressor.decompress(archive, io.BytesIO())
    # Where even the self-test does not find it, the checksum of the file does.
    monkeypatch.setattr(compressor, "self_test", Compressor(folder / "model.ckpt").self_test)
    with pytest.raises(InputError, match="damaged"):
        compressor.decompress(archive, io.BytesIO())


def test_windows_lines_are_translated_where_the_alphabet_has_only_newlines(tmp_path):
    compressor = saved(tmp_path)
    data = TEXT.replace("\n", "\r\n").encode()
    _, result = archive_of(compressor, data, streams=2)
    assert (result.characters, result.unknown) == (len(TEXT), 0)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_every_part_says_how_far_it_is(tmp_path, monkeypatch, capsys, dynamic):
    """Not only every block, which takes minutes with a large model."""
    monkeypatch.setattr(coding, "OPERATIONS", 10**6)
    lines = functools.partial(waiting.progress_lines, seconds=-1.0)
    for module in (compression, baselines):
        monkeypatch.setattr(module, "progress_lines", lines)
    archive_of(saved(tmp_path), TEXT[:3000].encode(), dynamic=dynamic, streams=2)
    baselines.compressed_sizes(io.BytesIO(b"a" * 10))
    err = capsys.readouterr().err
    assert err.count("compressing: ") > 3 and err.count("decompressing: ") > 3
    assert "decompressing: 3,000 of 3,000 characters\n" in err
    assert ("evaluating: 3,000 of 3,000 characters\n" in err) != dynamic
    assert "comparing with xz -9, zstd -19, gzip -9: 10 of " in err
