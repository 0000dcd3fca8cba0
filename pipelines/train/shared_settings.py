"""Students of one stream of batches share the settings that make the batches; all others are a student's own."""

from collections.abc import Sequence

from kdcache.errors import InvalidInputError, MismatchError
from kdcache.pipelines.settings import TrainSettings

PER_STUDENT = frozenset(
    {"run", "student", "student_set", "weights", "objective", "set", "temperature", "compile"}
    | {"calibration_store", "trust", "curriculum", "select_steps", "select_rate", "over_epochs", "kd_epochs", "then"}
    | {"tail", "top_k", "combine", "ensemble_weights", "optimizer", "optimizer_set", "clip_grad", "accumulate"}
    | {"lr", "momentum", "weight_decay", "schedule", "step_epochs", "step_factor", "warmup_epochs"}
    | {"ema", "precision", "checkpoint_steps", "keep_epochs"}
)
SHARED = tuple(name for name in TrainSettings.model_fields if name not in PER_STUDENT)
"""Settings that decide which batches there are, in what order, and where."""


def require_shared(settings: Sequence[TrainSettings]) -> None:
    """Raises MismatchError naming every setting that keeps two runs from sharing one stream of batches, and
    InvalidInputError where two write to one folder."""
    first, folders = settings[0], [run.run for run in settings]
    for number, other in enumerate(settings):
        if other.run in folders[:number]:
            raise InvalidInputError(f"two runs write to {other.run}; give each a folder of its own")
        names = unequal_settings([first, other])
        if names:
            differences = [(name, repr(getattr(first, name)), repr(getattr(other, name))) for name in names]
            advice = "students that share a stream take the same batches: give them equal values, or train them apart"
            raise MismatchError("these runs cannot be trained together:", differences, advice, (first.run, other.run))


def unequal_settings(settings: Sequence[TrainSettings]) -> list[str]:
    """Shared settings in which some of these runs differ."""
    first = settings[0]
    return [name for name in SHARED if any(getattr(run, name) != getattr(first, name) for run in settings)]
