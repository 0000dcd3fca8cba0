"""A teacher's features and taps are asked again for some rows, and compared with those in the store.

Shape letters: R rows of a batch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.tap_names import FEATURES
from kdcache.errors import InvalidInputError
from kdcache.networks.live_answers import drawn_again
from kdcache.networks.teacher import Teacher
from kdcache.store.store import Store
from kdcache.views.draw import ViewDataset
from kdcache.views.mixing import mix_rows
from kdcache.whole_store.output_values import outputs_here
from kdcache.whole_store.verify import Check

BATCH = 64
AGAIN = 15  # rows of the first batch that are asked once more, alone
CONTROL_FACTOR = 4.0
ROUNDING = 2.0**-10  # of the largest number, twice what f16 rounds by

Array = npt.NDArray[Any]


def compare_outputs(store: Store, dataset: ViewDataset, teacher: Teacher, view: int, positions: IntArray) -> Check:
    """Compare features and taps of some positions of a view with the teacher's.

    The tolerance of each is the rounding of f16 at its largest number, plus four times the difference between the
    teacher's outputs for the same rows in two batches."""
    segment = store.segment_of(view)
    names = outputs_here(segment)
    absent = f"; not asked: taps {', '.join(segment.left_out_taps)}, which were left out" if segment.left_out else ""
    try:
        teacher.watch([name for name in names if name != FEATURES])
        control = _differences(
            _live(dataset, teacher, view, positions[:AGAIN], names),
            _live(dataset, teacher, view, positions[:AGAIN], names, AGAIN // 2),
        )
        worst, largest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        for start in range(0, len(positions), BATCH):
            rows = positions[start : start + BATCH]
            live = _live(dataset, teacher, view, rows, names)
            arrays = segment.read(view, rows, list(names.values())).arrays
            for name, difference in _differences({name: arrays[array] for name, array in names.items()}, live).items():
                worst[name] = max(worst[name], difference)
                largest[name] = max(largest[name], float(np.abs(live[name]).max()))
    except InvalidInputError as error:
        return Check(name="teacher outputs", passed=False, detail=str(error))
    limits = {name: ROUNDING * largest[name] + CONTROL_FACTOR * control[name] for name in names}
    wrong = [name for name in names if not worst[name] <= limits[name]]
    texts = [f"{name} {worst[name]:.2g} of {limits[name]:.2g}" for name in wrong or names]
    detail = f"{len(positions)} rows of view {view}, {len(wrong)} of {len(names)} outputs differ; largest difference "
    detail += f"and tolerance: {', '.join(texts)}{absent}"
    return Check(name="teacher outputs", passed=not wrong, detail=detail)


def _live(
    dataset: ViewDataset,
    teacher: Teacher,
    view: int,
    positions: IntArray,
    names: dict[str, str],
    forward_rows: int | None = None,
) -> dict[str, Array]:
    """The teacher's outputs [R, ...] f32 by name, as extract asks it or by forwards of `forward_rows` rows."""
    parts: dict[str, list[Array]] = {name: [] for name in names}
    batch = forward_rows or BATCH
    for start in range(0, len(positions), batch):
        rows = positions[start : start + batch]
        drawn = drawn_again(dataset, view, rows)
        images = teacher.preparation(drawn.images[0])
        mixed = mix_rows(images, drawn.mixing[0], drawn.request.positions, len(rows), dataset.plan.mix)
        answer = teacher.answer(mixed) if forward_rows is None else teacher.answer_at_once(mixed)
        for name in names:
            values = answer.features if name == "features" else answer.taps[name]
            if values is None:
                raise InvalidInputError("the teacher gives no pooled features before a linear head")
            parts[name].append(values.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _differences(a: dict[str, Array], b: dict[str, Array]) -> dict[str, float]:
    """The largest absolute difference of each output; infinite where shapes differ."""
    return {
        name: float(np.abs(a[name].astype(np.float32) - b[name]).max()) if a[name].shape == b[name].shape else np.inf
        for name in a
    }
