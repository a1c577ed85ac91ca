"""Text-to-image in real runs: cross entropy, CLIP reward, evaluation; the reward itself, row by row."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.checks import refused
from tests.support.imagegen_fixtures import CODES, clip_files, vqgan_file
from tests.support.needs import needs
from unival.vocabulary import Vocabulary

pytestmark = needs("open_clip")
COLOURS = ("red", "green", "blue", "white", "black", "grey", "pink", "brown")
CAPTIONS = [f"a {colour} {shape}" for colour in COLOURS for shape in ("circle", "square", "star")]


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imagegen")
    Vocabulary.train(CAPTIONS, 280, CODES, 64).save(folder / "vocabulary")
    vqgan_file(folder), clip_files(folder)
    rng = np.random.default_rng(0)
    rows = [f"{k}\t{' '.join(map(str, rng.integers(0, CODES, 16)))}\t{t}\n" for k, t in enumerate(CAPTIONS)]
    (folder / "train.tsv").write_text("".join(rows))
    (folder / "val.tsv").write_text("".join(rows[:3]))
    return folder


def networks(files: Path) -> list[str]:
    return [
        f"--vqgan-model-path={files / 'vqgan.pt'}",
        f"--clip-model-path={files / 'clip.pt'}",
        f"--clip-architecture={files / 'tiny-test-clip.json'}",
    ]


def test_two_stages_and_evaluation(train, runner, files, tmp_path):
    data = [files / "train.tsv", files / "val.tsv"]
    own = [f"--bpe-dir={files / 'vocabulary'}", "--image-encoder-name=none", "--selected-cols=0,2,1"]
    draw = "--eval-args={'beam': 3, 'sampling_topk': 8}"
    pictures = tmp_path / "drawn"
    first = train(
        "image_gen", data, *own, *networks(files), draw, "--max-update=3", f"--gen-images-path={pictures}",
        name="stage1",
    ).ok()  # fmt: skip
    assert len(first.losses()) == 3 and all(math.isfinite(loss) for loss in first.losses())
    scores = [record["score"] for record in first.scores()]
    assert scores and all(-1 <= score <= 1 for score in scores)
    assert len(list((pictures / "top1").glob("*.png"))) == 3
    assert len(list((pictures / "all_results").glob("*.png"))) == 9

    stage1 = first.folder / "checkpoint_last.pt"
    reward = [
        "--criterion=clip_scst_reward_criterion",
        "--scst",
        "--scst-args={'beam': 4, 'sampling_topk': 8}",
    ]
    second = train(
        "image_gen", data, *own, *networks(files), draw, *reward, "--max-update=2",
        f"--finetune-from-model={stage1}", name="stage2",
    ).ok()  # fmt: skip
    assert [record["update"] for record in second.records if record["split"] == "train"] == [1, 2]
    assert "reward" in second.text and "Traceback" not in second.text

    folder = tmp_path / "evaluated"
    argv = ["evaluate", second.folder / "checkpoint_last.pt", files / "val.tsv", f"--out={folder}"]
    more = [f"--train-table={files / 'train.tsv'}", "--batch-size=2", draw]
    runner.start([*argv, *more], folder, program="unival.cli").finish().ok()
    result = json.loads((folder / "result.json").read_text())
    assert set(result["metrics"]) == {"score", "r_precision"} and result["main_metric"] == "score"
    assert result["n"] == 3 and result["baseline"].keys() == {"score"}
    assert len(result["scoring"]["clip_sha256"]) == 64 and result["decoding"]["max_len_b"] == 16
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    values = [line["prediction"]["similarity"] for line in predictions]
    assert result["metrics"]["score"] == pytest.approx(np.mean(values))
    other = runner.start([*argv, "--code-image-size=64"], folder, program="unival.cli").finish()
    refused(other, "code_image_size is 64, the checkpoint draws pictures of 32 pixels")


def test_without_a_clip_validation_is_by_the_loss(train, files):
    data, own = [files / "train.tsv", files / "val.tsv"], f"--bpe-dir={files / 'vocabulary'}"
    run = train("image_gen", data, own, "--image-encoder-name=none", "--max-update=2").ok()
    assert "validation is by the loss" in run.text and "score" not in run.scores()[-1]
    refused(
        train(
            "image_gen", data, own, "--criterion=clip_scst_reward_criterion", "--max-update=2", name="second"
        ),
        "clip_scst_reward_criterion rewards pictures: give --vqgan-model-path and --clip-model-path",
    )


def test_every_row_is_rewarded_for_its_own_pictures_by_its_own_caption(files):
    import unival.plugin  # noqa: F401
    from unival.batching.batch import collate
    from unival.criterions.clip_scst import ClipCriterion
    from unival.imagegen.grid import read_codes
    from unival.imagegen.scorer import ImageScorer
    from unival.media import MediaLoader
    from unival.modeling.build import build_model
    from unival.tasks.image_gen import ImageGenTask

    paths = {line[2:].partition("=")[0].replace("-", "_"): line.partition("=")[2] for line in networks(files)}
    options = {"code_image_size": 32, "data": "", "scst_args": {"beam": 3, "sampling_topk": 8}, **paths}
    vocabulary = Vocabulary.load(files / "vocabulary")
    task = ImageGenTask(Namespace(**options), vocabulary)
    criterion = ClipCriterion.build_criterion(Namespace(), task)
    torch.manual_seed(0)
    model = build_model(
        "unival_tiny", len(vocabulary), encoder_embed_dim=32, decoder_embed_dim=32, encoder_ffn_embed_dim=32,
        decoder_ffn_embed_dim=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, image_encoder_name="none", code_image_size=32, image_bucket_size=4, dropout=0.0,
    )  # fmt: skip
    codes = " ".join(["1"] * 16)
    rows = [
        {"id": str(k), "text": text, "codes": codes} for k, text in enumerate(("red circle", "white star"))
    ]
    sample = collate([task.spec.examples(row, MediaLoader(), task.options, vocabulary)[0] for row in rows])

    model.train()
    rollout = criterion._roll_out(model, sample, 1, criterion.inference)
    loss, size, _ = criterion(model, sample, update_num=1)
    assert size == 2 * 3 * 16, "every code counts, the end that is forced does not"
    scorer = ImageScorer.of(task.options)
    expected = torch.zeros(())
    for row, text in enumerate(("red circle", "white star")):
        pictures = scorer.render([read_codes(output["codes"]) for output in rollout.outputs[row]])
        s = 2.5 * scorer.to_text(pictures, [text] * 3)
        for k in range(3):
            others = np.mean([s[j] for j in range(3) if j != k])
            tokens = rollout.tokens[row, k]
            inputs = {key: value[row : row + 1] for key, value in sample["net_input"].items()}
            inputs["prev_output_tokens"] = torch.cat([torch.tensor([0]), tokens[:-1]])[None]
            allowed = model(**inputs)[0][0, :16]
            specials = torch.ones(len(vocabulary), dtype=torch.bool)
            specials[:4] = specials[vocabulary.code_offset : vocabulary.code_offset + CODES] = False
            log_probs = allowed.masked_fill(specials, -torch.inf).log_softmax(-1)
            taken = log_probs.gather(1, tokens[:16, None]).sum()
            expected = expected - (s[k] - others) * taken
    assert abs(s[0] - s[1]) > 1e-4, "rewards differ, or the test shows nothing"
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.decoder.parameters())
