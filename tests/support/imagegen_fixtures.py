"""A tiny VQGAN, a tiny CLIP and an Inception network with random weights, as files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from unival.imagegen.vqgan import Vqgan, VqganConfig
from unival.imagegen.weights import save_vqgan

CODES = 32
VQGAN = VqganConfig(
    ch=4, ch_mult=(1, 2, 2, 4), num_res_blocks=1, attn_resolutions=(), resolution=32,
    z_channels=8, embed_dim=8, n_embed=CODES, groups=2,
)  # fmt: skip
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def tiny_vqgan(seed: int = 1) -> Vqgan:
    torch.manual_seed(seed)
    model = Vqgan(VQGAN)
    for parameter in model.parameters():  # larger than usual, so that codes differ from place to place
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return model.eval()


def vqgan_file(folder: Path) -> Path:
    path = folder / "vqgan.pt"
    save_vqgan(tiny_vqgan(), path)
    return path


def clip_files(folder: Path) -> tuple[Path, Path]:
    """(weights, JSON of the architecture) of a random CLIP."""
    import open_clip

    config = folder / "tiny-test-clip.json"
    config.write_text(json.dumps(CLIP))
    open_clip.add_model_config(config)
    torch.manual_seed(2)
    weights = folder / "clip.pt"
    torch.save(open_clip.create_model("tiny-test-clip").state_dict(), weights)
    return weights, config


def inception_file(folder: Path) -> Path:
    """A state dict of torch-fidelity's network with random weights that keep the signal's size."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """The constructor insists on a file; its content is not wanted."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = Untrained("random", ["2048"], empty)
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(0, 0.1, generator=generator)
            if name.endswith("bn.weight"):
                value.add_(1)
    # Sparse features and strong classes: else all images get the same classes and the Inception Score is 1.
    for name in state:
        if name.startswith("Mixed_7c") and name.endswith("bn.bias"):
            state[name].sub_(1)
    state["fc.weight"].mul_(30)
    path = folder / "random.pth"
    torch.save(state, path)
    return path
