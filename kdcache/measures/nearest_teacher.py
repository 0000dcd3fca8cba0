"""The nearest teacher is, of all that agree with a top-k store, the one from which the student differs least.

A store tells the probabilities of the kept classes, the mass of the tail, and that no tail class exceeds the last kept
one. Every f-divergence between teacher and student is at its least where all tail classes have one ratio p / q = r, cut
at that limit. So one teacher serves KL, Jensen-Shannon and total variation alike, and its divergences bound those of
the true teacher from below (merging the classes of one ratio changes nothing). The limit is looked at for the student's
16 top classes alone; to drop it for the others can only lower the bound. Stored numbers are rounded, so a bound may
exceed a row's divergence by the error of quantising.

Measured (EfficientNet-lite0 on 240 photographs, k = 20 of 1000; the student is the teacher with noise of .05, .2, 1
and 3 nats): KL(p || q) is .0009, .0148, .375 and 3.24. The nearest teacher gives .0006, .0094, .247 and 2.34. A teacher
with an even tail gives .200, .213, .573 and 3.44: it says little of a student who is near its teacher. KL(q || p) is
.0009, .0148, .383 and 3.17, its bound .0006, .0094, .247 and 2.07; without the limit the last would be 1.2.

Shape letters: B rows, C classes, K kept classes, T top classes of the student, S = T + 1, O outcomes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdcache.labels.reduction import fill_at
from kdcache.labels.tail import SLACK
from kdcache.measures.rows import Rows


@dataclass(frozen=True)
class Pair:
    """Log-probabilities [B, O] in f64 over the same outcomes: the kept classes, the student's top classes that are cut
    at the limit, the rest of the tail, and the masked classes. -inf on both sides: no such outcome."""

    log_p: Tensor
    log_q: Tensor


def nearest_teacher(rows: Rows) -> Pair:
    """The pair of the student and the nearest teacher. It is worked out in logarithms: a sure student's tail is too
    small for a difference of probabilities."""
    teacher, kept = rows.teacher, rows.teacher.classes.to(torch.int64)
    outside_BC = fill_at(rows.log_q, kept, -torch.inf)
    masked_B1 = outside_BC.new_full((rows.count, 1), -torch.inf)
    if teacher.masked:
        ids = list(teacher.masked)
        masked_B1 = outside_BC[:, ids].logsumexp(dim=-1, keepdim=True)
        outside_BC[:, ids] = -torch.inf
    top_BT = outside_BC.gather(-1, rows.best_q).double().sort(dim=-1, descending=True).values
    others_B1 = fill_at(outside_BC, rows.best_q, -torch.inf).logsumexp(dim=-1, keepdim=True).double()
    rest_BS = torch.cat([others_B1, top_BT.flip(-1)], dim=-1).logcumsumexp(dim=-1).flip(-1)  # from each top class on
    tail_B1 = teacher.tail_log_prob(1.0)[:, None].double().exp()
    log_limit_B1 = rows.log_p[:, -1:].double() + SLACK
    cut_BT = _is_cut(top_BT, rest_BS, tail_B1, log_limit_B1)
    count_B1 = cut_BT.sum(dim=-1, keepdim=True)
    nothing = torch.full_like(tail_B1, -torch.inf)
    rest_p_B1 = (tail_B1 - count_B1 * log_limit_B1.exp()).clamp_min(0.0).log()
    log_p = [rows.log_p.double(), torch.where(cut_BT, log_limit_B1, -torch.inf), rest_p_B1, nothing]
    log_q_BK = rows.log_q.gather(-1, kept).double()
    log_q = [log_q_BK, top_BT.masked_fill(~cut_BT, -torch.inf), rest_BS.gather(-1, count_B1), masked_B1.double()]
    return Pair(torch.cat(log_p, dim=-1), torch.cat(log_q, dim=-1))


def _is_cut(top_BT: Tensor, rest_BS: Tensor, tail_B1: Tensor, log_limit_B1: Tensor) -> Tensor:
    """[B, T] True for the tail classes, by descending q, whose p would exceed the limit at the ratio of those from them
    on: each in turn, up to the first that does not. The last class of a tail is not cut.

    top_BT: log q of the classes. rest_BS [B, T + 1]: log of the sum of q from each of them on, and after all."""
    number = torch.arange(top_BT.shape[-1], device=top_BT.device, dtype=top_BT.dtype)
    rest_p = (tail_B1 - number * log_limit_B1.exp()).clamp_min(0.0).log()
    exceeds = (rest_p + top_BT > log_limit_B1 + rest_BS[:, :-1]) & rest_BS[:, 1:].isfinite()
    return exceeds.cumprod(dim=-1).bool()


def even_tail_kl(rows: Rows) -> Tensor:
    """[B] KL(p || q) in f64 with the tail's mass spread evenly over its classes, as training has it by default."""
    teacher, kept = rows.teacher, rows.teacher.classes.to(torch.int64)
    log_q_BK = rows.log_q.gather(-1, kept).double()
    log_p_BK = rows.log_p.double()
    kl = (log_p_BK.exp() * (log_p_BK - log_q_BK)).sum(dim=-1)
    if not teacher.tail_classes:
        return kl
    tail_log_q = rows.log_q.sum(dim=-1, dtype=torch.float64) - log_q_BK.sum(dim=-1)
    if teacher.masked:
        tail_log_q = tail_log_q - rows.log_q[:, list(teacher.masked)].double().sum(dim=-1)
    log_mass = teacher.tail_log_prob(1.0).double()
    mean_ratio = log_mass - math.log(teacher.tail_classes) - tail_log_q / teacher.tail_classes
    return kl + torch.where(log_mass.isfinite(), log_mass.exp() * mean_ratio, 0.0)
