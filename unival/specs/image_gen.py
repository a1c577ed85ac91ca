"""Text-to-image: a caption to the codes of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from unival.batching.batch import Asked, Example
from unival.errors import CheckpointError, ConfigError, DataError
from unival.imagegen.grid import grid_side, read_codes, read_grids, write_codes
from unival.media.loader import MediaLoader
from unival.specs.base import Field, TaskSpec, bad_value, is_absent, row_id, shorten, text_of
from unival.specs.inputs import media_reference
from unival.specs.options import SpecOptions
from unival.tables.row import Row
from unival.vocabulary.cleaning import first_words
from unival.vocabulary.prompts import prompt
from unival.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from unival.imagegen.scorer import ImageScorer


class ImageGenSpec(TaskSpec):
    """``what is the complete image? caption: ...`` -> side * side image codes (paper section 4; reference).

    Outputs are sampled, and the one whose picture is most like the caption wins when a CLIP is given. An
    output is ``{"codes": "12 7 ..."}``, after reranking with ``similarity`` (cosine, None without a CLIP) and
    ``file`` (in ``gen_images_path``, when pictures are kept).
    """

    name = "image_gen"
    best_metric = "score"
    generation: ClassVar[dict[str, Any]] = {"beam": 5, "sampling": True, "sampling_topk": 256}
    reads_media = False
    reranks = True

    @property
    def fields(self) -> tuple[Field, ...]:
        return (
            Field("image", False, "the real picture, for similarity to it (ii_sim)", words=False),
            Field("text", True, "the caption"),
            Field(
                "codes",
                False,
                "image codes in row-major order, separated by blanks",
                target=True,
                words=False,
            ),
        )

    @property
    def layout_name(self) -> str:
        return "image_gen"

    def modality_of(self, row: Row) -> str | None:
        return None

    def decoding(self, options: SpecOptions) -> dict[str, Any]:
        """Codes of one picture, neither fewer nor more, and nothing but codes."""
        length = grid_side(options.code_image_size) ** 2
        return {**self.generation, "gen_code": True, "min_len": length, "max_len_a": 0, "max_len_b": length}

    def constraint(self, options: SpecOptions, vocabulary: Vocabulary) -> tuple[int, int]:
        """Return the token range of the codes.

        Reads the networks, so that what is absent or does not fit shows before anything is drawn: raises
        ConfigError for a VQGAN with another number of codes, CheckpointError for files.
        """
        if vocabulary.num_codes < 1:
            raise ConfigError("the vocabulary has no image codes: make one with --num-codes")
        if options.vqgan_model_path:
            known = self._scorer(options).num_codes
            if known != vocabulary.num_codes:
                raise ConfigError(
                    f"the VQGAN '{options.vqgan_model_path}' has {known} codes, the vocabulary "
                    f"{vocabulary.num_codes}: they must be equal"
                )
        for path in filter(None, (options.inception_model_path, options.fid_statistics)):
            if not Path(path).is_file():
                raise CheckpointError(f"'{path}' does not exist; name a file, nothing is downloaded")
        return vocabulary.code_offset, vocabulary.code_offset + vocabulary.num_codes

    def reference(self, row: Row, options: SpecOptions) -> dict[str, str]:
        """Return the caption, and the codes where the row has them."""
        reference = {"text": self._text(row, options)}
        codes = row.get("codes")
        return reference if is_absent(codes) else {**reference, "codes": str(codes)}

    def examples(
        self,
        row: Row,
        media: MediaLoader,
        options: SpecOptions,
        vocabulary: Vocabulary,
        rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> list[Example]:
        reference = self.reference(row, options)
        source = vocabulary.encode(prompt("image_gen", options.prompts, text=self._text(row, options)))
        source = source[: options.max_source_positions - 2]
        codes: list[int] = []
        if training or "codes" in reference:
            codes = self._codes(row, options, vocabulary.num_codes)
        target = [vocabulary.code_id(code) for code in codes]
        picture = None
        if options.eval_clip_method == "ii_sim" and not training:
            picture = self._picture(row, media, codes, options)
        return [
            Example(
                id=row_id(row),
                source=torch.tensor([vocabulary.bos, *source, vocabulary.eos]),
                target=torch.tensor([*target, vocabulary.eos]),
                prev_output=torch.tensor([vocabulary.bos, *target]),
                reference=reference,
                code_target=True,
                code_image=picture,
            )
        ]

    def _text(self, row: Row, options: SpecOptions) -> str:
        return first_words(text_of(row, "text"), options.max_src_length)

    def _codes(self, row: Row, options: SpecOptions, num_codes: int) -> list[int]:
        side = grid_side(options.code_image_size)
        expected = f"expected {side * side} image codes (code_image_size {options.code_image_size})"
        value = row["codes"]
        try:
            codes = read_codes(value if isinstance(value, str) else write_codes(value))
        except (TypeError, ValueError) as error:
            raise bad_value(row, "codes", f"{expected}, got {shorten(value)} ({error})") from None
        if len(codes) != side * side:
            raise bad_value(row, "codes", f"{expected}, got {len(codes)}")
        if max(codes) >= num_codes:
            raise bad_value(
                row,
                "codes",
                f"code {max(codes)} is not among the vocabulary's {num_codes} (0 to {num_codes - 1})",
            )
        return codes

    def _picture(self, row: Row, media: MediaLoader, codes: list[int], options: SpecOptions) -> Any:
        """The real picture of a row, or what its codes show when it has none."""
        if row.get("image"):
            return media.image(media_reference(row, "image"))
        if not codes:
            raise bad_value(row, "image", "similarity to the picture (ii_sim) needs an image or its codes")
        # in the process that loads data: a worker must not touch the GPU
        return self._scorer(options, "cpu").render([codes])[0]

    def decode(
        self,
        tokens: Iterable[int],
        example: Asked | None,
        vocabulary: Vocabulary,
        options: SpecOptions | None = None,
    ) -> dict[str, Any]:
        start, end = vocabulary.code_offset, vocabulary.code_offset + vocabulary.num_codes
        return {"codes": write_codes(token - start for token in map(int, tokens) if start <= token < end)}

    def rerank(
        self,
        decoded: list[tuple[Any, float]],
        batch: Mapping[str, Any],
        row: int,
        options: SpecOptions,
        device: str,
    ) -> list[tuple[int, Any, float]]:
        """Order by similarity where a CLIP is given, else by probability; keep the pictures if asked to.

        The score is then the similarity.
        """
        order = list(range(len(decoded)))
        similarity: list[float | None] = [None] * len(decoded)
        pictures: list[Any] = []
        if options.vqgan_model_path:
            scorer = self._scorer(options, device)
            texts = [output["codes"] for output, _ in decoded]
            pictures = scorer.render(read_grids(texts, options.code_image_size))
            if scorer.clip is not None:
                if options.eval_clip_method == "ii_sim":
                    values = scorer.to_pictures(pictures, [batch["code_images"][row]] * len(pictures))
                else:
                    values = scorer.to_text(pictures, [batch["references"][row]["text"]] * len(pictures))
                similarity = [float(value) for value in values]
                order.sort(key=lambda k: -values[k])
        kept: dict[str, str] = {}
        if options.gen_images_path and pictures:
            from unival.imagegen.files import write_pictures

            kept["file"] = write_pictures(options.gen_images_path, batch["id"][row], pictures, order[0])
        ranked = []
        for place in order:
            output, score = decoded[place]
            about = kept if place == order[0] else {}
            value = similarity[place]
            ranked.append(
                (place, {**output, "similarity": value, **about}, score if value is None else value)
            )
        return ranked

    def score(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        options: SpecOptions,
        ids: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Return score: the mean similarity of the chosen pictures. Nothing without a CLIP."""
        values = [prediction.get("similarity") for prediction in predictions]
        return {} if None in values else {"score": float(np.mean(values))}

    def whole_set(
        self, predictions: Sequence[Any], references: Sequence[Any], options: SpecOptions
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return r_precision with a CLIP, fid and inception_score with an Inception network."""
        from unival.imagegen.scores import set_scores

        codes = [prediction["codes"] for prediction in predictions]
        return set_scores(codes, [reference["text"] for reference in references], options)

    def baseline(
        self,
        train_rows: Iterable[Row],
        eval_rows: Iterable[Row],
        options: SpecOptions,
        media: MediaLoader | None = None,
    ) -> dict[str, float]:
        """Score real pictures that have nothing to do with the caption: reconstructions of training rows."""
        from unival.imagegen.scores import unrelated_score

        found = (self.reference(row, options).get("codes") for row in train_rows)
        grids = [read_codes(codes) for codes in found if codes]
        if not grids:
            raise DataError("the training rows carry no codes: there is no unrelated picture to compare with")
        rows = list(eval_rows)
        own = ((row, self.reference(row, options).get("codes", "")) for row in rows)
        pictures = (
            self._picture(row, media or MediaLoader(), read_codes(codes), options) for row, codes in own
        )
        return unrelated_score(
            grids, [self._text(row, options) for row in rows], pictures, options, options.seed
        )

    def answer_of(self, reference: Any) -> Any:
        """Return the perfect output for a reference."""
        return {"codes": reference.get("codes", ""), "similarity": 1.0}

    @staticmethod
    def _scorer(options: SpecOptions, device: str | None = None) -> ImageScorer:
        from unival.imagegen.scorer import ImageScorer

        return ImageScorer.of(options, device)
