"""Sessions: feeding, continuing, forking, saving and loading."""

import itertools

import pytest
import torch
from small_models import native_model as make_native
from small_models import small_model as make

from charrnn import Charset, GRUEncode, InputError
from charrnn.api import LanguageModel
from charrnn.data.charset import BOUNDARY

SETTINGS = [{}, {"temperature": 0}, {"top_p": 0.8, "no_repeat": 3}, {"beam": 3}, {"allow": "abc"}]


@pytest.fixture(scope="module", params=["loop", "native"])
def model(request):
    """Both in float64, so that rounding does not change texts."""
    return make(backend="reference") if request.param == "loop" else LanguageModel(*make_native())


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_session_generates_the_text_of_generate(model, settings):
    session = model.session(seed=3).feed("ab")
    whole = model.generate("ab", 90, seed=3, **settings)
    assert "ab" + session.generate(90, **settings) == whole
    if "beam" not in settings:  # the best text depends on the length
        parts = model.session(seed=3).feed("a").feed("").feed("b")
        lengths = (0, 1, 30, 59)
        assert "ab" + "".join(parts.generate(n, **settings) for n in lengths) == whole


def test_feeding_parts_is_feeding_the_whole(model):
    text = "abcab\ncc"
    for cut in range(len(text) + 1):
        parts = model.session(seed=1).feed(text[:cut]).feed(text[cut:])
        assert parts.generate(40) == model.session(seed=1).feed(text).generate(40)
    assert model.session(seed=1).generate(40) == model.generate("", 40, seed=1)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_fork_is_a_fresh_session_fed_the_same_text(model, settings):
    session = model.session(seed=5).feed("abc")
    text = "abc" + session.generate(70)
    fork, fresh = session.fork(), model.session(seed=5).feed(text)
    other = session.fork(seed=6)
    expected = fresh.generate(60, **settings)
    assert fork.generate(60, **settings) == expected
    if not settings:
        assert other.generate(60, **settings) != expected
    # Generating in the fork did not change the session.
    assert session.generate(60, **settings) == expected
    torch.testing.assert_close(session.context.state, fork.context.state)
    torch.testing.assert_close(session.context.state, fresh.context.state)


def test_a_closed_stream_has_read_what_it_yielded(model):
    session = model.session(seed=2).feed("ab")
    stream = session.stream(500)
    taken = "".join(itertools.islice(stream, 41))
    stream.close()
    assert session.context.count == 43
    following = session.generate(30)
    assert following == model.session(seed=2).feed("ab" + taken).generate(30)
    assert "ab" + taken + following == model.generate("ab", 71, seed=2)


def test_a_stream_closed_before_its_first_character_has_read_nothing(model):
    session = model.session(seed=2)
    session.stream(500).close()
    assert session.generate(0) == "" and session.context is None

    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("charrnn.generation.session.generate_chunks", interrupted)
        session.generate(9)
    assert session.context is None
    assert session.feed("ab").generate(30) == model.session(seed=2).feed("ab").generate(30)


def test_a_stop_string_has_been_read(model):
    session, fresh = model.session(seed=7).feed("a"), model.session(seed=7)
    text = "a" + session.generate(400, stop="b")
    assert text.endswith("b") and len(text) < 400
    assert session.generate(30) == fresh.feed(text).generate(30)


def test_incomplete_bytes_have_been_read():
    model = make("€é😀\n", "byte")
    whole = model.session(seed=2).feed("€")
    parts, lengths = model.session(seed=2).feed("€"), [1] * 30 + [7, 3]
    for length in lengths:
        parts.generate(length, temperature=1.5)
    whole.generate(40, temperature=1.5)
    assert (parts.context.recent == whole.context.recent).all()
    assert parts.generate(50) == whole.generate(50)


def test_after_a_document_the_next_begins():
    charset = Charset("ab", documents=True)
    torch.manual_seed(0)
    model = GRUEncode(len(charset), 8, 1).eval()
    model.boundary = charset.boundary
    session = LanguageModel(model, charset).session(seed=1)
    texts = [session.generate(200) for _ in range(9)]
    assert len(set(texts)) > 3 and not any(BOUNDARY in text for text in texts)
    assert session.context.count == sum(map(len, texts)) + 9


