"""The data of a study: a training split of which rows are taken, rows held out from it, and a test split."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.whole_files import replacing
from kdcache.errors import InvalidInputError
from kdcache.pipelines.studies.settings import StudySettings
from kdcache.views.chosen_rows import ARGUMENTS
from kdcache.views.data import Data
from kdcache.views.data_parts import write_ids
from kdcache.views.readable import first_view
from kdcache.views.sources import open_data
from kdcache.views.transforms import PRESETS, build_transform

FASHION = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it
SIDE = 14  # of its pictures here: a quarter of the pixels, a quarter of the time
HELD_OUT = 10_000  # rows at the end of the training split that no network learns from, or a sixth of the split
TOY_TEACHER, TOY_STUDENT = 400, 100  # rows
SHUFFLED = ("fashion-mnist", "digits")  # whose first rows are as good as any


@dataclass(frozen=True)
class StudyData:
    """The data of a study.

    spec, train_set, test_set: as `open_data` takes them. train, test: the whole splits. shape: [ch, H, W] of a view.
    folder: where lists of rows are written. transform, transform_set: of every picture. rows: the rows that the user
    wants students to learn from, 0 for the study's own number. Of texts a row is a whole one.
    """

    spec: str
    train_set: dict[str, Any]
    test_set: dict[str, Any]
    train: Data
    test: Data
    shape: tuple[int, ...]
    folder: Path
    transform: str
    transform_set: dict[str, Any]
    rows: int = 0
    toy: bool = False

    @classmethod
    def open(cls, settings: StudySettings) -> "StudyData":
        """Open both splits. Raises InvalidInputError for a data set that a study cannot use, naming what it needs."""
        spec = settings.data or ("digits" if settings.toy else f"fashion-mnist:{FASHION}")
        if not settings.data and not settings.toy:
            require_fashion()
        require_whole(settings)
        both = {"side": SIDE, **settings.data_set} if spec.startswith("fashion-mnist:") else settings.data_set
        train_set = {**both, **(settings.train_set or _split(spec, ("train",), "--train-set"))}
        test_set = {**both, **(settings.val_set or _split(spec, ("test", "val"), "--val-set"))}
        train, test = open_data(spec, train_set), open_data(spec, test_set)
        for data, name in ((train, "training"), (test, "test")):
            if data.sequence == 1 and not (data.labels >= 0).all():
                raise InvalidInputError(
                    f"{int((data.labels < 0).sum())} of {len(data)} rows of the {name} split have no label; a study "
                    "needs all of them: make a data set of the others"
                )
        if len(train) < train.classes * 10:
            raise InvalidInputError(
                f"the training split has {len(train)} rows of {train.classes} classes; a study needs ten rows a class"
            )
        if train.identity() == test.identity():
            raise InvalidInputError("training and test split are the same rows: give --val-set another split")
        transform, _ = build_transform(settings.transform, settings.transform_set)
        shape = tuple(first_view(transform, train.samples, 0).shape)
        return cls(
            spec, train_set, test_set, train, test, shape, Path(settings.folder) / "rows", settings.transform,
            settings.transform_set, settings.rows, settings.toy,
        )  # fmt: skip

    @property
    def title(self) -> str:
        """The data as a sentence names them."""
        return f"Fashion-MNIST at {SIDE} x {SIDE}" if self.spec == f"fashion-mnist:{FASHION}" else self.spec

    @property
    def digest(self) -> str:
        """sha256 over the identities of both splits."""
        identities = [split.identity().model_dump(mode="json") for split in (self.train, self.test)]
        return hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()

    @property
    def own_transform(self) -> str:
        """The transform where it is the user's own, which must be named again beside a store; else empty."""
        return self.transform if self.transform not in PRESETS else ""

    @property
    def held_out_rows(self) -> int:
        """The number of rows that are held out."""
        return min(HELD_OUT, len(self.train.ids) // 6)

    def part(self, rows: int, *, teacher: bool = False, **arguments: Any) -> dict[str, Any]:
        """The arguments of the first so many training rows, or of as many as there are. `teacher`: rows of a teacher,
        whose number the user does not change. `arguments`: further ones, such as noise=0.3."""
        count = rows if teacher or not self.rows else self.rows
        if self.toy:
            count = min(count, TOY_TEACHER if teacher else TOY_STUDENT)
        stop = min(count, len(self.train.ids) - self.held_out_rows)
        return {**self.train_set, **self._range(0, stop), **arguments}

    def held_out(self, rows: int = HELD_OUT) -> dict[str, Any]:
        """The arguments of rows that are held out from the training split."""
        count = len(self.train.ids)
        start = count - self.held_out_rows
        return {**self.train_set, **self._range(start, min(start + rows, count))}

    def _range(self, start: int, stop: int) -> dict[str, Any]:
        """Rows by range where their order means nothing; else a list of them, drawn by a permutation that stays."""
        if self.spec.partition(":")[0] in SHUFFLED:
            return {"range": f"{start}:{stop}"}
        order = np.random.default_rng(0).permutation(len(self.train.ids))[start:stop]
        return {"rows": self.write_rows([self.train.ids[index] for index in np.sort(order).tolist()])}

    def write_rows(self, ids: list[str]) -> str:
        """Write a list of rows, named by what it holds, and return its path."""
        path = self.folder / f"{hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:8]}.txt"
        if not path.exists():
            with replacing(path) as temporary:
                write_ids(temporary, ids)
        return path.as_posix()


def require_whole(settings: StudySettings) -> None:
    """Raises InvalidInputError for arguments that choose rows: a study chooses them itself."""
    for flag in ("data_set", "train_set", "val_set"):
        if names := sorted(getattr(settings, flag).keys() & set(ARGUMENTS)):
            raise InvalidInputError(
                f"--{flag.replace('_', '-')} chooses rows by {', '.join(names)}, and a study takes rows of the whole "
                "split itself; leave that out, or make a data set of these rows"
            )


def require_fashion() -> None:
    """Raises InvalidInputError, with the way to get them, where Fashion-MNIST's files are not here."""
    if not Path(FASHION).is_dir():
        raise InvalidInputError(
            f"the studies' own data are not here: {FASHION} is no folder; on Debian: apt install "
            "dataset-fashion-mnist; or ask most studies on your own with --data, or see that one runs with --toy"
        )


def _split(spec: str, names: tuple[str, ...], flag: str) -> dict[str, Any]:
    """The argument that names a split. Raises InvalidInputError for a folder that has none of these."""
    kind, _, place = spec.partition(":")
    if kind != "folder":
        return {"split": names[0]}
    for name in names:
        if (Path(place) / name).is_dir():
            return {"split": name}
    raise InvalidInputError(
        f"{place} has no folder {' or '.join(names)}; a study trains on one split and judges on another: give {flag} "
        "split=NAME"
    )
