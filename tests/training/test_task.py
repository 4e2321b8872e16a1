"""CharTask: objective, L2, clipping, gradient statistics, validation loss and rounds.

Plain gradient descent with learning rate 1 trains on one window, so that the change of a weight is
the negative gradient that the optimizer got.
"""

import math

import pytest
import torch
from helpers import TEXT, fit

from charrnn import Charset, GRUEncode, GRUResize, InputError, RowStream
from charrnn.data.windows import BURN_IN
from charrnn.evaluation.static import score
from charrnn.training.gradients import gradient_stats
from charrnn.training.task import CharTask

T, B, H = 7, 3, 5
SHORT = TEXT[:500]
CHARSET = Charset.from_text(SHORT)
LAMBDA = 0.3


def make_model(kind=GRUEncode):
    torch.manual_seed(0)
    model = kind(len(CHARSET), H, 3, backend="torch").double()
    for p in model.parameters():
        if p.dim() == 1:  # or L2 of biases would not show
            torch.nn.init.uniform_(p, -0.1, 0.1)
    return model


def expected_gradients(model, reduction, l2):
    """Gradients by autograd, from the definition of the objective."""
    tokens = torch.from_numpy(CHARSET.encode(SHORT))
    window = next(iter(RowStream(tokens[: int(0.9 * len(tokens))], B, T)))
    logits, _ = model(window.inputs, model.initial_state(B))
    summed = -logits.log_softmax(-1).gather(2, window.targets[..., None]).sum()
    names = [name for name, _ in model.named_parameters() if "weight" in name]
    squares = sum(model.get_parameter(name).square().sum() for name in names)
    summed = summed + l2 / 2 * squares
    objective = summed if reduction == "sum" else summed / (T * B)
    return torch.autograd.grad(objective, list(model.parameters()))


def one_window(tmp_path, model, **task_and_trainer):
    task = {k: task_and_trainer.pop(k) for k in ("reduction", "l2") if k in task_and_trainer}
    before = [p.detach().clone() for p in model.parameters()]
    task, _ = fit(
        tmp_path, SHORT, model, task=task, data={"batch_size": B, "seq_len": T},
        max_steps=1, log_every_n_steps=1, limit_val_batches=0, **task_and_trainer,
    )  # fmt: skip
    return task, [b - p.detach() for b, p in zip(before, model.parameters())]


def middle(elements):
    """A bound between two elements that clips half of them."""
    ordered = elements.sort().values
    return ordered[len(ordered) // 2 :][:2].mean().item()


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize], ids=lambda k: k.__name__)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("l2", [0.0, LAMBDA])
@pytest.mark.parametrize("clip", [None, "value", "norm"])
def test_gradients(tmp_path, kind, reduction, l2, clip):
    model = make_model(kind)
    gradients = expected_gradients(model, reduction, l2)
    elements = torch.cat([g.flatten() for g in gradients])
    norm, bound = elements.norm().item(), middle(elements.abs())
    settings = {}
    if clip == "value":
        settings = {"gradient_clip_val": bound, "gradient_clip_algorithm": "value"}
        expected = [g.clamp(-bound, bound) for g in gradients]
    elif clip == "norm":
        settings = {"gradient_clip_val": norm / 3, "gradient_clip_algorithm": "norm"}
        expected = [g / 3 for g in gradients]
    else:
        expected = gradients
    task, found = one_window(tmp_path, model, reduction=reduction, l2=l2, **settings)
    for a, b in zip(found, expected, strict=True):
        # clip_grad_norm_ adds 1e-6 to the norm
        torch.testing.assert_close(a, b, rtol=1e-5 if clip == "norm" else 1e-9, atol=1e-12)
    # L2 is added before clipping, and the norm is that before clipping.
    assert task.gradient_stats["grad_norm"].item() == pytest.approx(norm)
    if clip == "value":
        share = (elements.abs() > bound).double().mean().item()
        assert task.gradient_stats["clipped"].item() == pytest.approx(share)
        assert 0.4 < share < 0.6
    else:
        assert "clipped" not in task.gradient_stats


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_mean_nats_for_both_reductions(tmp_path, reduction):
    model = make_model()
    task, _ = one_window(tmp_path, model, reduction=reduction, l2=LAMBDA)
    assert task.window_loss.item() == pytest.approx(math.log(len(CHARSET)), rel=0.1)


@pytest.mark.parametrize(
    ("bound", "expected"), [(None, {}), (1.0, {"clipped": 0.5}), (2.0, {"clipped": 0.25})]
)
def test_gradient_stats(bound, expected):
    gradients = [
        torch.tensor([[0.5, -2.0]]),
        torch.tensor([3.0, 1.0]),
    ]  # an element at the bound counts as not clipped
    found = {k: v.item() for k, v in gradient_stats(gradients, bound).items()}
    assert found == pytest.approx({"grad_norm": math.sqrt(0.25 + 4 + 9 + 1)} | expected)


def test_validation_loss_is_the_mean_over_all_targets(tmp_path):
    model = make_model()
    begin = int(0.9 * len(SHORT))
    indices = torch.from_numpy(CHARSET.encode(SHORT).astype("int64"))
    nats = score(model, indices[max(0, begin - 1 - BURN_IN) :])[-(len(SHORT) - begin) :]
    task, _ = fit(
        tmp_path, SHORT, model, data={"batch_size": B, "seq_len": T}, max_steps=1
    )  # fmt: skip
    assert task.validations[0] == [0, pytest.approx(nats.mean())]


def test_no_validation_if_all_text_trains(tmp_path):
    data = {"batch_size": B, "seq_len": T, "train_fraction": 1.0}
    task, trainer = fit(tmp_path, SHORT, make_model(), data=data, max_steps=3)
    assert task.validations == [] and trainer.global_step == 3


@pytest.mark.parametrize("text", ["ab", "aa", "abc"])
def test_tiny_texts_train(tmp_path, text):
    model = GRUEncode(len(Charset.from_text(text)), H, 1, backend="torch")
    task, _ = fit(tmp_path, text, model, data={"batch_size": B, "seq_len": T}, max_epochs=20)
    # The validation text may hold a character that never trains, so its loss can rise.
    assert task.window_loss < 0.5 < math.log(2) and len(task.validations) == 21


@pytest.mark.parametrize(
    "bad", [{"reduction": "max"}, {"l2": -0.1}, {"l2": math.inf}, {"rollover": "on"}], ids=str
)
def test_arguments_out_of_range(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}="):
        CharTask(make_model(), torch.optim.SGD, torch.optim.lr_scheduler.ConstantLR, **bad)


def test_unfinished_round_does_not_count(tmp_path):
    task, trainer = fit(
        tmp_path, SHORT, make_model(), data={"batch_size": B, "seq_len": T},
        limit_train_batches=4, max_epochs=5, max_steps=10,
    )  # fmt: skip
    assert (trainer.global_step, task.rounds, task.round_windows) == (10, 2, 2)
