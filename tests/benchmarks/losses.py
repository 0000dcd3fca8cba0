"""KD from top-k soft labels against KD on dense targets: seconds and memory of a forward and backward pass.

Dense is `kl_div(log_softmax(z / T), p, reduction="batchmean") T^2` with p [B, C] given; building p from the store's
soft labels at each step is a second dense arm. Peak memory is the largest sum of live allocations that torch's profiler
sees during one pass, what exists before it (logits, labels, dense targets) not counted.

Other objectives are held against their authors' form on dense teacher logits at hand (`dense_forms`), at T = 2. What
malloc does counts at C 1,000: where it gives freed memory back to the system, each tensor of 1 MB costs 256 page
faults, and where it keeps it none. It keeps it in a process that has freed larger tensors, as a training has: so has
this one from its start.

The gradient of KL(p || softmax(z / T)) by z is (softmax(z / T) - p) / T in closed form, so that nothing of [B, C] is
made but the gradient; rows are worked on 131,072 numbers at a time, which stay in a core's cache. Keeping softmax from
the forward pass saves one of two exponentials and costs one [B, C]: left. `torch.compile` of an objective gave 0.84 of
the closed form's time at C 1,000 after half a minute of compiling: not offered. tvd, brier and logit-mse stay above 1.1
at C 1,000: some 40 operations of 2 to 5 us on small tensors, which decode a row's soft labels, are 0.2 to 0.3 ms a
step; an autograd function of one's own takes 32 us before it does anything.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torch.profiler import ProfilerActivity, profile

from kdcache.labels.reduction import reduce_topk
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.kd import KD
from kdcache.objectives.objective import Objective
from tests.benchmarks.dense_forms import FORMS, T
from tests.benchmarks.harness import Bench, Figure, alternate, exact, timed_ratio
from tests.kits.encoding import labels_of

SIZES = ((256, 1_000), (64, 32_000), (16, 128_000))
TOP_K = (20, 50)
TEMPERATURE, W_CE, W_KD = T, 0.1, 0.9
REPEATS = {1_000: 16, 32_000: 2, 128_000: 2}  # passes of a trial


def measure(bench: Bench) -> Iterator[Figure]:
    torch.set_num_threads(1)
    torch.zeros(2**23 - 2**10)  # 32 MB that are freed: from here on malloc keeps what is freed
    sizes = ((8, 200), (4, 400)) if bench.quick else SIZES
    for rows, classes in sizes:
        for k in TOP_K:
            yield from _compare(rows, classes, k, REPEATS.get(classes, 1), bench.trials)
    for rows, classes in sizes[:2]:
        yield from _against_official(rows, classes, REPEATS.get(classes, 1), bench.trials)


def _compare(rows: int, classes: int, k: int, repeats: int, trials: int) -> Iterator[Figure]:
    student, batch = _labels(rows, classes, k)
    arms = _arms(batch)
    runs = {name: partial(_passes, loss, student, repeats) for name, loss in arms.items()}
    times = alternate(runs, trials, clock="cpu")
    setting = f"C {classes:,}, k {k}, {rows} rows"
    yield timed_ratio("KD on top-k / on a dense target", times, "top-k", "dense", target=1.0, setting=setting)
    yield timed_ratio("CE + KD on top-k / on a dense target", times, "top-k + CE", "dense + CE", setting=setting)
    yield timed_ratio("KD on top-k / target built each step", times, "top-k", "dense built", setting=setting)
    peak = {name: peak_bytes(partial(_passes, loss, student, 1)) for name, loss in arms.items()}
    shown = {name: value / student.nbytes for name, value in peak.items()}
    yield exact(
        "memory of KD on top-k / on a dense target", peak["top-k"] / peak["dense"], "ratio", target=1.0,
        setting=setting, in_logits=shown,
    )  # fmt: skip
    yield exact("memory of KD on top-k, in tensors [B, C]", shown["top-k"], "tensors", setting=setting)


def _against_official(rows: int, classes: int, repeats: int, trials: int) -> Iterator[Figure]:
    student, batch = _labels(rows, classes, TOP_K[0])
    for name, form in FORMS.items():
        settings = {"w_ce": 0.0, "w_kd": 1.0} | ({} if name == "logit-mse" else {"temperature": T})
        objective = make_objective(name, settings)
        runs = {
            "top-k": partial(_passes, partial(objective, batch=batch), student, repeats),
            "official": partial(_passes, partial(form, t=batch.images), student, repeats),
        }
        times = alternate(runs, trials, clock="cpu")
        setting = f"C {classes:,}, k {TOP_K[0]}, {rows} rows"
        yield timed_ratio(
            f"{name} on top-k / its official form", times, "top-k", "official", target=1.1, setting=setting
        )


def _labels(rows: int, classes: int, k: int) -> tuple[Tensor, Batch]:
    """A student's random logits, and a batch whose images are the teacher's logits: their values make no work."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = (scale * torch.randn(rows, classes, generator=generator) for scale in (3.0, 1.0))
    kept = reduce_topk(teacher, torch.full((rows, 1), -1), k)
    soft = labels_of(kept, classes)
    y = torch.randint(0, classes, (rows,), generator=generator)
    return student, Batch(teacher, y, None, None, torch.arange(rows), 0, 0, 0, (soft,))


def _arms(batch: Batch) -> dict[str, Callable[[Tensor], Tensor]]:
    soft = batch.teachers[0]
    target = soft.dense(TEMPERATURE)
    alone, both = Objective(KD(TEMPERATURE), w_ce=0.0, w_kd=1.0), Objective(KD(TEMPERATURE), w_ce=W_CE, w_kd=W_KD)

    def dense(z: Tensor, p: Tensor) -> Tensor:
        return kl_div(torch.log_softmax(z / TEMPERATURE, dim=-1), p, reduction="batchmean") * TEMPERATURE**2

    return {
        "top-k": lambda z: alone(z, batch),
        "dense": lambda z: dense(z, target),
        "dense built": lambda z: dense(z, soft.dense(TEMPERATURE)),
        "top-k + CE": lambda z: both(z, batch),
        "dense + CE": lambda z: W_CE * cross_entropy(z, batch.y) + W_KD * dense(z, target),
    }


def _passes(loss: Callable[[Tensor], Tensor], student: Tensor, repeats: int) -> None:
    for _ in range(repeats):
        leaf = student.detach().requires_grad_()
        loss(leaf).backward()


def peak_bytes(work: Callable[[], None]) -> int:
    """Largest sum of allocations that are alive at the same time during `work`, those made before it not counted."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    found = [each for each in seen.profiler.kineto_results.events() if each.name() == "[memory]"]
    alive = peak = 0
    for each in sorted(found, key=lambda event: event.start_ns()):
        alive += each.nbytes()
        peak = max(peak, alive)
    return peak
