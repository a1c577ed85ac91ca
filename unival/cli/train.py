"""``unival train RECIPE [--any-option value]``."""

from __future__ import annotations

import argparse
import logging
import shlex

from unival.core.installation import install_extra
from unival.core.recipe import check_options, load_recipe, to_arguments
from unival.errors import ConfigError

logger = logging.getLogger(__name__)

PASSES_OPTIONS = True  # whatever is not ours goes to the engine, after the recipe's own options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb itself; all others are those of ``fairseq-train`` and the plugin."""
    parser.add_argument("recipe", help="YAML recipe, for example configs/finetune/caption_coco.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print the engine's command line and stop")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Resolve the recipe, check every option name, and train in this process."""
    arguments = resolve(args.recipe, extra, announced=not args.dry_run)
    if args.dry_run:
        print("python -m unival.train " + shlex.join(arguments))
        return 0
    from unival.train import main

    return main(arguments)


def resolve(path: str, extra: list[str], announced: bool = False) -> list[str]:
    """Return the engine's command line for a recipe with options laid over it.

    announced: say in the log what it waits for.

    Raises:
        ConfigError: an unknown option, or fairseq is not installed.
    """
    recipe = load_recipe(path)
    overrides = [word[2:].split("=", 1)[0] for word in extra if word.startswith("--")]
    for name in ("save_dir", "save-dir"):  # tables are written beside the run, so this one is needed early
        for position, word in enumerate(extra):
            if word.startswith(f"--{name}="):
                recipe.options["save_dir"] = word.split("=", 1)[1]
            elif word == f"--{name}" and position + 1 < len(extra):
                recipe.options["save_dir"] = extra[position + 1]
    try:
        from unival.train import known_options, set_up_logging

        set_up_logging()
        if announced:
            logger.info("%s: loading torch and fairseq", path)  # which takes seconds
        known = known_options(recipe.choices)
    except ImportError as error:
        raise ConfigError(
            f"training needs fairseq ({error}). Install it with: {install_extra('train')}"
        ) from None
    check_options(overrides, known, "command line")
    return to_arguments(recipe, known) + extra
