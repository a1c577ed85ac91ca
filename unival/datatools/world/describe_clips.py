"""Captions and questions about a clip."""

from __future__ import annotations

import numpy as np

from unival.datatools.world.attributes import ACTIONS, pick
from unival.datatools.world.clips import Actor, Clip
from unival.datatools.world.describe_scenes import article
from unival.datatools.world.wording import Wording

# what it does, and the verb of "does it ...?"
ACTION_WORDS = {
    "left": ("moves left", "move left"),
    "right": ("moves right", "move right"),
    "up": ("moves up", "move up"),
    "down": ("moves down", "move down"),
    "appears": ("appears", "appear"),
    "grows": ("grows", "grow"),
}
ANSWER_TYPES = {
    "color": "what color", "shape": "what shape", "action": "what does", "does": "yes/no", "count": "how many"
}  # fmt: skip
QUESTION_WEIGHTS = {"color": 0.24, "shape": 0.2, "action": 0.36, "does": 0.13, "count": 0.07}


def _name(actor: Actor, wording: Wording) -> str:
    return f"{wording.word(actor.color)} {wording.word(actor.shape)}"


def captions(clip: Clip, wording: Wording, count: int, rng: np.random.Generator) -> list[str]:
    """Write ``count`` captions of different patterns."""
    patterns = wording.clips_beside if clip.other else wording.clips
    values = {"a": article(_name(clip.actor, wording))}
    if clip.other:
        values["b"] = article(_name(clip.other, wording))
    chosen = rng.permutation(len(patterns))[:count]
    return [patterns[k].format(does=pick(rng, wording.actions[clip.action]), **values) for k in chosen]


def questions(
    clip: Clip, wording: Wording, count: int, rng: np.random.Generator
) -> list[tuple[str, str, dict[str, float]]]:
    """Ask ``count`` questions of different kinds: (kind, question, answers with confidences)."""
    kinds, weights = list(QUESTION_WEIGHTS), list(QUESTION_WEIGHTS.values())
    rows = []
    for i in rng.choice(len(kinds), size=count, replace=False, p=weights):
        actor = clip.actor
        if kinds[i] in ("color", "shape") and clip.other and rng.random() < 0.5:
            actor = clip.other
        asked = clip.action
        if kinds[i] == "does" and rng.random() < 0.5:
            asked = pick(rng, [a for a in ACTIONS if a != clip.action])
        answer = {
            "color": actor.color,
            "shape": actor.shape,
            "action": ACTION_WORDS[clip.action][0],
            "does": "yes" if asked == clip.action else "no",
            "count": "2" if clip.other else "1",
        }[kinds[i]]
        question = pick(rng, wording.clip_questions[kinds[i]]).format(
            thing=_name(actor, wording),
            color=wording.word(actor.color),
            shape=wording.word(actor.shape),
            verb=ACTION_WORDS[asked][1],
        )
        rows.append((kinds[i], question, {answer: 1.0}))
    return rows
