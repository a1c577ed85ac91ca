"""Finetune and merge in a chain (vanilla, fusing, ratatouille), in order or step by step."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A chain recipe, and which part of it to do."""
    parser.add_argument("recipe", help="chain recipe (YAML), for example configs/merge/ratatouille.yaml")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--list", action="store_true", help="print number, stage, state and work of every step")
    part.add_argument("--stages", action="store_true", help="print FIRST-LAST of each stage, for job arrays")
    part.add_argument("--step", type=int, help="do only this step; those it needs must be done")


def run(args: argparse.Namespace) -> int:
    """Do what is not done yet; a step that failed is named and ends the run."""
    from unival.errors import ConfigError
    from unival.merge.chain import ChainRecipe, is_done, run_step, save_recipe, steps
    from unival.merge.recipe import read_document

    recipe = read_document(args.recipe, ChainRecipe)
    listed = steps(recipe)
    if args.stages:
        for stage in sorted({step.stage for step in listed}):
            numbers = [k for k, step in enumerate(listed) if step.stage == stage]
            print(f"{numbers[0]}-{numbers[-1]}")
        return 0
    if args.list:
        for k, step in enumerate(listed):
            print(
                f"{k:4d}  stage {step.stage}  {'done' if is_done(recipe, step) else 'open'}  {step.name}  {step.text}"
            )
        return 0
    if args.step is not None and not 0 <= args.step < len(listed):
        raise ConfigError(f"step {args.step} does not exist; the chain has steps 0 to {len(listed) - 1}")
    save_recipe(recipe, listed)
    for step in listed if args.step is None else [listed[args.step]]:
        run_step(recipe, step)
    return 0
