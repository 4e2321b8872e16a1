"""Settings of the train command: what is wrong gives one line, exit code 2 and no folder."""

import pytest
from helpers import assert_one_line, listing

# An argument, and words that its one line must have.
BAD_TRAIN = {
    "lr=0.1": ["lr: no such key", "did you mean optimizer.lr?"],
    "data.max_byte=5": ["data.max_byte", "did you mean data.max_bytes?"],
    "--lr=0.1": ["--lr=0.1: no such option", "lr=0.1"],
    "run": ["run: settings are KEY=VALUE", "resume=run"],
    "good.txt": ["good.txt: settings are KEY=VALUE", "data.path=good.txt"],
    "--experimental-rerun=x.pickle": ["pickle", "--config-path RUN/.hydra"],
    "data.path=~x.txt": ["data.path=~x.txt", "no such file"],
    "hydra.run.dir=": ["hydra.run.dir", "name a folder"],
    "init_from=~x": ["~x: no checkpoint there"],
    "hydra.launcher=foo": ["hydra.launcher=foo", "hydra/launcher=NAME"],
    "hydra=5": ["hydra=5", "names no option"],
    "~trainer": ["trainer", "cannot be left out"],
    "--config-name=foo": ["--config-name foo", "conf/train.yaml"],
    "data.path=nowhere.txt": ["data.path=nowhere.txt", "no such file"],
    "data.path=*.nothing": ["data.path=*.nothing", "no such file"],
    "data.path=empty.txt": ["empty.txt", "0 characters", "two"],
    "data.path=one.txt": ["one.txt", "1 characters", "two"],
    "data.path=folder": ["data.path=folder", "holds no file"],
    "data.path=pipe": ["pipe", "no regular file"],
    "data.path=loop": ["data.path=loop"],
    "data.path=[]": ["data.path"],
    "data.path=123": ["data.path=123", "no such file"],
    "data=text": ["data.path", "missing"],
    "data=nothing": ["nothing", "tiny_shakespeare"],
    "data.unit=word": ["data.unit=word", "char or byte"],
    "data.train_fraction=1.5": ["data.train_fraction=1.5", "at most 1"],
    "data.train_fraction=0": ["data.train_fraction=0", "above 0"],
    "data.batch_size=0": ["data.batch_size=0", "at least 1"],
    "data.seq_len=-3": ["data.seq_len=-3", "at least 1"],
    "data.batch_size=two": ["data.batch_size=two", "a whole number"],
    "model.num_layers=0": ["model.num_layers=0", "from 1 to 1000"],
    "model.hidden_size=0": ["model.hidden_size=0", "at least 1"],
    "model.hidden_size=1.5": ["model.hidden_size=1.5", "a whole number"],
    "model.hidden_size=null": ["model.hidden_size=null", "a whole number"],
    "model.dropout=1": ["model.dropout=1", "below 1"],
    "model.reset=never": ["model.reset=never", "after or before"],
    "model.gate=soft": ["model.gate=soft", "sigmoid or hard_sigmoid"],
    "model.backend=cuda": ["model.backend=cuda", "reference"],
    "model._target_=charrnn.models.Other": ["model._target_=charrnn.models.Other"],
    "model.parameters=50": ["model.parameters=50", "at least"],
    "model.parameters=1000000000000000": ["not enough memory"],
    "task.max_characters=0": ["task.max_characters=0", "at least 1"],
    "task.max_characters=9999999999": ["task.max_characters", "trainer.max_epochs=-1"],
    "trainer.max_time=soon": ["trainer.max_time=soon", "DD:HH:MM:SS"],
    "launcher=other": ["other", "slurm"],
    "model.hiden_size=3": ["model.hiden_size", "did you mean model.hidden_size?"],
    "model=gru_other": ["gru_other", "gru_encode"],
    "model=null": ["model=null", "names no option"],
    "modle=gru_encode": ["modle", "did you mean model?"],
    "+model.extra=3": ["model.extra", "nothing reads this key"],
    "++data.seqlen=3": ["data.seqlen", "did you mean data.seq_len?"],
    "+nonsense=1": ["nonsense", "nothing reads this key"],
    "optimizer.lr=-1": ["optimizer.lr=-1"],
    "optimizer.lr=nan": ["optimizer.lr=nan"],
    f"optimizer.lr=1{'0' * 400}": ["optimizer.lr=1000", "as 1e30"],
    "optimizer.lr=fast": ["optimizer.lr=fast", "a number"],
    "optimizer.alpha=2": ["optimizer.alpha=2", "below 1"],
    "optimizer.learning_rate=1": ["optimizer.learning_rate"],
    "scheduler.factor=2": ["scheduler.factor"],
    "task.l2=-1": ["task.l2=-1", "at least 0"],
    "task.reduction=max": ["task.reduction=max", "mean or sum"],
    "task.rollover=flip": ["task.rollover=flip", "roll"],
    "task=3": ["task=3", "group"],
    "trainer.max_epoch=3": ["trainer.max_epoch", "did you mean trainer.max_epochs?"],
    "trainer.max_epochs=0": ["trainer.max_epochs=0", "at least 1"],
    "trainer.max_epochs=many": ["trainer.max_epochs=many", "a whole number"],
    "trainer.limit_train_batches=0": ["trainer.limit_train_batches=0", "above 0"],
    "+trainer.limit_test_batches=1": ["trainer.limit_test_batches=1", "1.0, or 0"],
    "trainer.val_check_interval=9999": ["trainer.val_check_interval=9999", "1000"],
    "trainer.val_check_interval=x": ["trainer.val_check_interval=x", "DD:HH:MM:SS"],
    "trainer.log_every_n_steps=0": ["trainer.log_every_n_steps=0", "at least 1"],
    "trainer.gradient_clip_val=-1": ["trainer.gradient_clip_val=-1", "at least 0"],
    "trainer.num_nodes=2": ["trainer.num_nodes=2", "must be 1, unless torchrun"],
    "trainer.accelerator=abacus": ["trainer.accelerator=abacus"],
    "callbacks.samples.every_n_steps=0": ["callbacks.samples.every_n_steps=0", "at least 1"],
    "callbacks.samples.temperature=-1": ["callbacks.samples.temperature=-1", "at least 0"],
    "callbacks.checkpoint.keep=0": ["callbacks.checkpoint.keep=0", "at least 1"],
    "callbacks.samples=3": ["callbacks.samples=3", "null"],
    "callbacks=null": ["callbacks=null", "group"],
    "=3": ["=3", "KEY=VALUE"],
    "data.batch_size=100000000000": ["memory"],
    f"data.seq_len={2**63}": ["data.seq_len", "below 2**63"],
    "data.charset=": ["data.charset= is a checkpoint or a folder"],
    "data=[1,2]": ["data=2: no such option; there are enwik8, stdlib"],
    "logger=???": ["logger=???: no such option"],
    "logger=true": ["logger=true: no such option; there are csv"],
    "logger.mine._target_=torch.nn.Identity": ["logger.mine._target_", "no logger of Lightning's"],
    "callbacks.mine._target_=torch.nn.Identity": ["callbacks.mine._target_", "no callback of"],
    "seed=-1": ["seed=-1", "at least 0"],
    "seed=x": ["seed=x", "a whole number"],
    "seed=18446744073709551616": ["seed=18446744073709551616", "below 2**64"],
    "experiment=other": ["other", "classic"],
    "hydra.run.dir=good.txt": ["hydra.run.dir", "good.txt"],
    "hydra.run.dir=run": ["run", "resume="],
    "init_from=nowhere": ["nowhere", "no checkpoint"],
    "init_from=torn.ckpt": ["torn.ckpt", "another checkpoint"],
    "init_from=run": ["embed.weight", "sizes of the model"],
    "resume=nowhere": ["nowhere", "no checkpoint"],
    "resume=torn.ckpt": ["torn.ckpt", "another checkpoint"],
    "resume=text.ckpt": ["text.ckpt", "no checkpoint"],
    "resume=other.ckpt": ["other.ckpt", "another program"],
    "resume=newer.ckpt": ["newer.ckpt", "format 99"],
}


