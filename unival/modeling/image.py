"""Image network: a ResNet, whole (stride 32) or its first three stages (stride 16, as in OFA), or any other network of
timm (:mod:`unival.modeling.backbone`)."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from unival.core.lean_import import import_without
from unival.errors import ConfigError, nearest
from unival.modeling.backbone import Backbone
from unival.modeling.config import ImageConfig
from unival.modeling.layers import DropPath, drop_path_rates
from unival.modeling.resnet import LAYOUTS, ResNet


def build_image_encoder(config: ImageConfig) -> nn.Module | None:
    """Return a network, or None for "none"; its ``forward_features`` is what the encoder calls:
    (B, 3, h, w) -> (B, out_channels, h / stride, w / stride).

    State-dict names are timm's. The stride-32 network keeps its unused classifier ``fc`` because released
    checkpoints hold it. Drop path rises over all blocks of the whole network, and from 0 again in every stage
    of the three-stage one (reference behaviour; it never passes the rate to the whole network).
    The common ResNets are our own (:mod:`unival.modeling.resnet`), those of other names timm's, which is imported for
    them alone. Nothing is downloaded. Raises ConfigError for a name outside timm's ResNet family.
    """
    if config.image_encoder_name == "none":
        return None
    if config.image_encoder_name == "timm":
        return Backbone(config)
    kept = 3 if config.image_encoder_name == "resnet" else 4
    net, channels, stride = _whole(config.resnet_type, config.resnet_drop_path_rate, kept)
    if kept == 3:
        net.layer4, net.fc = nn.Identity(), nn.Identity()
        for stage in (net.layer1, net.layer2, net.layer3):
            blocks = list(cast(nn.Sequential, stage))
            rates = drop_path_rates(config.resnet_drop_path_rate, len(blocks))
            for block, rate in zip(blocks, rates, strict=True):
                block.drop_path = DropPath(rate)
    net.out_channels, net.stride = channels, stride
    return nn.SyncBatchNorm.convert_sync_batchnorm(net) if config.sync_bn else net


def _whole(name: str, drop_path: float, stages: int) -> tuple[Any, int, int]:
    """The network, its channels and its stride behind the first ``stages`` stages."""
    if name in LAYOUTS:
        own = ResNet(LAYOUTS[name], drop_path)
        return own, own.stage_channels[stages - 1], 2 ** (stages + 1)
    timm = import_without("timm", "wandb")
    names = timm.list_models(module="resnet")
    if name not in names:
        raise ConfigError(f"resnet_type '{name}' is not a ResNet of timm.{nearest(name, names)}")
    net = timm.create_model(name, pretrained=False, num_classes=1000, drop_path_rate=drop_path)
    kept = cast(Any, net.feature_info)[stages]
    return net, kept["num_chs"], kept["reduction"]
