"""Evaluation metrics: the official scores, computed without Java unless METEOR or SPICE is asked for."""

from unival.metrics.accuracy import accuracy
from unival.metrics.answers import soft_answer_accuracy
from unival.metrics.caption import caption_scores, training_cider
from unival.metrics.cider import DocumentFrequencies, cider_d, read_frequencies
from unival.metrics.grounding import box_accuracy, box_iou, mean_average_precision
from unival.metrics.java import JavaError, JavaSettings
from unival.metrics.result import CaptionScores, Scores
from unival.metrics.tokenizer import ptb_tokenize
from unival.metrics.vqa import normalise_answer, vqa_accuracy

__all__ = [
    "CaptionScores",
    "DocumentFrequencies",
    "JavaError",
    "JavaSettings",
    "Scores",
    "accuracy",
    "box_accuracy",
    "box_iou",
    "caption_scores",
    "cider_d",
    "mean_average_precision",
    "normalise_answer",
    "ptb_tokenize",
    "read_frequencies",
    "soft_answer_accuracy",
    "training_cider",
    "vqa_accuracy",
]
