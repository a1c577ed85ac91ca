"""Collation: every row survives, whatever it is batched with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unival.batching.batch import Example, collate
from unival.core.modalities import patch_type
from unival.errors import DataError
from unival.losses import AllowedTokens

SHAPES = {"image": (3, 4, 4), "video": (3, 2, 4, 4), "audio": (8,)}
KEYS = {"image": "patch_images", "video": "patch_videos", "audio": "patch_audios"}


@st.composite
def examples(draw: st.DrawFn) -> Example:
    token = st.integers(4, 50)
    source = draw(st.lists(token, max_size=6))
    target = draw(st.lists(token, max_size=5))
    modality = draw(st.sampled_from([None, *SHAPES]))
    value = draw(st.integers(0, 1000))
    return Example(
        id=draw(st.text(max_size=3)),
        source=torch.tensor([0, *source, 2]),
        target=torch.tensor([*target, 2]),
        prev_output=torch.tensor([0, *target]),
        modality=modality,
        media=None if modality is None else torch.full(SHAPES[modality], float(value)),
        prefix=torch.tensor(target[:2], dtype=torch.int64),
        weight=draw(st.sampled_from([1.0, 0.5])),
        reference=draw(st.none() | st.text(max_size=3)),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(examples(), min_size=1, max_size=6))
def test_rows_alone_equal_rows_in_a_batch(rows: list[Example]) -> None:
    batch = collate(rows)
    net = batch["net_input"]
    seen = dict.fromkeys(SHAPES, 0)
    assert batch["ntokens"] == sum(len(row.target) for row in rows)
    for index, row in enumerate(rows):
        alone = collate([row])
        for name in ("src_tokens", "prev_output_tokens"):
            kept = alone["net_input"][name].shape[1]
            assert torch.equal(net[name][index, :kept], alone["net_input"][name][0])
            assert net[name][index, kept:].eq(1).all()
        assert torch.equal(batch["target"][index, : len(row.target)], row.target)
        assert net["src_lengths"][index] == len(row.source)
        assert net["patch_types"][index] == patch_type(row.modality)
        assert net["patch_masks"][index] == (row.modality is not None)
        assert (1.0 if batch["conf"] is None else batch["conf"][index, 0, 0]) == row.weight
        if len(row.prefix):
            assert torch.equal(batch["prefix_tokens"][index, : len(row.prefix)], row.prefix)
        if row.modality is not None:
            compact = net[KEYS[row.modality]]
            assert torch.equal(compact[seen[row.modality]], row.media)
            seen[row.modality] += 1
    for modality, count in seen.items():
        assert (KEYS[modality] in net) == (count > 0)
        assert count == 0 or len(net[KEYS[modality]]) == count
    assert batch["id"] == [row.id for row in rows] and batch["nsentences"] == len(rows)
    assert batch["references"] == [row.reference for row in rows]


def test_nothing_gives_an_empty_batch() -> None:
    assert collate([]) == {}


def plain(**rest: object) -> Example:
    return Example("a", torch.tensor([0, 2]), torch.tensor([5, 2]), torch.tensor([0, 5]), **rest)  # type: ignore[arg-type]


def test_code_rows_and_constraints() -> None:
    batch = collate([plain(code_target=True), plain(allowed=[[5, 6], [2]])])
    assert batch["net_input"]["code_masks"].tolist() == [True, False]
    masks = AllowedTokens(batch["allowed"], batch["target"].size(1), 10).dense(torch.arange(4)).view(2, 2, 10)
    assert masks[0].all()
    assert masks[1, 0].nonzero().flatten().tolist() == [5, 6]
    assert masks[1, 1].nonzero().flatten().tolist() == [2]
    plain_batch = collate([plain()])
    assert "code_masks" not in plain_batch["net_input"] and plain_batch["allowed"] is None


def test_media_that_do_not_fit_together() -> None:
    first = plain(modality="image", media=torch.zeros(3, 4, 4))
    with pytest.raises(DataError, match="same sizes and frame counts"):
        collate([first, plain(modality="image", media=torch.zeros(3, 5, 4))])
    with pytest.raises(DataError, match="carries no media"):
        collate([plain(modality="video")])


def test_examples_of_one_picture_share_its_row_and_its_encoding():
    from unival.modeling.build import build_model

    torch.manual_seed(0)
    one, two = torch.randn(3, 32, 32), torch.randn(3, 32, 32)

    def made(name: str, media: torch.Tensor | None, length: int) -> Example:
        tokens = torch.tensor([0, *range(5, 5 + length), 2])
        modality = None if media is None else "image"
        return Example(name, tokens, tokens[1:], tokens[:-1], modality=modality, media=media)

    examples = [made("a", one, 3), made("a/matching", one, 4), made("t", None, 2), made("b", two, 3)]
    batch = collate(examples)["net_input"]
    assert batch["patch_images"].shape == (2, 3, 32, 32)
    assert batch["patch_rows"].tolist() == [0, 0, 0, 1]
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             {"embed_dim": 32, "ffn_embed_dim": 64, "layers": 1, "attention_heads": 2}.items()}  # fmt: skip
    model = build_model("unival_tiny", 64, resnet_type="resnet18", **sizes).eval()
    together, _ = model(**batch)
    for row, example in enumerate(examples):
        alone, _ = model(**collate([example])["net_input"])
        length = len(example.prev_output)
        # float32, other batch shapes: measured at most 2e-6
        assert torch.allclose(together[row, :length], alone[0, :length], atol=2e-5)
