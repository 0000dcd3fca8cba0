"""Every objective once more, dense and in float64, from the equations of the papers: nothing of kdcache is in here.

A reference is f(s, teacher, case) -> loss, with student logits s [N, C], a teacher that answers for any temperature,
and the case's labels and settings. Shape letters: N rows, C classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.kits.dense_teacher import Case, Teacher, by_label, cross_entropy, hard, kl


def kd(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Hinton et al. 2015, section 2: soft targets at T, times T^2, the entropy included."""
    T = case.temperature
    return T**2 * kl(teacher.log_p(T), torch.log_softmax(s / T, dim=-1)).mean()


def hard_teacher(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Touvron et al. 2021 (DeiT), hard-label distillation."""
    return cross_entropy(torch.log_softmax(s, dim=-1), teacher.best(1, 1.0)[0][:, 0]).mean()


def label_smoothing(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Szegedy et al. 2016, section 7: q' = (1 - eps) onehot + eps / C."""
    even = -torch.log_softmax(s, dim=-1).sum(dim=-1) / s.shape[-1]
    return (1.0 - case.epsilon) * hard(s, case) + case.epsilon * even.mean()


def confidence_penalty(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Pereyra et al. 2017, section 3: - beta H(q)."""
    return -case.beta * torch.distributions.Categorical(logits=s).entropy().mean()


def subclass(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Müller et al. 2020, the auxiliary loss: standardised logits over sqrt(T N), row by row and pair by pair."""
    rows = []
    for z in s:
        mean = sum(z) / len(z)
        deviation = (sum((one - mean) ** 2 for one in z) / len(z)) ** 0.5
        rows.append([(one - mean) / deviation / (case.temperature * len(z)) ** 0.5 for one in z])
    total = s.new_zeros(())
    for first in rows:
        similar = torch.stack(
            [sum((a * b for a, b in zip(first, other, strict=True)), s.new_zeros(())) for other in rows]
        )
        total = total + torch.log(similar.exp().sum()) - 1 / case.temperature - math.log(len(s))
    return case.beta * total / len(s)


def kd_pt(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Tang et al. 2020, KD-pt: p_y where it is, (1 - p_y) / (C - 1) elsewhere."""
    T, visible = case.temperature, teacher.visible

    def rows(y: Tensor, which: int) -> Tensor:
        p_y = teacher.label_log_p(T, y, which).exp().nan_to_num()[:, None]
        even = (1.0 - p_y) / (int(visible.sum()) - 1)
        p = torch.where(visible, even.expand_as(s), 0.0).scatter(-1, y[:, None], p_y)
        return kl(p.log(), torch.log_softmax(s / T, dim=-1))

    return T**2 * by_label(case, rows)


def kd_topk(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Tang et al. 2020, KD-topk: the k best probabilities stay, the others share the rest."""
    T, visible = case.temperature, teacher.visible
    classes, log_p = teacher.best(case.k, T)
    even = (1.0 - log_p.exp().sum(dim=-1, keepdim=True)) / (int(visible.sum()) - case.k)
    p = torch.where(visible, even.expand_as(s), 0.0).scatter(-1, classes, log_p.exp())
    return T**2 * kl(p.log(), torch.log_softmax(s / T, dim=-1)).mean()


def kd_sim(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Tang et al. 2020, KD-sim: softmax of rectified cosines of the classifier's rows to the power alpha, over beta."""
    T, w = case.temperature, case.head.double()

    def rows(y: Tensor, which: int) -> Tensor:
        cosine = torch.cosine_similarity(w[y][:, None], w[None], dim=-1)
        likeness = cosine.relu() ** case.alpha / case.beta
        absent = teacher.log_p(1.0).isneginf()  # a class that the teacher masks is no one's relation
        likeness = likeness.masked_fill(absent, -torch.inf)
        return kl(torch.log_softmax(likeness, dim=-1), torch.log_softmax(s / T, dim=-1))

    return T**2 * by_label(case, rows)


def dkd(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Zhao et al. 2022: alpha TCKD + beta NCKD, times T^2, ramped over the first epochs (counted from 1)."""
    T = case.temperature

    def parts(log_p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p_y = log_p.gather(-1, y[:, None])
        rest = log_p.scatter(-1, y[:, None], -torch.inf)
        return torch.cat([p_y, rest.logsumexp(dim=-1, keepdim=True)], dim=-1), torch.log_softmax(rest, dim=-1)

    def rows(y: Tensor, which: int) -> Tensor:
        binary_p, others_p = parts(teacher.log_p(T, y, which), y)
        binary_q, others_q = parts(torch.log_softmax(s / T, dim=-1), y)
        return case.alpha * kl(binary_p, binary_q) + case.beta * kl(others_p, others_q)

    ramp = min((case.epoch + 1) / case.warmup_epochs, 1.0) if case.warmup_epochs else 1.0
    return ramp * T**2 * by_label(case, rows)


def nkd(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Yang et al. 2023: -T_t log S_t - gamma T^2 sum_{i != t} N(T_i) log N(S_i), as their code has it."""
    T = case.temperature

    def rows(y: Tensor, which: int) -> Tensor:
        first = teacher.label_log_p(1.0, y, which).exp().nan_to_num() * cross_entropy(torch.log_softmax(s, dim=-1), y)
        without_p = teacher.log_p(T, y, which).scatter(-1, y[:, None], -torch.inf)
        without_q = (s / T).scatter(-1, y[:, None], -torch.inf)
        p, log_q = torch.softmax(without_p, dim=-1), torch.log_softmax(without_q, dim=-1)
        return first - case.gamma * T**2 * torch.where(p > 0, p * log_q, 0.0).sum(dim=-1)

    return by_label(case, rows)


def dist(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Huang et al. 2022: one less Pearson's r between rows and between columns; 1e-8 in the denominator: their code."""
    T = case.temperature
    p, q = teacher.log_p(T).exp(), torch.softmax(s / T, dim=-1)

    def r(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(dim=-1, keepdim=True), b - b.mean(dim=-1, keepdim=True)
        return (a * b).sum(dim=-1) / (a.square().sum(dim=-1).sqrt() * b.square().sum(dim=-1).sqrt() + 1e-8)

    return T**2 * (case.beta * (1.0 - r(p, q).mean()) + case.gamma * (1.0 - r(p.T, q.T).mean()))


def logit_standardisation(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Sun et al. 2024: z-scores (std of n - 1, plus 1e-7, as in their code) instead of logits, then KD."""
    T, seen = case.temperature, s[:, teacher.visible]
    z = (s - seen.mean(dim=-1, keepdim=True)) / (seen.std(dim=-1, keepdim=True) + 1e-7)
    return T**2 * kl(teacher.log_p((teacher.scale() + 1e-7) * T), torch.log_softmax(z / T, dim=-1)).mean()


def mlld(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Jin et al. 2023: at each T the KL, and the squared Frobenius gaps of PP^T over N and of P^TP over C."""
    total = s.new_zeros(())
    for T in case.temperatures:
        p, q = teacher.log_p(T).exp(), torch.softmax(s / T, dim=-1)
        total = total + T**2 * kl(p.log(), torch.log_softmax(s / T, dim=-1)).mean()
        rows = torch.einsum("ac,bc->ab", p, p) - torch.einsum("ac,bc->ab", q, q)
        classes = torch.einsum("ra,rb->ab", p, p) - torch.einsum("ra,rb->ab", q, q)
        total = total + case.w_batch * rows.square().sum() / s.shape[0]
        total = total + case.w_class * classes.square().sum() / s.shape[1]
    return total


def ctkd(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Li et al. 2023, global temperature: KD at T = 1 + span sigmoid(theta)."""
    T = 1.0 + case.span / (1.0 + math.exp(-case.theta))
    return T**2 * kl(teacher.log_p(T), torch.log_softmax(s / T, dim=-1)).mean()


def ttm(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Zheng & Yang 2024, section 3: the teacher alone is tempered."""
    return kl(teacher.log_p(case.temperature), torch.log_softmax(s, dim=-1)).mean()


def wttm(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Zheng & Yang 2024, section 4: rows weighed by the power sum of the teacher's probabilities."""
    rows = kl(teacher.log_p(case.temperature), torch.log_softmax(s, dim=-1))
    return (teacher.log_power_sum(case.temperature).exp() * rows).mean()


def logit_mse(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Ba & Caruana 2014: half the squared distance of logits, both less their mean over the classes."""
    a, b = s[:, teacher.visible], teacher.logits()[:, teacher.visible]
    gap = (a - a.mean(dim=-1, keepdim=True)) - (b - b.mean(dim=-1, keepdim=True))
    return 0.5 * gap.square().sum(dim=-1).mean()


def reverse_kl(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Gu et al. 2024 (MiniLLM): KL(q || p)."""
    T = case.temperature
    return T**2 * kl(torch.log_softmax(s / T, dim=-1), teacher.log_p(T)).mean()


def symmetric_kl(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Half of Jeffreys' divergence (1946)."""
    return 0.5 * (kd(s, teacher, case) + reverse_kl(s, teacher, case))


def jsd(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Agarwal et al. 2024 (GKD): beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q."""
    T, beta = case.temperature, case.beta
    log_p, log_q = teacher.log_p(T), torch.log_softmax(s / T, dim=-1)
    log_m = (beta * log_p.exp() + (1.0 - beta) * log_q.exp()).log()
    return T**2 * (beta * kl(log_p, log_m) + (1.0 - beta) * kl(log_q, log_m)).mean()


def skew_kl(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Ko et al. 2024 (DistiLLM): KL(p || a p + (1 - a) q)."""
    T, a = case.temperature, case.skew
    log_p, q = teacher.log_p(T), torch.softmax(s / T, dim=-1)
    return T**2 * kl(log_p, (a * log_p.exp() + (1.0 - a) * q).log()).mean()


def skew_reverse_kl(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Ko et al. 2024 (DistiLLM): KL(q || (1 - a) p + a q)."""
    T, a = case.temperature, case.skew
    p, log_q = teacher.log_p(T).exp(), torch.log_softmax(s / T, dim=-1)
    return T**2 * kl(log_q, ((1.0 - a) * p + a * log_q.exp()).log()).mean()


def tvd(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Wen et al. 2023 (f-DISTILL): half the L1 distance."""
    T = case.temperature
    return T**2 * 0.5 * (teacher.log_p(T).exp() - torch.softmax(s / T, dim=-1)).abs().sum(dim=-1).mean()


def brier(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Brier 1950: the squared distance of probabilities."""
    T = case.temperature
    return T**2 * (teacher.log_p(T).exp() - torch.softmax(s / T, dim=-1)).square().sum(dim=-1).mean()


def adaptive_kl(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Wu et al. 2024: the head is the fewest best classes that hold mu; the gaps |p - q| there weigh the forward KL."""
    T = case.temperature
    log_p, log_q = teacher.log_p(T), torch.log_softmax(s / T, dim=-1)
    losses = []
    for p, lp, lq in zip(log_p.exp(), log_p, log_q, strict=True):
        gap = (p - lq.detach().exp()).abs().tolist()
        order = sorted(range(len(gap)), key=lambda c: -float(p[c]))
        mass, size = 0.0, 0
        while mass < case.mu:
            mass, size = mass + float(p[order[size]]), size + 1
        head, rest = sum(gap[c] for c in order[:size]), sum(gap[c] for c in order[size:])
        forward, backward = kl(lp, lq), kl(lq, lp)
        losses.append((head * forward + rest * backward) / (head + rest))
    return T**2 * torch.stack(losses).mean()


def taid(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """Shing et al. 2025: the target is the softmax of (1 - t) s' + t z, s' held constant."""
    between = torch.log_softmax((1.0 - case.t_start) * s.detach() + case.t_start * teacher.log_p(1.0), dim=-1)
    return kl(between, torch.log_softmax(s, dim=-1)).mean()


def double_distillation(s: Tensor, teacher: Teacher, case: Case) -> Tensor:
    """After Menon et al. 2020: sum_y p_y log(1 + sum_{c != y} (1 - p_c) exp(s_c - s_y)), literally."""
    p = teacher.log_p(1.0).exp()
    total = s.new_zeros(len(s))
    for y in range(s.shape[-1]):
        each = (1.0 - p) * (s - s[:, y : y + 1]).exp()
        total = total + p[:, y] * torch.log1p(each.sum(dim=-1) - each[:, y])
    return total.mean()


REFERENCES: dict[str, Callable[[Tensor, Teacher, Case], Tensor]] = {
    "kd": kd, "hard-teacher": hard_teacher, "label-smoothing": label_smoothing,
    "confidence-penalty": confidence_penalty, "subclass": subclass, "kd-pt": kd_pt, "kd-topk": kd_topk,
    "kd-sim": kd_sim, "dkd": dkd, "nkd": nkd, "dist": dist, "logit-standardisation": logit_standardisation,
    "mlld": mlld, "ctkd": ctkd, "ttm": ttm,
    "wttm": wttm, "logit-mse": logit_mse, "reverse-kl": reverse_kl, "symmetric-kl": symmetric_kl, "brier": brier,
    "jsd": jsd, "skew-kl": skew_kl, "skew-reverse-kl": skew_reverse_kl, "tvd": tvd, "adaptive-kl": adaptive_kl,
    "taid": taid, "double-distillation": double_distillation, "function-matching": kd,
}  # fmt: skip
