"""A study file that runs in seconds."""

from __future__ import annotations

TINY = """
name: tiny
data:
  sources: [{reader: phantom, images: 40}]
  size: 32
teacher:
  encoder_depth: 3
  weights: none
  training: {epochs: 1}
student: {width: {int: [2, 6]}, depth: 2, convs_per_stage: 1}
distillation: {path: {choice: [none, logits]}}
training: {epochs: 2}
search: {trials: 3, startup_trials: 2, workers: 1}
"""
INLINE = TINY.replace("workers: 1", "executor: inline")
"""The same, trained in the process of the test."""
CONFIRMABLE = INLINE.replace("{choice: [none, logits]}", "logits") + "\nconfirm: {folds: 2, repetitions: 2}\n"
"""The same with distilled students only, and a small plan."""
