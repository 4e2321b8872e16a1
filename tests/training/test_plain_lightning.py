"""CharTask under a Trainer of the user's own: checkpoints of Lightning's, read and resumed."""

import pytest
import torch
from helpers import TEXT, fit, load
from pytorch_lightning.callbacks import ModelCheckpoint

import charrnn
from charrnn import Charset, GRUEncode, GRUResize
from charrnn.data.datamodule import CharDataModule

DATA = {"batch_size": 3, "seq_len": 7}


def train(folder, steps, kind=GRUEncode, **settings):
    torch.manual_seed(0)
    model = kind(len(Charset.from_text(TEXT)), 5, 3, reset="before", gate="hard_sigmoid")
    keep = ModelCheckpoint(dirpath=folder / "theirs", every_n_train_steps=4, save_top_k=-1)
    return fit(
        folder, TEXT, model, data=DATA, max_steps=steps, limit_train_batches=6,
        limit_val_batches=2, callbacks=[keep], enable_checkpointing=True, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize])
def test_a_checkpoint_is_loaded(tmp_path, kind):
    task, _ = train(tmp_path, 4, kind)
    model = charrnn.load(next((tmp_path / "theirs").glob("*.ckpt")))
    assert type(model.model) is kind and "window 4" in repr(model)
    for name, value in task.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[name], value)
    assert len(model.generate("def ", length=10, seed=1)) == 14


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_checkpoint_is_resumed_exactly(tmp_path):
    whole, _ = train(tmp_path, 8)
    (file,) = (tmp_path / "theirs").glob("*step=4.ckpt")
    assert load(file)["charrnn"]["position"]["window"] == 4
    resumed, trainer = train(tmp_path, 4)
    data = CharDataModule(str(tmp_path / "text.txt"), cache_dir=str(tmp_path), **DATA)
    trainer.fit_loop.epoch_loop.max_steps = 8
    trainer.fit(resumed, data, ckpt_path=file, weights_only=True)
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)
    assert torch.equal(whole.carry, resumed.carry)
