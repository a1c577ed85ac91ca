"""Questions with a closed list of 3,129 answers: every answer scored, and the best alone, against an earlier ranking.

    git show 5261e15:unival/generate/rank.py > out/rank_before.py
    python benchmarks/all_candidates.py [--before out/rank_before.py] [--batch 1 8 16] [--precision bfloat16 float32]
                                        [--threads 1] [--repeat 3] [--sharpness 1 3] [--image 384] [--small]

A random model of base size (768 wide, 6 + 6 layers, 59,457 words), pictures, and questions of 5 to 12 tokens that are
prompts of the decoder too. The list is drawn: half of the answers have one token, the others two to four, most
beginning with a frequent word. ``--sharpness`` multiplies the logits: how many answers can still win depends on how
sure a model is, and a random one is less so than a trained one. The encoder runs before and apart: its time is a line
of its own. Ways alternate in one process; times are the least of ``--repeat`` turns, "cpu" is processor time of all
threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unival.generate import AnswerTree, Trie, rank_candidates
from unival.generate.run import encode, evaluating
from unival.modeling.build import build_model

SMALL = {
    f"{side}_{name}": number
    for side in ("encoder", "decoder")
    for name, number in (("embed_dim", 64), ("layers", 2), ("attention_heads", 4))
}


def answer_list(count: int, vocabulary: int) -> list[list[int]]:
    """Draw distinct answers of one to four tokens whose words have the long tail of a language."""
    rng = random.Random(0)
    words = rng.sample(range(4, vocabulary), min(2500, vocabulary // 2))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        length = rng.choices((1, 2, 3, 4), (50, 35, 11, 4))[0]
        # as in "on the left": words at the head of the list begin most of the longer answers
        ranks = (
            [int(len(words) ** rng.random()) - 1 for _ in range(length)]
            if length > 1
            else [rng.randrange(len(words))]
        )
        found[tuple(words[rank] for rank in ranks)] = None
    return [list(answer) for answer in found]


def questions(
    batch: int, vocabulary: int, size: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], list[list[int]]]:
    rng = random.Random(1)
    prompts = [[rng.randrange(4, vocabulary) for _ in range(rng.randint(5, 12))] for _ in range(batch)]
    source = torch.tensor([[0, *p, 2] + [1] * (12 - len(p)) for p in prompts])
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(batch, 3, size, size, generator=generator).to(dtype)
    kinds = torch.zeros(batch, dtype=torch.int64)
    return {"src_tokens": source, "src_lengths": None, "patch_images": images, "patch_types": kinds}, prompts


class Encoded:
    """A model whose encoder has run."""

    training = False

    def __init__(self, model: Any, out: Any) -> None:
        self.decoder, self.encoder = model.decoder, lambda **_: out

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...


def least(turns: list[tuple[float, float]]) -> str:
    return f"{min(wall for wall, _ in turns):.3f} s, cpu {min(cpu for _, cpu in turns):.3f} s"


def timed(run: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def earlier(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("rank_before", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rank_candidates


def compare(
    model: Any, args: Any, tree: AnswerTree, answers: list[list[int]], trie: Trie, batch: int
) -> None:
    """Print the times of a batch: the encoder, and behind it each way of ranking."""
    decoder = model.decoder
    dtype = decoder.embed_tokens.weight.dtype
    net_input, prompts = questions(batch, decoder.config.vocab_size, args.image, dtype)
    with evaluating(model), torch.no_grad():
        out, spent = timed(lambda: encode(model, net_input))
    title = f"{str(dtype).removeprefix('torch.')}, batch {batch}"
    print(f"{title}: encoder {least([spent])}", flush=True)
    encoded: Any = Encoded(model, out)
    ways: dict[str, Callable[[], Tensor]] = {
        "all": lambda: rank_candidates(encoded, net_input, tree, prompts),
        "best": lambda: rank_candidates(encoded, net_input, tree, prompts, best=1),
    }
    if args.before:
        before = earlier(args.before)
        ways = {"before": lambda: before(encoded, net_input, answers, prompts, trie), **ways}
    base = 0.0
    for sharpness in args.sharpness:
        with torch.no_grad():
            decoder.layer_norm.weight.fill_(sharpness)
        turns: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        scores: dict[str, Tensor] = {}
        for _ in range(args.repeat):
            for way, run in ways.items():
                scores[way], spent = timed(run)
                turns[way].append(spent)
        for way, found in turns.items():
            cpu = min(spent for _, spent in found)
            base = base or cpu
            same = int((scores[way].argmax(1) == scores["all"].argmax(1)).sum())
            known = int(scores[way].isfinite().sum()) / batch
            print(
                f"{title}, logits times {sharpness:g}, {way}: {least(found)}, {batch / cpu:.2f} questions a cpu "
                f"second, {base / cpu:.1f} times, {known:.0f} answers known, same best {same} of {batch}",
                flush=True,
            )
        ways.pop("before", None)  # it takes as long whatever the logits are


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument(
        "--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"]
    )
    parser.add_argument("--sharpness", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--image", type=int, default=384)
    parser.add_argument("--small", action="store_true", help="a small model, to try this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vocabulary = 5000 if args.small else 59457
    model = build_model("unival_base", vocabulary, **(SMALL if args.small else {})).eval()
    answers = answer_list(300 if args.small else 3129, vocabulary)
    (trie, tree), spent = timed(lambda: (Trie(answers), AnswerTree(answers, Trie(answers))))
    lengths = f"{min(map(len, answers))} to {max(map(len, answers))} tokens"
    print(
        f"{len(answers)} answers of {lengths}, {len(tree)} prefixes that must run, built in {least([spent])}"
    )
    print(f"{args.threads} threads", flush=True)
    for precision in args.precision:
        model = model.to(getattr(torch, precision))
        for batch in args.batch:
            compare(model, args, tree, answers, trie, batch)


if __name__ == "__main__":
    main()
