"""``unival data codebook SOURCE --out FILE``: train a VQGAN on one's own pictures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from unival.core import options as cli_options
from unival.core.device import device_named
from unival.core.files import check_file
from unival.errors import ConfigError, DataError
from unival.imagegen.grid import grid_side
from unival.imagegen.options import ImageGenOptions

if TYPE_CHECKING:
    from torch import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare pictures, sizes of the network and settings of training."""
    from unival.imagegen.train_vqgan import TrainSettings
    from unival.imagegen.vqgan import VqganConfig

    size = ImageGenOptions.code_image_size
    add = parser.add_argument
    add("source", help="folder of pictures, or a table (description) with a column image")
    add("--valid", metavar="SOURCE", help="pictures held out, to report their reconstruction")
    add("--out", required=True, metavar="FILE", help="weights file to write")
    add("--code-image-size", type=int, default=size, help="side of the pictures in pixels (%(default)s)")
    add("--init-from", metavar="FILE", help="weights of this program to go on from, with their sizes")
    add("--image-dir", help="folder or .tar that relative media paths start from")
    add("--device", help="cpu, cuda, cuda:1 (default: a GPU when there is one)")
    network = parser.add_argument_group("network (defaults: those of the published vqgan_gumbel_f8)")
    cli_options.add_arguments(network, VqganConfig, skip=("resolution", "embed_dim"))
    cli_options.add_arguments(parser.add_argument_group("training"), TrainSettings)


def run(args: argparse.Namespace) -> int:
    """Train, write the weights, and print the reconstruction beside the mean picture's."""
    import time

    import torch

    from unival.imagegen.train_vqgan import TrainSettings, evaluate, train
    from unival.imagegen.vqgan import Vqgan, VqganConfig
    from unival.imagegen.weights import load_vqgan, save_vqgan

    check_file(args.out)
    device = device_named(args.device)
    grid_side(args.code_image_size)
    settings = cli_options.from_namespace(args, TrainSettings)
    sizes = cli_options.given(args, VqganConfig)
    if args.init_from and sizes:
        raise ConfigError(f"--init-from brings its own sizes: leave out {', '.join(sizes)}")
    sizes |= {"resolution": args.code_image_size, "embed_dim": sizes.get("z_channels", VqganConfig.embed_dim)}
    images = _pixels(args.source, args.image_dir, args.code_image_size)
    held = _pixels(args.valid, args.image_dir, args.code_image_size) if args.valid else images
    torch.manual_seed(settings.seed)
    model = Vqgan(VqganConfig(**sizes)) if args.init_from is None else load_vqgan(args.init_from)[0]
    model.requires_grad_(True).to(device)
    print(f"{len(images)} pictures, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    start = time.monotonic()

    def log(update: int, loss: float) -> None:
        print(f"update {update}: loss {loss:.4f}, {time.monotonic() - start:.0f} s", flush=True)

    train(model, images, settings, log)
    found = evaluate(model, held, images)
    save_vqgan(model, args.out, training=cli_options.to_dict(settings))
    print(
        f"{args.out}: {'held-out' if args.valid else 'training'} pictures, error L1 {found.l1:.4f}, "
        f"MSE {found.mse:.4f} in [-1, 1] (mean picture: {found.baseline_l1:.4f}, {found.baseline_mse:.4f}); "
        f"{found.codes_used} of {model.sizes.n_embed} codes used"
    )
    return 0


def _pixels(source: str, image_dir: str | None, size: int) -> Tensor:
    """All pictures as uint8 (N, 3, size, size); unreadable ones are an error, as there are no labels to lose."""
    import torch

    from unival.datatools.codes import Pictures
    from unival.media import MediaError

    pictures = Pictures(source, image_dir=image_dir)
    pixels = []
    for picture in pictures:
        try:
            pixels.append(((pictures.read(picture, size) + 1) * 127.5).round().to(torch.uint8))
        except MediaError as error:
            raise DataError(f"{picture.place}: {error}; remove it from the training pictures") from None
    return torch.stack(pixels)
