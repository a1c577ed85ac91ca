"""The reference's finetuning tasks: names for (task description, modality) pairs."""

from __future__ import annotations

from fairseq.tasks import register_task

from unival.specs import OWN
from unival.tasks.base import UnivalTask


@register_task("caption")
class CaptionTask(UnivalTask):
    """Image captioning."""

    spec_name = "caption"


@register_task("video_caption")
class VideoCaptionTask(UnivalTask):
    """Video captioning."""

    spec_name, modality = "caption", "video"


@register_task("audio_caption")
class AudioCaptionTask(UnivalTask):
    """Audio captioning."""

    spec_name, modality = "caption", "audio"


@register_task("vqa_gen")
class VqaTask(UnivalTask):
    """Visual question answering."""

    spec_name = "vqa"


@register_task("video_vqa_gen")
class VideoVqaTask(UnivalTask):
    """Video question answering."""

    spec_name, modality = "vqa", "video"


@register_task("refcoco")
class GroundingTask(UnivalTask):
    """Visual grounding (RefCOCO, RefCOCO+, RefCOCOg)."""

    spec_name = "grounding"


@register_task("snli_ve")
class EntailmentTask(UnivalTask):
    """Visual entailment (SNLI-VE)."""

    spec_name = "entailment"


@register_task("matching")
class MatchingTask(UnivalTask):
    """Does the text describe the image, video or sound? (``--modality``; not a task of the reference)"""

    spec_name = "matching"


for _name, _spec in OWN.items():
    register_task(_name)(
        type(f"{_spec.__name__}Task", (UnivalTask,), {"spec_name": _name, "modality": _spec.modalities[0]})
    )
