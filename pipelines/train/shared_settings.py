"""Which settings students of one stream of batches must share, and which are a student's own."""

from collections.abc import Sequence

from kdcache.errors import InvalidInputError, MismatchError
from kdcache.pipelines.settings import TrainSettings

OWN = frozenset(
    {"run", "student", "student_set", "weights", "objective", "set", "w_ce", "w_kd", "temperature"}
    | {"calibration_store", "over_epochs", "kd_epochs", "then", "tail", "top_k", "combine", "ensemble_weights"}
    | {"optimizer", "lr", "momentum", "weight_decay", "schedule", "step_epochs", "step_factor", "warmup_epochs"}
    | {"ema", "precision", "checkpoint_steps"}
)
SHARED = tuple(name for name in TrainSettings.model_fields if name not in OWN)


def require_shared(settings: Sequence[TrainSettings]) -> None:
    """Raises MismatchError naming every setting that keeps two runs from sharing one stream of batches, and
    InvalidInputError where two write to one folder."""
    first = settings[0]
    for place, other in enumerate(settings):
        if other.run in {each.run for each in settings[:place]}:
            raise InvalidInputError(f"two runs write to {other.run}; give each a folder of its own")
        found = [(name, repr(getattr(first, name)), repr(getattr(other, name))) for name in apart([first, other])]
        if found:
            advice = "students that share a stream take the same batches: give them equal values, or train them apart"
            raise MismatchError("these runs cannot be trained together:", found, advice, (first.run, other.run))


def apart(settings: Sequence[TrainSettings]) -> list[str]:
    """Shared settings in which some of these runs differ."""
    return [name for name in SHARED if any(getattr(each, name) != getattr(settings[0], name) for each in settings)]
