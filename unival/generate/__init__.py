"""Generation: beam search, sampling, constraints, forced prefixes, ranking of given answers.

``generate(model, net_input, settings, constraint, prefix_tokens)`` and ``rank_candidates(...)`` are the two
entrances. They need of a model: ``encoder(**source)``, ``decoder.start/step/prefill``, ``state.reorder``;
ranking needs ``decoder.branch/output_layer`` and ``state.keep``.
"""

from unival.generate.answer_tree import AnswerTree
from unival.generate.constraints import parse_range, range_mask
from unival.generate.rank import rank_candidates
from unival.generate.run import generate
from unival.generate.settings import GenerationSettings, Hypothesis
from unival.generate.trie import Trie

__all__ = [
    "AnswerTree",
    "GenerationSettings",
    "Hypothesis",
    "Trie",
    "generate",
    "parse_range",
    "range_mask",
    "rank_candidates",
]