def test_a_session_is_saved_and_loaded(model, tmp_path):
    session = model.session(seed=2**64 - 1).feed("abc" * 700)
    session.generate(20)
    session.save(tmp_path / "deep" / "session")
    assert torch.load(tmp_path / "deep" / "session", weights_only=True)["seed"] == 2**64 - 1
    model.session(seed=1).feed("abc" * 300).save(tmp_path / "long")
    assert (tmp_path / "long").stat().st_size < 15_000  # only what continuing needs
    expected = session.fork().generate(50, no_repeat=5), session.fork(seed=1).generate(50)
    again = model.session(tmp_path / "deep" / "session")
    assert again.fork().generate(50, no_repeat=5) == expected[0]
    assert model.session(tmp_path / "deep" / "session", seed=1).generate(50) == expected[1]
    model.session(seed=4).save(tmp_path / "new")
    assert model.session(tmp_path / "new").generate(20) == model.generate("", 20, seed=4)


def test_bad_session_files(tmp_path):
    model, other = make(), make(sharpness=3.9)
    file = tmp_path / "session"
    model.session(seed=1).feed("ab").save(file)
    session = other.session(seed=3).feed("abc")
    before = session.fork()
    kept = torch.load(file, weights_only=True)
    broken = {"state": [1]}, {"state": torch.zeros(9)}, {"seed": "x"}, {"count": -1}, {"recent": 1}
    torch.save({"charrnn": {}}, tmp_path / "other")
    files = {"torn": file.read_bytes()[:-50], "text": b"a text"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for number, change in enumerate(broken):
        torch.save(kept | change, tmp_path / f"broken_{number}")
        with pytest.raises(InputError, match="a damaged session"):
            model.session(tmp_path / f"broken_{number}")
    for name, message in [
        ("session", "a session of another model"), ("nothing", "no session there"),
        ("torn", "no session, or a damaged one"), ("text", "no session, or a damaged one"),
        ("other", "no session of this version"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            session.load(tmp_path / name)
    assert session.generate(20) == before.generate(20)  # unchanged by the failures


def test_bad_input_leaves_a_session_unchanged(model):
    session = model.session(seed=1).feed("ab")
    before = session.context
    for bad in (
        lambda: session.feed("a☃"), lambda: session.stream(-1), lambda: session.stream(5, top_k=0),
        lambda: session.stream(5, allow="☃"), lambda: session.fork(seed=-1),
    ):  # fmt: skip
        with pytest.raises(InputError):
            bad()  # by the call itself, not at the first character
    assert session.context is before
    assert session.feed("☃", unknown="skip").context is before
    assert session.feed("☃c", unknown="replace").context.count == 4


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(training):
    model = make(dropout=0.5)
    model.model.train(training)
    session = model.session(seed=1).feed("ab")
    assert model.model.training == training
    text = session.generate(30)
    assert model.model.training == training
    assert text == make(dropout=0.5).session(seed=1).feed("ab").generate(30)


def test_streams_read_in_turns_leave_each_other_the_mode():
    """Of a model in training mode with dropout, as the callback of samples has it."""
    model = make(backend="reference", dropout=0.5)
    expected = [model.generate("ab", 60, seed=seed) for seed in (1, 2)]
    model.model.train()
    frozen = model.model.gru
    frozen.training = False
    streams = [model.stream("ab", 60, seed=seed) for seed in (1, 2)]
    streams += [model.session(seed=seed).feed("ab").stream(60) for seed in (1, 2)]
    texts = [""] * 4
    for number in itertools.islice(itertools.cycle(range(4)), 4 * 62):
        texts[number] += next(streams[number], "")
        assert model.model.training and not frozen.training
    assert [text.removeprefix("ab") for text in texts] == [t[2:] for t in expected] * 2


def test_a_long_stream_is_read_in_parts(model, monkeypatch):
    from charrnn.generation import session as module

    whole = model.session(seed=4).feed("ab")
    text = whole.generate(300)
    monkeypatch.setattr(module, "REREAD", 50)
    parts = model.session(seed=4).feed("ab")
    assert parts.generate(300) == text and parts.context.count == whole.context.count
    torch.testing.assert_close(parts.context.state, whole.context.state)
    assert parts.generate(40) == whole.generate(40)