@pytest.mark.parametrize("argument", BAD_TRAIN)
def test_bad_settings_of_train(invoke, folder, argument):
    before = listing(folder)
    text = () if argument.startswith(("data", "resume", "experiment")) else ("data.path=good.txt",)
    assert_one_line(invoke("train", argument, *text, cwd=folder), BAD_TRAIN[argument])
    assert listing(folder) == before


def test_a_key_of_another_option_of_its_group(invoke, folder):
    before = listing(folder)
    result = invoke("train", "data=tiny_shakespeare", "data.max_bytes=5", cwd=folder)
    assert_one_line(result, ["data.max_bytes", "data=stdlib", "data=tiny_shakespeare"])
    assert listing(folder) == before


EARLY = ("trainer.max_epochs=0", "model.gate=abc", "model.dropout=5", "task.rollover=abc",
         "optimizer.lr=-1", "callbacks.samples.temperature=-1", "data.batch_size=0")  # fmt: skip


@pytest.mark.parametrize("argument", EARLY)
def test_ranges_are_checked_before_the_text_is_opened(invoke, tmp_path, argument):
    result = invoke("train", "data.path=nowhere", argument, cwd=tmp_path)
    assert_one_line(result, [argument])


def test_a_setting_in_a_variable_of_lightning(invoke, folder, monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "3")
    before = listing(folder)
    result = invoke("train", "data.path=good.txt", cwd=folder)
    assert_one_line(result, ["PL_TRAINER_MAX_STEPS=3: ", "give trainer.max_steps=3"])
    assert listing(folder) == before
