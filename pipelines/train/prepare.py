"""The preparation of a training: inputs, the student with its objective, loaders, and then the claimed run."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcache.base.devices import chosen_device
from kdcache.base.launch import launched
from kdcache.base.progress import Progress, silent
from kdcache.errors import InvalidInputError
from kdcache.networks.simkd import SimKDStudent
from kdcache.objectives.batch import Batch
from kdcache.objectives.joined import AnyObjective, wrapped
from kdcache.objectives.tap_pairs import Sizes
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.class_matching import class_notes, require_learnable, require_same_labels
from kdcache.pipelines.train.curriculum import chosen_curriculum
from kdcache.pipelines.train.first_answers import mode_notes, require_answers
from kdcache.pipelines.train.longer import why_not_longer
from kdcache.pipelines.train.objective import build_objective, chosen_temperature
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.selection import add_selection
from kdcache.pipelines.train.sizes import sizes_of
from kdcache.pipelines.train.student import (
    build_student,
    example_views,
    inputs_of,
    require_reached,
    require_usable,
    train_loader,
)
from kdcache.pipelines.train.subclasses import student_subclasses, with_subclasses
from kdcache.pipelines.train.taken import Taken
from kdcache.pipelines.train.texts import require_logits_alone, require_no_parts_of_texts, require_of_texts
from kdcache.pipelines.train.training_state import Student, unweighed
from kdcache.pipelines.train.trust import chosen_trust, trust_notes
from kdcache.pipelines.train.unused_settings import unused_notes
from kdcache.pipelines.train.validating import held_out_loader, require_own_folder, validation_loader
from kdcache.store.lineage import SavedNetwork, weights_metadata
from kdcache.store.store import Store
from kdcache.training.batch_stream import BatchStream
from kdcache.training.joined_loader import (
    JoinedLoader,
    are_of_parts,
    joined_parts,
    require_joinable,
    require_one_process,
)
from kdcache.training.loader import Loader
from kdcache.training.loader_inputs import fitting
from kdcache.training.process_group import own_device
from kdcache.training.ranks import Ranks
from kdcache.training.run_claim import claimed_run
from kdcache.training.run_record import weights_apart
from kdcache.views.data import Data
from kdcache.views.other_data import data_words
from kdcache.views.sources import open_data

FREE = frozenset(  # settings that may change when a run goes on
    {"run", "data", "val_data", "store", "val_store", "calibration_store", "trust", "views"}
    | {"workers", "worker_start", "device", "checkpoint_steps", "keep_epochs", "accept_drift", "compile"}
    | {"view_cache", "decoded_cache", "view_cache_gb"}
)


@dataclass(frozen=True)
class Inputs:
    """Inputs that are opened once, however many students learn from them; `ranks` are the processes that train.

    `parts` are the stores' own data sets where they are disjoint parts of `data`; empty where all are of the whole.
    """

    device: str
    data: Data
    stores: list[Store]
    ranks: Ranks = field(default_factory=Ranks)
    parts: tuple[Data, ...] = ()

    @property
    def teachers(self) -> list[Store]:
        """A store of each teacher that students learn from: those of parts have one teacher."""
        return self.stores[:1] if self.parts else self.stores


@dataclass(frozen=True)
class Loaders:
    """The loaders of the training and the validation split, and of rows that terms are selected by; `record` holds the
    `inputs_of` each of them."""

    training: BatchStream
    validating: BatchStream | None
    record: dict[str, Any]
    selecting: BatchStream | None = None

    @property
    def all(self) -> list[BatchStream]:
        return [loader for loader in (self.training, self.validating, self.selecting) if loader is not None]

    def held_out_batches(self) -> tuple[Batch, ...]:
        """The rows that terms are selected by, drawn once and kept on the device: they are asked about again and
        again."""
        if self.selecting is None:
            return ()
        self.selecting.set_epoch(0)
        batches = tuple(batch for batch in self.selecting if len(batch.positions))
        self.selecting.close()
        return batches

    def close(self) -> None:
        """End the workers and threads of the loaders."""
        for loader in self.all:
            loader.close()


def open_inputs(settings: TrainSettings, ranks: Ranks | None = None, progress: Progress = silent) -> Inputs:
    """Open the device, data set and stores that the settings name. Raises InvalidInputError where `ranks` is None and
    several processes were started."""
    if ranks is None and (process_count := launched().world_size) > 1:
        raise InvalidInputError(
            f"{process_count} processes were started, which can train one student together; for several students start "
            "one process, without torchrun"
        )
    require_own_folder(settings)
    device = chosen_device(own_device(settings.device))
    data = open_data(settings.data, settings.data_set, labels=settings.labels, progress=progress)
    inputs = Inputs(device, data, [], ranks or Ranks())
    return with_stores(inputs, [Store.open(url) for url in settings.store], settings, progress)


def with_stores(inputs: Inputs, stores: list[Store], settings: TrainSettings, progress: Progress = silent) -> Inputs:
    """Inputs with these stores, of the whole data set or of disjoint parts of it. Raises MismatchError for a store of
    neither, with what was added or removed since."""
    require_same_labels(settings, inputs.data, stores)
    words = data_words(settings.data, settings.data_set)
    if are_of_parts(stores) and all(store.rows < len(inputs.data) for store in stores):
        require_no_parts_of_texts(stores)
        require_one_process(inputs.ranks.world_size)
        require_usable(stores, settings)  # of blocks that are not there yet no part is known
        require_joinable(stores, settings.views, settings.top_k)
        parts = joined_parts(stores, inputs.data, words, progress)
        return replace(inputs, stores=stores, parts=tuple(parts))
    data = fitting(stores, inputs.data, words=words, progress=progress)
    return replace(inputs, data=data, stores=stores)


def make_student(settings: TrainSettings, inputs: Inputs) -> Student:
    """Seed torch's generators, then build network and objective: so begins every new run. An objective that answers
    through a part of its own wraps the network."""
    require_usable(inputs.stores, settings)
    require_reached(settings)
    require_of_texts(settings, inputs.data)
    settings = with_subclasses(settings, inputs.stores)
    torch.manual_seed(settings.seed)
    temperature = chosen_temperature(settings, inputs.teachers)
    trust = chosen_trust(settings, inputs.data, inputs.teachers, inputs.stores)
    network, notes = build_student(settings, inputs.data, inputs.stores)
    notes += tuple(mode_notes(network))

    def sizes() -> Sizes:
        return sizes_of(
            network,
            example_views(settings, inputs.data, inputs.stores),
            inputs.teachers,
            weights=settings.ensemble_weights,
            subclasses=student_subclasses(settings, inputs.stores),
        )

    objective = build_objective(settings, inputs.teachers, temperature, sizes, trust=trust).to(inputs.device)
    require_learnable(objective, inputs.data)
    require_logits_alone(objective, inputs.data)
    add_selection(settings, inputs.data, objective)
    curriculum = chosen_curriculum(settings, inputs.data, inputs.stores, objective)
    notes += trust_notes(trust, inputs.data.class_names)
    network = wrapped(objective, network).to(inputs.device)
    weigh = unweighed if curriculum is None else curriculum.weighed
    return Student(settings, network, objective, temperature, notes, trust, weigh)


def open_loaders(settings: TrainSettings, inputs: Inputs, objectives: Sequence[AnyObjective] = ()) -> Loaders:
    """Open the loaders of the training and the validation split; the former hands on what these objectives take."""
    launch = inputs.ranks.launch
    build = partial(JoinedLoader, parts=inputs.parts) if inputs.parts else Loader
    taken = Taken.by(objectives, len(inputs.teachers))
    training = train_loader(settings, inputs.data, inputs.stores, inputs.device, launch, taken=taken, build=build)
    validating = validation_loader(settings, training, inputs.device, launch)
    selecting = held_out_loader(settings, training, validating, inputs.device, launch)
    by_split = {"train": training, "val": validating, "select": selecting}
    record = {name: inputs_of(loader) for name, loader in by_split.items() if loader is not None}
    return Loaders(training, validating, record, selecting)


def open_run(student: Student, inputs: Inputs, loaders: Loaders, stack: ExitStack) -> Run:
    """Claim the run's folder, and restore its checkpoint where there is one. No other process gets the folder while
    `stack` is open. Raises MismatchError for a folder of other settings, InvalidInputError for a folder in use and for
    a student that does not answer the classes."""
    settings, folder, ranks = student.settings, Path(student.settings.run), inputs.ranks
    subclasses = student_subclasses(settings, inputs.stores)
    classes = ranks.together(
        lambda: require_answers(student.network, inputs.data, loaders.all, settings.precision, subclasses)
    )
    record = run_record(settings, student.temperature, loaders.record, trust=student.trust)
    claim = claimed_run(
        folder,
        record,
        ranks,
        stack,
        in_step={"checkpoint_steps": settings.checkpoint_steps},
        why_not_longer=lambda epochs: why_not_longer(settings, student.objective, loaders.training, epochs),
    )
    state = claim.state
    loaders.training.settle_steps(None if state is None else "equal_steps" in state)
    class_names = inputs.data.class_names if len(inputs.data.class_names) == classes else ()
    metadata = weights_metadata(
        inputs.stores,
        start=settings.weights,
        class_names=class_names,
        network=_saved_network(student.network),
        subclasses=subclasses,
    )
    if state is None:
        run = Run.begin(student, loaders.training, metadata, ranks, claim.hold)
    else:
        run = Run.resume(student, loaders.training, metadata, state, ranks, claim.hold)
    run.notes += [
        *unused_notes(settings),
        *class_notes(settings, inputs.data, inputs.stores, student.objective),
        *_validation_notes(loaders),
    ]
    return run


def _saved_network(network: nn.Module) -> SavedNetwork | None:
    """The network that is saved, where it is not the student as the settings name it."""
    if not isinstance(network, SimKDStudent):
        return None
    return SavedNetwork(name="kdcache.networks:simkd", arguments=network.recipe())


def _validation_notes(loaders: Loaders) -> tuple[str, ...]:
    """Notes on the validation split, and one where nothing of it can be measured."""
    if loaders.validating is None:
        return ()
    notes = tuple(
        note if note.startswith("validation") else f"validation: {note}" for note in loaders.validating.data.notes
    )
    if loaders.record["train"]["dataset"] == loaders.record["val"]["dataset"]:
        notes += ("validation has the very samples of the training: its figures say nothing of other data",)
    if not loaders.validating.data.is_labelled and not loaders.validating.stores:
        notes += ("validation measures nothing: no row of it has a label, and there is no --val-store",)
    return notes


def run_record(
    settings: TrainSettings, temperature: float | None, inputs: dict[str, Any], *, trust: Sequence[float] = ()
) -> dict[str, Any]:
    """The content of a run's settings.json; a run goes on only where it is equal."""
    record = weights_apart(settings.as_recorded(without=FREE))  # `inputs` tell the transform of the validation
    by_class = {"trust": list(trust)} if trust else {}  # wherever the held-out store lies
    return {**record, **by_class, "temperature": temperature, "inputs": inputs}
