"""train: the needs that a term states are held against the stores before the first step, whatever its name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor

from kdcache.errors import KdcacheError
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import TERMS
from kdcache.objectives.facts import Facts
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from tests.kits import stages
from tests.kits.stages import Stage, metrics, student

stage = stages.stage


@dataclass(frozen=True)
class Toy:
    """KL at a temperature that is called warmth, of as many classes as `count` says."""

    facts: ClassVar[Facts] = Facts(topk="exact", w_ce=0.0, w_kd=1.0, asks_at=("warmth",), best="count")
    warmth: float = 2.0
    count: int = 2

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return targets.kl_of_logits(outputs.logits, self.warmth).mean()


@dataclass(frozen=True)
class Sharp(Toy):
    facts: ClassVar[Facts] = Facts(topk="exact", w_ce=0.0, w_kd=1.0, asks_at=(), zeros=False)


@dataclass(frozen=True)
class Headed:
    facts: ClassVar[Facts] = Facts(topk="exact", w_ce=0.0, w_kd=1.0, asks_at=(), needs=("head",))
    head: Tensor

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return outputs.logits.square().mean() * self.head.shape[0] / 10


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for term in (Toy, Sharp, Headed):
        monkeypatch.setitem(TERMS, term.__name__.lower(), term)


def settings(run: Path, name: str, **changes: Any) -> Any:
    return student(run, **{"objective": name, "temperature": None, **changes})


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "temperature": ("toy", {"set": {"warmth": 0.5}}, "temperature 0.5 was asked for; .*extract with --encoding full"),
    "ramp": ("toy", {"over_epochs": {"warmth": "0:4,1:0.25"}}, "temperature 0.25 was asked for"),
    "k": ("toy", {"set": {"count": 4}}, r"toy needs 4 classes, .*digits.kd gives 3; extract with --top-k 4"),
    "k'": ("toy", {"top_k": 1}, r"toy needs 2 classes, .*digits.kd gives 1; give --top-k 2"),
    "head": ("headed", {}, "headed needs the teacher's classifier, which .* does not hold; extract with --keep head"),
    "later": ("kd", {"then": ("1:toy,count=9",)}, "toy needs 9 classes, .* gives 3; extract with --top-k 9"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.usefixtures("toys")
def test_an_unmet_need_is_refused_with_the_flag_that_mends_it(stage: Stage, tmp_path: Path, name: str) -> None:
    objective, changes, message = REFUSALS[name]
    with pytest.raises(KdcacheError, match=message):
        train(settings(tmp_path / "run", objective, store=(stage.store,), **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("toys")
def test_masked_classes_are_refused_by_a_term_that_is_infinite_there(stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "masked.kd", mask_classes=(7,), views="1", min_accuracy=0.0))
    message = r"sharp is infinite where .* masks classes \[7\]; use skew-reverse-kl or jsd, which are finite"
    with pytest.raises(KdcacheError, match=message):
        train(settings(tmp_path / "run", "sharp", store=(str(tmp_path / "masked.kd"),)))


@pytest.mark.usefixtures("toys")
def test_terms_whose_needs_are_met_train(stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "head.kd", keep=("head",), views="1"))
    for name in ("toy", "headed"):
        train(settings(tmp_path / name, name, store=(str(tmp_path / "head.kd"),)))
        losses = [line["loss"] for line in metrics(tmp_path / name)]
        assert losses[1] < losses[0]
