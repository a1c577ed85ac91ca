"""Options of text-to-image: code grid, networks by path, choice among samples, where pictures go."""

from __future__ import annotations

from dataclasses import dataclass, field

from unival.errors import ConfigError, nearest
from unival.imagegen.grid import grid_side
from unival.modeling.config import TransformerConfig

CLIP_METHODS = ("ti_sim", "ii_sim")


@dataclass(frozen=True)
class ImageGenOptions:
    """The reference's names; paths are files that the user names, nothing is downloaded."""

    code_image_size: int = field(
        default=TransformerConfig.code_image_size,
        metadata={"help": "side of generated images, pixels; one image code stands for 8 x 8 of them"},
    )
    vqgan_model_path: str | None = field(
        default=None, metadata={"help": "VQGAN weights that turn image codes into pictures"}
    )
    vqgan_config_path: str | None = field(
        default=None, metadata={"help": "YAML with the VQGAN's sizes, where the weights file does not say"}
    )
    clip_model_path: str | None = field(
        default=None, metadata={"help": "CLIP weights that compare pictures with captions"}
    )
    clip_architecture: str = field(
        default="ViT-B-16-quickgelu",
        metadata={"help": "open_clip's name of the CLIP model, or a JSON file with its sizes"},
    )
    eval_clip_method: str = field(
        default="ti_sim",
        metadata={"help": "similarity to the caption (ti_sim) or to the reference picture (ii_sim)"},
    )
    sampling_times: int = field(
        default=1, metadata={"help": "rounds of sampling 'beam' outputs per row; the best of all is kept"}
    )
    gen_images_path: str | None = field(
        default=None, metadata={"help": "folder for generated pictures: all_results and top1"}
    )
    inception_model_path: str | None = field(
        default=None, metadata={"help": "Inception weights (torch-fidelity's) for FID and Inception Score"}
    )
    fid_statistics: str | None = field(
        default=None, metadata={"help": ".npz with mu and sigma of the real pictures' Inception features"}
    )

    def __post_init__(self) -> None:
        grid_side(self.code_image_size)
        if self.sampling_times < 1:
            raise ConfigError(f"sampling_times must be at least 1, got {self.sampling_times}")
        if self.eval_clip_method not in CLIP_METHODS:
            raise ConfigError(
                f"eval_clip_method '{self.eval_clip_method}' is not one of {', '.join(CLIP_METHODS)}."
                + nearest(self.eval_clip_method, CLIP_METHODS)
            )
        for name in ("clip_model_path", "inception_model_path"):
            if getattr(self, name) and not self.vqgan_model_path:
                raise ConfigError(
                    f"{name} judges pictures, and vqgan_model_path, which makes them, is missing"
                )
        if self.fid_statistics and not self.inception_model_path:
            raise ConfigError("fid_statistics needs inception_model_path: the network of its features")
