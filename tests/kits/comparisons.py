"""Comparisons of synthetic answers: groups of runs with seeds, stores, a single run, hostile names, many classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, t

from kdcache.measures.facts import Value
from kdcache.pipelines.compare.comparison import Answers, Comparison, Group, Kind, Member, Picture, Spread

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

HOSTILE = (
    "</script><img src=x onerror=alert(1)>", r"$\alpha$ $unclosed", "evil\u202e\u2066txt",
    "nul\x00 \x1b[31m bell\x07",
    "\"><svg onload=alert(2)>", "{{ 7 * 7 }} {% raw %}", "猫" * 60, "a very long name " * 20, "lone \ud800",
    "&amp; <b>",
    'style="fill: #0a0b10"', "#0a0b10",
)  # fmt: skip
CLOTHES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
RECIPES = ("kd", "hint", "srrl", "dkd", "attention", "rkd", "crd", "nst", "simkd", "review")


def comparison(
    *,
    groups: int = 3,
    seeds: int = 3,
    rows: int = 600,
    class_names: Sequence[str] = CLOTHES,
    labelled: bool = True,
    pictures: int = 0,
    kind: Kind = "run",
    epochs: int = 12,
) -> Comparison:
    """Groups of members, the first being the baseline; member g of more skill than g - 1, the seeds around it."""
    rng = np.random.RandomState(7)
    classes = len(class_names)
    truth = rng.randint(0, classes, rows)
    hard = rng.normal(0, 1.0, (rows, classes))  # what makes rows hard, common to all
    labels = np.asarray(truth if labelled else np.full(rows, -1), np.int32)
    teacher_logits = hard + 1.0 * rng.normal(0, 1, (rows, classes)) + 4.4 * np.eye(classes)[truth]
    teacher = answers(2.0 * teacher_logits, teacher_logits.argmax(axis=1))
    best = np.asarray(teacher.decisions)
    made: list[Group] = []
    for number in range(groups):
        settings = {"objective": RECIPES[number % len(RECIPES)], "lr": round(0.1 / (1 + number // 3), 4)}
        members = []
        for seed in range(seeds):
            noise = rng.normal(0, 1.0 - 0.05 * (number % 8), (rows, classes))
            logits = 0.9 * teacher_logits + noise + 0.15 * hard
            own = answers((1.3 + 0.12 * number) * logits, best)
            members.append(
                Member(
                    name=f"{settings['objective']}-{number}-{seed}", place=f"runs/{number}/{seed}", kind=kind,
                    seed=seed, settings=settings, measures=measures(own, teacher, labels, classes, made, seed),
                    answers=own, curves=curves(number, seed, epochs if kind == "run" else 0),
                    bytes_a_row=22.9 * (1 + number % 3),
                )
            )  # fmt: skip
        made.append(group(f"objective {settings['objective']}, lr {settings['lr']}", settings, members, made))
    names = tuple(made[0].members[0].measures) if groups else ()
    result = Comparison(
        teacher_name="torchvision:resnet50", teacher=teacher,
        teacher_measures=measures(teacher, None, labels, classes, []),
        labels=labels, sample_ids=tuple(f"test/{row:06d}.png" for row in range(rows)),
        class_names=tuple(class_names), groups=tuple(made), baseline=made[0].name if made else "", measures=names,
        intervals="seeds" if seeds > 1 else "rows", data="fashion-mnist, split test",
        common={"epochs": epochs, "batch_size": 128, "student": "resnet18", "student_set": {"width": 32}},
        notes=("KL(q, p) is a lower bound: the store keeps the 10 largest logits of each row.",),
    )  # fmt: skip
    return replace(result, pictures=some_pictures(result, pictures))


def answers(logits: Floats, best: npt.NDArray[Any]) -> Answers:
    """Answers of logits [N, C]; best [N] are the teacher's decisions."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    at = np.clip(p[np.arange(len(p)), best], 1e-6, 1 - 1e-6)
    return Answers(
        decisions=np.asarray(p.argmax(axis=1), np.int32), confidence=np.asarray(p.max(axis=1), np.float32),
        at_teacher=np.asarray(np.log(at) - np.log1p(-at), np.float32),
    )  # fmt: skip


def measures(
    own: Answers, teacher: Answers | None, labels: Ints, classes: int, made: Sequence[Group], seed: int = 0
) -> dict[str, Value]:
    """Some of the catalogue's measures, as the tally would give them."""
    rows, hits = len(labels), own.decisions == labels
    values: dict[str, Value] = {}
    if (labels >= 0).all():
        recalls = tuple(float(hits[labels == y].mean()) if (labels == y).any() else None for y in range(classes))
        values["accuracy"] = Value(value=float(hits.mean()), unit="share", rows=rows, by_class=recalls)
        nll = float(-np.log(np.where(hits, own.confidence, 1 - own.confidence) + 1e-6).mean())
        values["nll"] = Value(value=nll, unit="nats", rows=rows)
        ece = abs(float(own.confidence.mean() - hits.mean()))
        values["ece"] = Value(value=ece, unit="share", rows=rows)
    if teacher is None:
        return values
    agreement = float((own.decisions == teacher.decisions).mean())
    values["agreement"] = Value(value=agreement, unit="share", rows=rows)
    distance = float(np.abs(own.at_teacher - teacher.at_teacher).mean()) / 10
    values["kl_to_teacher"] = _inexact(distance, "nats", rows, "sketch")
    values["kl_from_teacher"] = _inexact(1.2 * distance, "nats", rows, "bound")
    slope = float(np.polyfit(teacher.at_teacher, own.at_teacher, 1)[0])
    values["deviation_slope"] = Value(value=slope, unit="slope", rows=rows)
    if "accuracy" in values and made:
        right = made[0].members[seed].answers.decisions == labels
        lost, won = int((right & ~hits).sum()), int((hits & ~right).sum())
        p = float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
        values["lost_to_baseline"] = Value(value=lost / rows, unit="share", rows=rows)
        values["won_from_baseline"] = Value(value=won / rows, unit="share", rows=rows)
        values["mcnemar_baseline"] = Value(value=p, unit="p value", rows=rows)
    return values


