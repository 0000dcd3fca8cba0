"""Objectives: loss(student logits [B, C], batch) -> scalar. One idea a file."""

from kdcache.objectives.kd import KD

__all__ = ["KD"]
