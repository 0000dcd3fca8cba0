"""Rows that the peers of a model teach it: those of a pool which it has wrong and a peer right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kdcache.errors import InvalidInputError
from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights
from kdcache.pipelines.settings import ExtractSettings
from kdcache.pipelines.studies.bench import Bench
from kdcache.pipelines.studies.counterfactuals import counterfactuals, save
from kdcache.store.store import Store
from kdcache.training.saved_networks import spelled_out
from kdcache.views.sources import open_data
from kdcache.views.transforms import build_transform


def make_rows(
    bench: Bench, models: Sequence[str], answers: Sequence[str], pool: dict[str, Any], files: dict[str, list[Path]]
) -> None:
    """Write the rows that each model is given: those of the pool on which it is wrong and a peer is right, as that
    peer's counterfactuals and unchanged. A row comes from the first peer that is right, in an order of the model's own.
    """
    data = open_data(bench.data.spec, pool)
    right = np.stack([decisions(store) == data.labels for store in answers])
    transform, _ = build_transform(bench.data.transform, bench.data.transform_set)
    for number, (path, control) in enumerate(zip(files["counterfactual"], files["unchanged"], strict=True)):
        if path.exists() and control.exists():
            continue
        bench.pieces.progress("making counterfactuals", number, len(models))
        bench.pieces.stop.check("run the same command again to go on")
        taken, views, changed, labels = right[number].copy(), [], [], []
        for peer in np.random.default_rng(number).permutation(len(models)).tolist():
            chosen = np.flatnonzero(right[peer] & ~taken)
            if peer == number or not len(chosen):
                continue
            taken[chosen] = True
            rows = torch.stack([torch.as_tensor(transform(data.samples[index][0])) for index in chosen.tolist()])
            views.append(rows)
            changed.append(counterfactuals(network_of(models[peer], data.classes), rows))
            labels += data.labels[chosen].tolist()
        if not views:
            raise InvalidInputError(
                f"no model is right on a row of the pool that model {number} has wrong: there is nothing to teach; "
                "take more rows, or other networks"
            )
        save(control, torch.cat(views), labels)
        save(path, torch.cat(changed), labels)


def decisions(store: str) -> npt.NDArray[np.int64]:
    """The top class of each sample of a store's view 0, in the order of the data set."""
    opened = Store.open(store)
    classes = np.empty(opened.rows, dtype=np.int64)
    classes[opened.order] = opened.read(0, np.arange(opened.rows)).top_class
    return classes


def network_of(run: str, classes: int) -> torch.nn.Module:
    """The network of a run, in eval mode."""
    spelled = spelled_out(ExtractSettings(store="", data="", teacher=run))
    network = build_network(spelled.teacher, spelled.teacher_set, classes, "teacher")
    load_weights(network, spelled.weights, "teacher")
    return network.eval()
