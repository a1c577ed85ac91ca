"""Captions, questions, referring expressions and hypotheses about a scene."""

from __future__ import annotations

from collections import Counter

import numpy as np

from unival.datatools.world.attributes import COLOURS, HELD_OUT, SHAPES, pick
from unival.datatools.world.scenes import Scene, Thing
from unival.datatools.world.wording import Wording

# Answer types of negative_sample/type2ans.json and how often each kind of question is asked.
ANSWER_TYPES = {
    "color": "what color",
    "shape": "what shape",
    "place": "where",
    "count": "how many",
    "exists": "yes/no",
    "size": "what size",
    "tone": "what background",
}
QUESTION_WEIGHTS = {
    "color": 0.25, "shape": 0.2, "place": 0.2, "count": 0.08, "exists": 0.15, "size": 0.07, "tone": 0.05
}  # fmt: skip


def article(phrase: str) -> str:
    """Put "a" or "an" in front."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def thing_name(thing: Thing, wording: Wording) -> str:
    """Return "red circle" in the words of ``wording``."""
    return f"{wording.word(thing.color)} {wording.word(thing.shape)}"


def _noun(thing: Thing, wording: Wording, sized: bool) -> str:
    name = thing_name(thing, wording)
    return article(f"{wording.word(thing.size)} {name}" if sized else name)


def _relation(first: Thing, second: Thing) -> str | None:
    if first.row < second.row:
        return "above"
    if first.column < second.column and first.row == second.row:
        return "to the left of"
    return None


def captions(scene: Scene, wording: Wording, count: int, rng: np.random.Generator) -> list[str]:
    """Write ``count`` captions of different patterns; things in reading order, the size named mostly."""
    patterns = {1: wording.one, 2: wording.two, 3: wording.three}[len(scene.things)]
    things = scene.things
    values: dict[str, str] = {"p": wording.places[things[0].place]}
    if len(things) > 1:
        values["q"] = wording.places[things[1].place]
        values["relation"] = _relation(things[0], things[1]) or ""
    usable = [x for x in patterns if "{relation}" not in x or values["relation"]]
    texts = []
    for k in rng.permutation(len(usable))[:count]:
        sized = len(things) < 3 and rng.random() < 0.7
        nouns = {key: _noun(thing, wording, sized) for key, thing in zip("abc", things, strict=False)}
        texts.append(usable[k].format(**nouns, **values))
    return texts


def questions(
    scene: Scene, wording: Wording, count: int, rng: np.random.Generator
) -> list[tuple[str, str, dict[str, float]]]:
    """Ask ``count`` questions of different kinds: (kind, question, answers with confidences)."""
    colours = Counter(thing.color for thing in scene.things)
    shapes = Counter(thing.shape for thing in scene.things)
    askable = [k for k in QUESTION_WEIGHTS if k not in ("color", "shape")]
    if single_shapes := [t for t in scene.things if shapes[t.shape] == 1]:
        askable.append("color")
    if single_colours := [t for t in scene.things if colours[t.color] == 1]:
        askable.append("shape")
    weights = np.array([QUESTION_WEIGHTS[k] for k in askable])
    asked = rng.choice(len(askable), size=count, replace=False, p=weights / weights.sum())
    rows = []
    for kind in (askable[i] for i in asked):
        thing = pick(rng, {"color": single_shapes, "shape": single_colours}.get(kind, list(scene.things)))
        name = thing_name(thing, wording)
        if kind == "exists" and (absent := rng.random() < 0.5):
            name = _absent_name(scene, wording, rng)
        answers = {
            "color": {thing.color: 1.0},
            "shape": {thing.shape: 1.0},
            "place": {thing.place: 1.0},
            "count": {str(len(scene.things)): 1.0},
            "exists": {"no" if kind == "exists" and absent else "yes": 1.0},
            "size": {"large": 1.0, "big": 0.6} if thing.size == "large" else {"small": 1.0},
            "tone": {scene.tone: 1.0},
        }[kind]
        pattern = pick(rng, wording.questions[kind])
        words = {"color": wording.word(thing.color), "shape": wording.word(thing.shape)}
        rows.append((kind, pattern.format(thing=name, article_thing=article(name), **words), answers))
    return rows


def _absent_name(scene: Scene, wording: Wording, rng: np.random.Generator) -> str:
    """Name a colour/shape pair that is not in the scene but shares colour or shape with something in it."""
    present = {(t.color, t.shape) for t in scene.things}
    thing = pick(rng, list(scene.things))
    alike = [(thing.color, s) for s in SHAPES] + [(c, thing.shape) for c in COLOURS]
    # the base world never speaks of held-out pairs: "absent" must not be what is learned about them
    unspoken = set() if present & HELD_OUT else HELD_OUT
    colour, shape = pick(rng, [pair for pair in alike if pair not in present | unspoken])
    return f"{wording.word(colour)} {wording.word(shape)}"


def referring(scene: Scene, thing: Thing, wording: Wording, rng: np.random.Generator) -> str:
    """Write an expression that fits only ``thing``."""
    name, size = thing_name(thing, wording), wording.word(thing.size)
    place = wording.places[thing.place]
    ways = [f"the {name}", f"the {name} {place}", f"the {size} {name}", f"{name} {place}"]
    if sum(t.shape == thing.shape for t in scene.things) == 1:
        ways.append(f"the {wording.word(thing.shape)}")
    if sum(t.color == thing.color for t in scene.things) == 1:
        ways.append(f"the {wording.word(thing.color)} object")
    return pick(rng, ways)


def hypothesis(scene: Scene, label: str, wording: Wording, rng: np.random.Generator) -> str:
    """Write a hypothesis whose relation to the picture is ``label``: entailment, neutral or contradiction.

    Contradictions include the neutral patterns about things that are not there, so that the words alone
    do not give the label away.
    """
    thing = pick(rng, list(scene.things))
    name = thing_name(thing, wording)
    if label == "neutral":
        return pick(rng, wording.neutral).format(thing=name)
    if label == "contradiction":
        name = _absent_name(scene, wording, rng)
        if rng.random() < 0.4:
            return pick(rng, wording.neutral).format(thing=name)
    return pick(
        rng,
        (f"there is {article(name)}", f"the picture shows {article(name)}", f"somewhere is {article(name)}"),
    )


def mismatched(scene: Scene, caption: str, wording: Wording, rng: np.random.Generator) -> str:
    """Return ``caption`` with one thing exchanged for one that is not in the scene."""
    thing = pick(rng, list(scene.things))
    old, new = thing_name(thing, wording), _absent_name(scene, wording, rng)
    for before, after in ((article(old), article(new)), (old, new)):
        if before in caption:
            return caption.replace(before, after, 1)
    raise AssertionError(f"'{caption}' does not name the {old}")