def _inexact(value: float, unit: str, rows: int, exactness: Any) -> Value:
    return Value(value=value, unit=unit, rows=rows, exactness=exactness, inexact_rows=rows)


def group(name: str, settings: Mapping[str, Any], members: Sequence[Member], made: Sequence[Group]) -> Group:
    """A group with intervals over its members, paired with the first group by their order."""
    names = members[0].measures
    values = {name: [member.measures[name].value for member in members] for name in names}
    differences = {}
    if made:
        base = made[0].members
        pairs = {name: [m.measures[name].value - b.measures[name].value for m, b in zip(members, base, strict=True)]
                 for name in names if name in base[0].measures}  # fmt: skip
        differences = {name: spread(items) for name, items in pairs.items()}
    cells = {name: spread(items) for name, items in values.items()}
    return Group(name, dict(settings), tuple(members), cells, differences)


def spread(values: Sequence[float]) -> Spread:
    """The mean and its t interval; one value has one of a hundredth, as a bootstrap would give."""
    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / sqrt(n) if n > 1 else 0.01
    return Spread(mean, mean - half, mean + half, n)


def curves(number: int, seed: int, epochs: int) -> tuple[dict[str, Any], ...]:
    """Lines of metrics.jsonl; accuracy is measured every other epoch and at the end."""
    rng = np.random.RandomState(100 * number + seed)
    lines: list[dict[str, Any]] = []
    for epoch in range(epochs):
        loss = (2.2 - 0.1 * (number % 8)) * float(np.exp(-epoch / 4)) + 0.3 + 0.03 * rng.normal()
        line = {"epoch": epoch, "step": 100 * epoch, "lr": 0.1, "loss": loss, "seconds": 1.0}
        if epoch % 2 or epoch == epochs - 1:
            line["accuracy"] = 0.85 - 0.5 * float(np.exp(-epoch / 3)) + 0.006 * (number % 8) + 0.004 * rng.normal()
        lines.append(line)
    return tuple(lines)


def some_pictures(result: Comparison, count: int) -> tuple[Picture, ...]:
    """Rows that the baseline has right and another group wrong, or the reverse, as striped pictures of 28 x 28."""
    if not count:
        return ()
    first = {group.name: group.members[0].answers.decisions for group in result.groups}
    right = np.stack([decisions == result.labels for decisions in first.values()])
    flipped = np.flatnonzero((right != right[0]).any(axis=0))[:count]
    y, x = np.mgrid[0:28, 0:28]
    pictures = []
    for row in flipped:
        wave = 127 + 127 * np.sin((x * (1 + row % 5) + y * (row % 3)) / 4)
        pixels = np.repeat(wave.astype(np.uint8)[:, :, None], 3, axis=2)
        decisions = {name: int(decisions[row]) for name, decisions in first.items()}
        teacher = int(result.teacher.decisions[row])
        pictures.append(Picture(result.sample_ids[row], int(result.labels[row]), pixels, decisions, teacher))
    return tuple(pictures)


def many_classes(count: int = 1000) -> tuple[str, ...]:
    """Names as ImageNet has them, some of them long."""
    return tuple(f"n{number:08d} thing, of the kind {number % 37}" for number in range(count))


def hostile() -> Comparison:
    """Every text that a stranger can choose is hostile."""
    plain = comparison(groups=2, seeds=3, rows=300, class_names=HOSTILE, pictures=4)
    evil = HOSTILE[0]
    renamed = []
    for number, one in enumerate(plain.groups):
        first = replace(one.members[0], name=f"{evil}{number}", place=HOSTILE[2], settings={evil: HOSTILE[1]})
        name, settings = f"{evil} {HOSTILE[1]}{HOSTILE[2]} {number}", {evil: HOSTILE[1], "lr": 0.1 * number}
        renamed.append(replace(one, name=name, settings=settings, members=(first, *one.members[1:])))
    pictures = tuple(replace(item, sample=evil, decisions={renamed[0].name: 1}, teacher=0) for item in plain.pictures)
    return replace(
        plain, groups=tuple(renamed), baseline=renamed[0].name, teacher_name=evil, data=HOSTILE[2], pictures=pictures,
        warnings=HOSTILE[:3], notes=HOSTILE[:3], common={evil: HOSTILE[2], "x": list(HOSTILE)},
    )  # fmt: skip


def without_rows() -> Comparison:
    """Runs that are compared by what their own validation measured: no teacher, no answers."""
    made, names = comparison(groups=3, seeds=3, rows=100), ("accuracy", "nll", "ece", "agreement")
    nothing = Answers(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))
    groups = tuple(
        replace(
            group,
            members=tuple(
                replace(member, answers=nothing, measures={name: member.measures[name] for name in names})
                for member in group.members
            ),
        )
        for group in made.groups
    )
    return replace(
        made, teacher_name="", teacher=nothing, teacher_measures={}, labels=np.zeros(0, np.int32), sample_ids=(),
        class_names=(), groups=groups, measures=names,
    )  # fmt: skip
