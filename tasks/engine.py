"""Everything inside the engine (fairseq) and torch that we replace or rely on, in one place.

None of it is a public interface. When one of them changes, ``tests/integration/plugin/test_engine.py``
says which name is gone; the modules named here are what to look at then.
"""

from __future__ import annotations

import fairseq.checkpoint_utils
import fairseq.models.distributed_fairseq_model
import fairseq.optim
import fairseq_cli.train
import torch

from unival.models.parallel import DataParallel, LegacyDataParallel
from unival.tasks import saving, tracking
from unival.tasks.files import AtomicFiles
from unival.tasks.optimizer import FairseqAdam, FP16Optimizer
from unival.tasks.trainer import UnivalTrainer

# The engine has no option for these classes and functions; it looks the names up at call time: place -> name -> ours.
REPLACED = {
    fairseq_cli.train: {"Trainer": UnivalTrainer, "main": saving.main, "progress_bar": tracking},
    fairseq.checkpoint_utils: {"PathManager": AtomicFiles, "save_checkpoint": saving.save_checkpoint},
    fairseq.optim: {"FP16Optimizer": FP16Optimizer},
    fairseq.models.distributed_fairseq_model: {
        "DistributedDataParallel": DataParallel,
        "LegacyDistributedDataParallel": LegacyDataParallel,
    },
}

# The same in the engine's registry of optimizers.
OPTIMIZERS = {"adam": FairseqAdam}

# Methods that torch wraps so that its compiler stays out of them. The first call of a wrapper imports that compiler,
# which takes a training nearly as long to start as torch itself, unless the wrapper is told what to call instead.
_KEPT_FROM_COMPILERS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")

# Names that are called, overridden or read, with who does it.
RELIED_ON = {
    "tasks/trainer.py": (
        "fairseq.trainer.Trainer._aggregate_logging_outputs",
        "fairseq.trainer.Trainer._build_ema",
        "fairseq.trainer.Trainer._fp_convert_sample",
        "fairseq.trainer.Trainer._prepare_sample",
        "fairseq.trainer.Trainer._set_seed",
        "fairseq.trainer.Trainer.begin_valid_epoch",
        "fairseq.trainer.Trainer.clip_grad_norm",
        "fairseq.trainer.Trainer.consolidate_optimizer",
        "fairseq.trainer.Trainer.get_train_iterator",
        "fairseq.trainer.Trainer.get_valid_iterator",
        "fairseq.trainer.Trainer.should_save_checkpoint_on_current_rank",
        "fairseq.checkpoint_utils.save_checkpoint",
        "fairseq.optim.fp16_optimizer._FP16OptimizerMixin.has_flat_params",
    ),
    "tasks/optimizer.py": (
        "fairseq.optim.MemoryEfficientFP16Optimizer",
        "fairseq.optim.adam.FairseqAdam",
        "fairseq.optim.fp16_optimizer.FP16Optimizer",
        "torch._fused_adamw_",
    ),
    "tasks/engine.py": (
        "fairseq.optim.OPTIMIZER_REGISTRY",
        *(f"torch.optim.Optimizer.{name}" for name in _KEPT_FROM_COMPILERS),
    ),
    "tasks/saving.py": (
        "fairseq.checkpoint_utils.save_checkpoint",
        "fairseq.trainer.Trainer.is_fsdp",
        "fairseq.trainer.Trainer.should_save_checkpoint_on_current_rank",
        "fairseq_cli.train.main",
    ),
    "tasks/snapshot.py": ("fairseq.utils.apply_to_sample",),
    "tasks/ending.py": ("fairseq_cli.train.should_stop_early",),
    "tasks/continuing.py": ("fairseq.data.iterators.GroupedIterator",),
    "data/iterator.py": (
        "fairseq.data.iterators.CountingIterator",
        "fairseq.data.iterators.EpochBatchIterator._get_iterator_for_epoch",
        "fairseq.data.iterators.EpochBatchIterator.load_state_dict",
        "fairseq.data.iterators.EpochBatchIterator.state_dict",
    ),
    "unival/batching/loading.py": (
        "multiprocessing.queues.Queue._on_queue_feeder_error",
        "torch.utils.data._utils.signal_handling._remove_worker_pids",
        "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._shutdown_workers",
        "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data",
    ),
    "models/ema.py": ("fairseq.models.ema.ema.EMA._step_internal",),
    "models/parallel.py": (
        "torch._C._will_engine_execute_node",
        "torch.Tensor.register_post_accumulate_grad_hook",
        "torch.autograd.Variable._execution_engine.queue_callback",
        "torch.autograd.graph.get_gradient_edge",
        "fairseq.distributed.legacy_distributed_data_parallel.LegacyDistributedDataParallel.all_reduce_grads",
    ),
}


def install() -> None:
    """Put our classes where the engine looks for its own."""
    for module, names in REPLACED.items():
        for name, ours in names.items():
            setattr(module, name, ours)
    fairseq.optim.OPTIMIZER_REGISTRY.update(OPTIMIZERS)
    for name in _KEPT_FROM_COMPILERS:
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None:
            # the name under which the wrapper keeps what it calls
            vars(plain).setdefault("__dynamo_disable", plain)
