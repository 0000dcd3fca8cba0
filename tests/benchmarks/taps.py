"""The costs of taps: steps from a store beside a live teacher, gathering maps beside np.memmap, extracting stages."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcache import Batch, Loader, Outputs, Store, extract, make_objective, open_data
from kdcache.networks.small import convnet
from kdcache.networks.taps import Tapped
from kdcache.objectives.catalogue import TAP_TERMS
from kdcache.objectives.joined import negatives, objectives_in, student_taps, teacher_taps, wrapped
from kdcache.pipelines.settings import ExtractSettings
from kdcache.pipelines.train.sizes import sizes_of
from kdcache.training.batch_order import BatchOrder
from kdcache.training.label_reading import LabelReading
from kdcache.training.loader_options import LabelOptions
from tests.benchmarks.features import DATA, KEEP, LAST_MAP, NETWORK, fashion_folder
from tests.benchmarks.harness import Bench, Figure, alternate, timed_ratio

TEACHER = {"width": 48, "depth": 2}
ROWS, BATCH, STEPS = 2048, 64, 12


def measure(bench: Bench) -> Iterator[Figure]:
    rows = 256 if bench.quick else ROWS
    torch.manual_seed(0)
    yield from _extraction(bench, rows)
    yield from _steps(bench, rows)
    yield _gathering(bench, Store.open(bench.scratch / "maps.kd"), rows)


def _asked(store: Path, rows: int, **changes: Any) -> ExtractSettings:
    given = {
        "store": str(store), "teacher": NETWORK, "teacher_set": TEACHER, "data": DATA, "min_accuracy": 0.0,
        "data_set": {"folder": fashion_folder(), "limit": rows}, "workers": 0, "device": "cpu",
    }  # fmt: skip
    return ExtractSettings.model_validate(given | changes)


def _extraction(bench: Bench, rows: int) -> Iterator[Figure]:
    """Extracting with --keep stages by extracting without."""

    def asking(name: str, **changes: Any) -> Callable[[], None]:
        def work() -> None:
            shutil.rmtree(bench.scratch / name, ignore_errors=True)
            extract(_asked(bench.scratch / name, rows, **changes))

        return work

    arms = {"stages": asking("stages.kd", keep="stages"), "plain": asking("plain.kd")}
    times = alternate(arms, bench.trials)
    yield timed_ratio(
        "Extracting with --keep stages by extracting without", times, "stages", "plain",
        setting=f"convnet of width 48, {rows} rows of 14 x 14, CPU",
    )  # fmt: skip
    extract(_asked(bench.scratch / "maps.kd", rows, keep=KEEP))


def _steps(bench: Bench, rows: int) -> Iterator[Figure]:
    """A step from the store by the same step with the teacher in the loop, of each objective."""
    store, data = Store.open(bench.scratch / "maps.kd"), open_data(DATA, {"folder": fashion_folder(), "limit": rows})
    teacher = convnet(**TEACHER).eval()
    live = Tapped(teacher, [LAST_MAP, "features"])
    for name in TAP_TERMS:
        network: nn.Module = convnet(width=6)
        objective = make_objective(name, sizes=sizes_of(network, torch.zeros(2, 1, 14, 14), [store]))
        network = wrapped(objective, network).train()
        tapped = Tapped(network, student_taps(objective))
        options = LabelOptions(taps=teacher_taps(objective, 1), negatives=negatives(objective))
        loader = Loader(data, [store], batch_size=BATCH, epochs=1, labels=options)
        batches = list(islice(loader, STEPS))
        loader.close()
        _fit(objective, tapped, batches)
        optimizer = torch.optim.SGD([*network.parameters(), *objective.parameters()], lr=1e-4)

        def step(batch: Batch, taken: Any = (objective, tapped, optimizer)) -> None:
            term, student, optimiser = taken
            loss: Tensor = term(Outputs.tapped(*student(batch.images)), batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        def stored(work: Any = step, every: Any = batches) -> None:
            for batch in every:
                work(batch)

        def alive(work: Any = step, every: Any = batches) -> None:
            for batch in every:
                with torch.no_grad():
                    answered = live(batch.images)[1]
                work(replace(batch, taps=({tap: answered[tap] for tap in batch.taps[0]},)))

        times = alternate({"stored": stored, "live": alive}, bench.trials)
        yield timed_ratio(
            f"A step of {name} from the store by one with the teacher in the loop", times, "stored", "live",
            setting="student convnet of width 6, teacher of width 48, 14 x 14, batch 64, CPU",
        )  # fmt: skip


def _fit(objective: Any, tapped: Tapped, batches: list[Batch]) -> None:
    for part in objectives_in(objective):
        if hasattr(part.term, "fit"):
            with torch.no_grad():
                part.term.fit((Outputs.tapped(*tapped(batch.images)), batch) for batch in batches)


def _gathering(bench: Bench, store: Store, rows: int) -> Figure:
    """Batches of a map from the view in memory by the same rows of np.memmap."""
    place = store.identity.encoding.taps[0].name
    maps = np.memmap(bench.scratch / "maps.f16", np.float16, "w+", shape=(rows, *store.identity.encoding.taps[0].shape))
    maps[:] = store.load(0, np.arange(rows), taps=[place]).tap(place)
    maps.flush()
    order = BatchOrder(
        positions=range(rows), rows=rows, plan=store.identity.plan, cycle=(0,), batch_size=BATCH, seed=0,
        block=store.segments[0].layout.block, window_rows=rows,
    )  # fmt: skip
    reading = LabelReading([store], order, LabelOptions(taps=((place,),)), epochs=1)
    batches = list(order.batches_from(0, 0, 1))
    file = np.memmap(bench.scratch / "maps.f16", np.float16, "r", shape=maps.shape)

    def from_store() -> None:
        for batch in batches:
            reading.taps(reading.rows(batch))

    def from_file() -> None:
        for batch in batches:
            torch.from_numpy(file[batch.positions])

    times = alternate({"store": from_store, "memmap": from_file}, bench.trials)
    reading.close()
    return timed_ratio(
        "Gathering batches of a map, with soft labels, by np.memmap of the map alone", times, "store", "memmap",
        setting=f"map of {'x'.join(map(str, maps.shape[1:]))} f16, {rows} rows, batch 64, CPU",
    )  # fmt: skip
