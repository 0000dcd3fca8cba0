"""Objectives: make_objective(student logits [B, C], batch) -> scalar. One idea a file; `catalogue` names them all."""

from kdcache.objectives.catalogue import TERMS, describe, make_objective
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective, Phases, Term
from kdcache.objectives.ramps import Ramp
from kdcache.objectives.targets import Targets

__all__ = ["KD", "TERMS", "Objective", "Phases", "Ramp", "Targets", "Term", "describe", "make_objective"]
