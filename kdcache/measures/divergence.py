"""Divergences compare all probabilities of student and teacher at T = 1: KL both ways, Jensen-Shannon, total variation.

They are exact on full soft labels. With a tail, `kl_to_teacher` is a sketch, as it is in training's validation, and the
others are lower bounds, see `nearest_teacher`. With a tail of one class they are exact too. KL(q || p) is infinite
where the teacher masks a class.
"""

from typing import Any

import torch
from torch import Tensor

from kdcache.measures.facts import Exactness, Facts, Group, Measure, mean_of
from kdcache.measures.nearest_teacher import even_tail_kl, nearest_teacher
from kdcache.measures.rows import FLOOR, Rows, count_of, floats_of

NOTHING = 1e-45  # a probability that f32 does not hold: a student may give it to a masked class


def _sums(rows: Rows) -> dict[str, Any]:
    """Rows below 0 by an error of arithmetic count as 0."""
    divergences = _of_all_classes(rows) if rows.teacher.COMPLETE else _of_topk(rows)
    sums = {name: count_of(floats_of(values.clamp_min(0.0)).sum()) for name, values in divergences.items()}
    return {"rows": count_of(rows.count), "inexact": count_of(rows.inexact), **sums}


def _of_all_classes(rows: Rows) -> dict[str, Tensor]:
    log_p, log_q, q = rows.log_p, rows.log_q, rows.q
    p = log_p.exp()
    divergences = _divergences(p, q, log_p, log_q)
    if rows.teacher.masked:
        masked_q = q[:, list(rows.teacher.masked)].sum(dim=-1)
        divergences["kl_from"] = torch.where(masked_q > NOTHING, torch.inf, divergences["kl_from"])
    return divergences


def _of_topk(rows: Rows) -> dict[str, Tensor]:
    pair = nearest_teacher(rows)
    impossible = (pair.log_p.isneginf() & (pair.log_q.exp() > NOTHING)).any(dim=-1)
    log_p, log_q = (values.masked_fill(values.isneginf(), FLOOR) for values in (pair.log_p, pair.log_q))
    divergences = _divergences(log_p.exp(), log_q.exp(), log_p, log_q)
    divergences["kl_from"] = torch.where(impossible, torch.inf, divergences["kl_from"])
    return {**divergences, "kl_to": even_tail_kl(rows)}


def _divergences(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> dict[str, Tensor]:
    """[B] each, of [B, O]."""
    ratio_of_logs = log_p - log_q
    kl_to = (p * ratio_of_logs).sum(dim=-1)
    log_m = ((p + q) / 2).log().clamp_min(FLOOR)
    return {
        "kl_to": kl_to,
        "least_kl_to": kl_to,
        "kl_from": -(q * ratio_of_logs).sum(dim=-1),
        "js": (p * (log_p - log_m) + q * (log_q - log_m)).sum(dim=-1) / 2,
        "tvd": (p - q).abs().sum(dim=-1) / 2,
    }


def _facts(unit: str, formula: str, source: str, topk: Exactness) -> Facts:
    return Facts(unit, formula, source, ("teacher",), topk)


GROUP = Group(
    needs=("teacher",),
    sums=_sums,
    measures={
        "kl_to_teacher": Measure(
            _facts("nats", "mean sum_c p_c log(p_c / q_c)", "Kullback & Leibler 1951; KL(p, q)", "sketch"),
            mean_of("kl_to"),
        ),
        "least_kl_to_teacher": Measure(
            _facts(
                "nats",
                "the same, of the nearest teacher that agrees with a top-k store",
                "see nearest_teacher.py",
                "bound",
            ),
            mean_of("least_kl_to"),
        ),
        "kl_from_teacher": Measure(
            _facts("nats", "mean sum_c q_c log(q_c / p_c)", "Kullback & Leibler 1951; KL(q, p)", "bound"),
            mean_of("kl_from"),
        ),
        "jensen_shannon": Measure(
            _facts("nats", "mean (KL(p, m) + KL(q, m)) / 2, m = (p + q) / 2; at most log 2", "Lin 1991", "bound"),
            mean_of("js"),
        ),
        "total_variation": Measure(
            _facts("probability", "mean sum_c |p_c - q_c| / 2", "standard", "bound"), mean_of("tvd")
        ),
    },
)
