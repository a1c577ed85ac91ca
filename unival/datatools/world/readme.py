"""The README.md that a sample world carries."""

from __future__ import annotations

from typing import Any

_TEXT = """# Sample world

Rendered by `unival data sample` with seed {seed}, variant `{variant}`. The same seed gives the same files.
Coloured shapes in pictures, moving shapes in clips, tones and noises in sounds; all of it made up.
The contents of train, val and test are disjoint: what is in a test picture (objects, sizes, places) is in no
training picture, whatever the seed.

| folder | what |
|---|---|
| `images/` | {images} pictures, JPEG and PNG |
| `videos/` | {videos} clips, H.264 in MP4, 8 to 16 frames, 8 frames a second |
| `audio/` | {audio} sounds, WAV and FLAC, mono, 16 or 48 kHz, 1 to 2 seconds |
| `tables/` | the tables below; media paths are relative to this folder |
| `answers/` | the closed answer lists of picture and video questions, one a line |
| `negative_sample/` | where pretraining draws wrong captions, objects and answers from |
| `vocabulary/` | byte-level BPE trained on the training texts |
| `world.json` | split and attributes of every item |

Tables ending in `.tsv` have no header; their columns are those of the released UnIVAL data files:

| table | columns |
|---|---|
| `pretrain_{{image,video,audio}}.tsv` | uniq-id, path, caption, question, refs, objects, data set, type |
| `caption_*.tsv`, `video_caption_*.tsv`, `audio_caption_*.tsv` | uniq-id, media id, caption, objects, path |
| `vqa_*.tsv`, `video_vqa_*.tsv` | question id, media id, question, answers, objects, path |
| `grounding_*.tsv` | uniq-id, image id, text, box x0,y0,x1,y1 in pixels, path |
| `entailment_*.tsv` | uniq-id, image id, path, hypothesis, caption, label |
| `matching_*.csv` | with header: id, image, text, label (match, mismatch) |

Captions in val and test hold several references, joined by `&&`.
Answers are `confidence|!+answer`, joined by `&&`.

| file | rows |
|---|---|
{rows}
"""


def readme(summary: dict[str, Any]) -> str:
    """Return the text for the summary that ``render`` returns."""
    rows = "\n".join(f"| `{name}` | {count} |" for name, count in sorted(summary["files"].items()))
    return _TEXT.format(seed=summary["seed"], variant=summary["variant"], rows=rows, **summary["media"])
