"""Any image network of timm as a grid of features: a convolutional network's map, a transformer's patch tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from unival.core.lean_import import import_without
from unival.errors import ConfigError, DataError, nearest
from unival.modeling.config import ImageConfig

_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.")


class Backbone(nn.Module):
    """A network of timm without the parts that its features do not come from (classifier, later stages).

    ``forward_features``: (B, 3, h, w) with pixels in [-1, 1] -> (B, out_channels, h / stride, w / stride).
    The mean and deviation that the network was trained with are buffers, so a checkpoint holds them and every
    reader may hand over the same pixels. ``left_out``: names of weights of the whole network that are not here.
    Raises ConfigError for a name, stride or drop path that timm does not have.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        timm = import_without("timm", "wandb")
        from timm.layers.norm_act import convert_sync_batchnorm

        self.name = cast(str, config.image_backbone)
        net = _create(self.name, config.resnet_drop_path_rate)
        data = timm.data.resolve_data_config({}, model=net)
        self.register_buffer("pixel_mean", torch.tensor(data["mean"]))
        self.register_buffer("pixel_std", torch.tensor(data["std"]))
        self.stride, self.stage = _stage(net, self.name, config.image_backbone_stride)
        self.channels_first = str(getattr(net, "output_fmt", "NCHW")).rpartition(".")[2].upper() == "NCHW"
        self.backbone = net
        whole = set(net.state_dict())
        self.out_channels = self._probe(data["input_size"])
        self.left_out = whole - set(net.state_dict())
        if config.sync_bn:
            self.backbone = convert_sync_batchnorm(net)

    def forward_features(self, images: Tensor) -> Tensor:
        """See the class. Raises DataError for a size that the network does not take."""
        scale, shift = 0.5 / self.pixel_std, (0.5 - self.pixel_mean) / self.pixel_std
        x = images * scale.to(images.dtype)[:, None, None] + shift.to(images.dtype)[:, None, None]
        try:
            return self._features(x)
        except AssertionError as error:  # how timm refuses a size
            height, width = images.shape[-2:]
            raise DataError(
                f"image_backbone '{self.name}' does not take pictures of {height}x{width} pixels: {error} "
                "(set patch_image_size accordingly)"
            ) from None

    def _features(self, x: Tensor) -> Tensor:
        net = cast(Any, self.backbone)
        if self.stage is not None:
            stages = net.forward_intermediates(
                x, indices=[self.stage], stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
            return cast(Tensor, stages[-1])
        features = cast(Tensor, net.forward_features(x))
        if features.dim() == 3:
            rows, columns = x.size(2) // self.stride, x.size(3) // self.stride
            patches = features[:, -rows * columns :]  # behind class token and registers
            return patches.transpose(1, 2).unflatten(2, (rows, columns))
        return features if self.channels_first else features.permute(0, 3, 1, 2)

    def _probe(self, size: tuple[int, int, int]) -> int:
        """Run once, leave out what the features do not depend on, and return their channels."""
        training = self.training
        self.eval()
        with torch.enable_grad():
            try:
                features = self._features(torch.zeros(1, *size))
            except (AssertionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"image_backbone '{self.name}' gives no grid of features with stride {self.stride}: {error}"
                ) from None
        if features.dim() != 4 or features.size(2) * self.stride > size[1] + self.stride:
            raise ConfigError(
                f"image_backbone '{self.name}' gives features {tuple(features.shape[1:])} for pictures of "
                f"{size[1]}x{size[2]} pixels, no grid of stride {self.stride}; choose another network"
            )
        _prune(self.backbone, {id(leaf) for leaf in _leaves(features)})
        self.train(training)
        return features.size(1)


def _create(name: str, drop_path: float) -> nn.Module:
    import timm

    if not timm.is_model(name):
        names = timm.list_models()
        raise ConfigError(f"image_backbone '{name}' is not a network of timm.{nearest(name, names)}")
    rate: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    # Transformers take other sizes than the one that they were trained with under one of these names.
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]
    for sizes in ways:
        try:
            return cast(nn.Module, timm.create_model(name, pretrained=False, **sizes, **rate))
        except TypeError as error:
            problem = error
        except RuntimeError as error:  # an unknown tag of weights behind the dot
            raise ConfigError(f"image_backbone '{name}': {error}") from None
    raise ConfigError(f"image_backbone '{name}' has no drop path (resnet_drop_path_rate): {problem}")


def _stage(net: nn.Module, name: str, stride: int | None) -> tuple[int, int | None]:
    """The stride of the features, and the number of the stage that gives them, None for the whole network."""
    stages = [int(info["reduction"]) for info in getattr(net, "feature_info", None) or ()]
    if not stages:
        raise ConfigError(f"image_backbone '{name}' says nothing of its strides; choose another network")
    if stride is None or stride == stages[-1]:
        return stages[-1], None
    if stride not in stages:
        listed = ", ".join(str(each) for each in sorted(set(stages)))
        raise ConfigError(f"image_backbone_stride {stride} is not a stride of '{name}'; it has {listed}")
    if not hasattr(net, "forward_intermediates"):
        raise ConfigError(
            f"image_backbone '{name}' offers its last stage alone; leave image_backbone_stride out"
        )
    return stride, max(i for i, each in enumerate(stages) if each == stride)


def _leaves(output: Tensor) -> Iterator[Tensor]:
    """The parameters that a result depends on, from its graph."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]


def _prune(module: nn.Module, used: set[int]) -> None:
    for name, child in list(module.named_children()):
        parameters = [id(parameter) for parameter in child.parameters()]
        if parameters and used.isdisjoint(parameters):
            setattr(module, name, nn.Identity())
        else:
            _prune(child, used)


def efficientnet_names(names: Iterable[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a file of the EfficientNet-PyTorch family (``_blocks.N._depthwise_conv``) under
    timm's names; those without a counterpart keep theirs. ``names``: of the whole network's weights."""
    places = {(int(found[1]), int(found[2])) for found in map(_BLOCK.match, names) if found}
    blocks = [f"blocks.{stage}.{number}" for stage, number in sorted(places)]
    expanding = {key.split(".")[1] for key in state if "._expand_conv." in key}
    inside = {
        True: {
            "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
            "_project_conv": "conv_pwl", "_bn2": "bn3",
        },
        False: {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    }  # fmt: skip
    squeeze = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
    outside = {
        "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
    }  # fmt: skip
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks" and int(parts[1]) < len(blocks):
            table = {**inside[parts[1] in expanding], **squeeze}
            parts = [blocks[int(parts[1])], table.get(parts[2], parts[2]), *parts[3:]]
        elif parts[0] in outside:
            parts[0] = outside[parts[0]]
        renamed[".".join(parts)] = value
    return renamed
