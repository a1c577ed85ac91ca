"""A canary: what we replace in the engine and rely on inside it and torch is still there."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import fairseq_cli.train
import pytest
import torch
from fairseq.trainer import Trainer

from unival.data.engine_start import LEFT_OUT
from unival.tasks.engine import RELIED_ON, REPLACED

ROOT = Path(__file__).resolve().parents[3]


def found(dotted: str) -> object:
    """The object of a dotted name: the longest module in front, attributes behind."""
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            value: object = import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for name in parts[length:]:
            value = getattr(value, name)
        return value
    raise AssertionError(f"no module in {dotted}")


@pytest.mark.parametrize("name", [name for names in RELIED_ON.values() for name in names])
def test_what_we_rely_on_is_there(name):
    assert found(name) is not None


def test_what_is_left_out_of_a_start_is_there():
    for name in LEFT_OUT:
        assert find_spec(name) is not None, name
    assert pytest.importorskip("wandb").__version__, "hidden from the engine only"


def test_an_optimizer_does_not_import_the_compiler():
    """It takes a second, of every training and each of its ranks."""
    program = (
        "import sys, torch, unival.plugin\n"
        "from unival.tasks.optimizer import Adam\n"
        "weight = torch.nn.Parameter(torch.ones(3))\n"
        "optimizer = Adam([weight])\n"
        "weight.square().sum().backward()\n"
        "optimizer.step(), optimizer.zero_grad()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "print([name for name in ('torch._dynamo', 'timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_that_rely_on_it_name_it():
    for file, names in RELIED_ON.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        last = {name.rsplit(".", 1)[1] for name in names} - {"_set_seed", "GroupedIterator", "_try_get_data"}
        assert not [name for name in last if name not in text], file


def test_the_engine_uses_our_classes():
    import unival.plugin  # noqa: F401

    for module, names in REPLACED.items():
        for name, ours in names.items():
            assert getattr(module, name) is ours
    source = inspect.getsource(fairseq_cli.train.main)
    assert "trainer = Trainer(cfg, task, model, criterion, quantizer)" in source


def test_what_the_engine_does_between_our_calls():
    """Order and words that no name shows."""
    step = inspect.getsource(Trainer.train_step)
    assert step.index("self._set_seed()") < step.index("self._prepare_sample(sample)")
    assert step.index("all_reduce_grads") < step.index("self.clip_grad_norm(") < step.index("optimizer_step")
    save = inspect.getsource(found("fairseq.checkpoint_utils.save_checkpoint"))
    assert save.index("trainer.consolidate_optimizer()") < save.index("trainer.save_checkpoint(")
    epoch = inspect.getsource(fairseq_cli.train.train)
    assert "cfg.optimization.update_freq[epoch_itr.epoch - 1]" in epoch


def test_a_loader_without_a_batch_says_so_and_goes_on():
    """unival/batching/loading.py waits in steps of a second by torch's time limit, and asks again after it."""

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            import time

            time.sleep(1.2 if index == 0 else 0)
            return index

    batches = iter(torch.utils.data.DataLoader(Slow(), num_workers=1, timeout=1))
    with pytest.raises(RuntimeError, match="timed out after"):
        while True:
            next(batches)
    got = []
    while len(got) < 2:
        try:
            got.append(int(next(batches)))
        except RuntimeError as error:
            assert "timed out after" in str(error)
    assert got == [0, 1]
