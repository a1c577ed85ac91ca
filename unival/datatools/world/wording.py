"""The words and sentence patterns of the sample world, in its usual wording and in another one.

Patterns are ``str.format`` strings. {a} {b} {c} are noun phrases with article ("a small red circle"), {p} {q}
the places of a and b ("in the top left"), {color} {shape} {thing} plain words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """Words for attributes (absent: the attribute's own name) and patterns for sentences."""

    words: dict[str, str]
    places: dict[str, str]
    one: tuple[str, ...]
    two: tuple[str, ...]
    three: tuple[str, ...]
    questions: dict[str, tuple[str, ...]]
    neutral: tuple[str, ...]
    actions: dict[str, tuple[str, ...]]
    clips: tuple[str, ...]
    clips_beside: tuple[str, ...]
    clip_questions: dict[str, tuple[str, ...]]
    events: dict[str, str]
    sounds: tuple[str, ...]
    sounds_two: tuple[str, ...]

    def word(self, attribute: str) -> str:
        return self.words.get(attribute, attribute)


BASE = Wording(
    words={},
    places={
        "top left": "in the top left",
        "top": "at the top",
        "top right": "in the top right",
        "left": "on the left",
        "center": "in the center",
        "right": "on the right",
        "bottom left": "in the bottom left",
        "bottom": "at the bottom",
        "bottom right": "in the bottom right",
    },
    one=(
        "{a} {p}",
        "there is {a} {p}",
        "the picture shows {a} {p}",
        "{a} {p} of the picture",
        "we can see {a} {p}",
    ),
    two=(
        "{a} {p} and {b} {q}",
        "there is {a} {p} and {b} {q}",
        "the picture shows {a} and {b}",
        "{a} {p} with {b} {q}",
        "we can see {a} and {b}",
        "{a} {relation} {b}",
    ),
    three=(
        "{a}, {b} and {c}",
        "there are {a}, {b} and {c}",
        "the picture shows {a}, {b} and {c}",
        "we can see {a}, {b} and {c}",
        "three objects: {a}, {b} and {c}",
    ),
    questions={
        "color": ("what color is the {shape}?", "what is the color of the {shape}?"),
        "shape": ("what shape is the {color} object?", "what is the {color} thing?"),
        "place": ("where is the {thing}?", "in which part of the picture is the {thing}?"),
        "count": ("how many objects are there?", "how many shapes are in the picture?"),
        "exists": ("is there {article_thing}?", "does the picture show {article_thing}?"),
        "size": ("what size is the {thing}?", "is the {thing} small or large?"),
        "tone": ("is the background light or dark?", "how bright is the background?"),
    },
    neutral=(
        "the {thing} is heavy",
        "the {thing} is made of wood",
        "the {thing} was drawn by a child",
        "the {thing} is very old",
        "somebody likes the {thing}",
    ),
    actions={
        "left": ("moves to the left", "slides left", "goes from right to left"),
        "right": ("moves to the right", "slides right", "goes from left to right"),
        "up": ("moves up", "rises to the top", "goes upwards"),
        "down": ("moves down", "sinks to the bottom", "goes downwards"),
        "appears": ("appears", "shows up", "comes into view"),
        "grows": ("grows", "gets bigger", "becomes larger"),
    },
    clips=("{a} {does}", "in the video {a} {does}", "we see how {a} {does}", "there is {a} that {does}"),
    clips_beside=(
        "{a} {does} and {b} stays still",
        "in the video {a} {does} near {b}",
        "{a} {does} while {b} does not move",
        "there is {a} that {does} and {b}",
    ),
    clip_questions={
        "color": ("what color is the {shape}?", "what is the color of the {shape}?"),
        "shape": ("what shape is the {color} object?", "what is the {color} thing?"),
        "action": ("what does the {thing} do?", "what happens to the {thing}?"),
        "does": ("does the {thing} {verb}?",),
        "count": ("how many objects are there?", "how many shapes are in the video?"),
    },
    events={
        "tone": "a {v} {p} tone",
        "rising": "a {v} {p} tone that rises",
        "falling": "a {v} {p} tone that falls",
        "slow beeps": "{v} {p} slow beeps",
        "fast beeps": "{v} {p} fast beeps",
        "noise": "a {v} {p} noise",
    },
    sounds=("{e}", "the sound of {e}", "we can hear {e}", "there is {e}"),
    sounds_two=("{e} and then {f}", "{e} followed by {f}", "first {e} and then {f}"),
)

OTHER = Wording(
    words={"circle": "disc", "square": "box", "small": "tiny", "large": "big", "center": "middle"},
    places={
        "top left": "near the upper left corner",
        "top": "along the upper edge",
        "top right": "near the upper right corner",
        "left": "along the left edge",
        "center": "right in the middle",
        "right": "along the right edge",
        "bottom left": "near the lower left corner",
        "bottom": "along the lower edge",
        "bottom right": "near the lower right corner",
    },
    one=(
        "an image featuring {a} {p}",
        "somebody painted {a} {p}",
        "one can make out {a} {p}",
        "{p} sits {a}",
    ),
    two=(
        "an image featuring {a} together with {b}",
        "somebody painted {a} {p} as well as {b} {q}",
        "{p} sits {a}, {q} sits {b}",
        "{b} accompanies {a}",
    ),
    three=(
        "an image featuring {a}, {b} plus {c}",
        "somebody painted {a}, {b} as well as {c}",
        "a group made of {a}, {b} plus {c}",
        "{c} accompanies {a} plus {b}",
    ),
    questions={
        "color": ("tell me which color the {shape} has", "the {shape} is painted in which color?"),
        "shape": ("tell me the form of the {color} item", "the {color} item has which form?"),
        "place": ("tell me where to find the {thing}", "whereabouts is the {thing}?"),
        "count": ("tell me the number of items", "count the items"),
        "exists": ("can one find {article_thing}?", "did somebody paint {article_thing}?"),
        "size": ("tell me how big the {thing} is", "the {thing} has which size?"),
        "tone": ("tell me whether the backdrop is light or dark", "what is the backdrop like?"),
    },
    neutral=(
        "the {thing} weighs a lot",
        "the {thing} is a wooden toy",
        "a small girl painted the {thing}",
        "the {thing} costs much money",
    ),
    actions={
        "left": ("travels leftwards", "drifts towards the left edge"),
        "right": ("travels rightwards", "drifts towards the right edge"),
        "up": ("climbs", "drifts towards the upper edge"),
        "down": ("drops", "drifts towards the lower edge"),
        "appears": ("pops up", "turns up suddenly"),
        "grows": ("swells", "increases in size"),
    },
    clips=("a clip of {a} which {does}", "watch {a}, it {does}", "{a} is seen and {does}", "now {a} {does}"),
    clips_beside=(
        "a clip of {a} which {does}, with {b} at rest",
        "watch {a}, it {does}, unlike {b}",
        "{b} rests as {a} {does}",
        "now {a} {does} beside {b}",
    ),
    clip_questions={
        "color": ("tell me which color the {shape} has",),
        "shape": ("tell me the form of the {color} item",),
        "action": ("tell me what becomes of the {thing}", "describe the motion of the {thing}"),
        "does": ("will the {thing} {verb}?",),
        "count": ("tell me the number of items", "count the items"),
    },
    events={
        "tone": "a {v} {p} hum",
        "rising": "a {v} {p} hum going up",
        "falling": "a {v} {p} hum going down",
        "slow beeps": "{v} {p} pips at a slow pace",
        "fast beeps": "{v} {p} pips at a fast pace",
        "noise": "a {v} {p} hiss",
    },
    sounds=("a recording of {e}", "listen to {e}", "{e} is audible", "someone plays {e}"),
    sounds_two=("a recording of {e}, later {f}", "{f} comes after {e}", "listen to {e}, later {f}"),
)


def wording_for(variant: str) -> Wording:
    """Return the wording of a variant of the world."""
    return OTHER if variant == "new_words" else BASE
