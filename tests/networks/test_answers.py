"""Answers: classes are gathered by a map, probabilities become their logarithm, and what is neither is refused."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.encoding import Encoding
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.networks.answers import Answers, answered, are_probabilities, unit_sums
from kdcache.networks.small import convnet
from kdcache.networks.teacher import Teacher
from kdcache.store.store import Store
from tests.kits.views import Setting, extract_store, make_setting, picture_data, plan_of, teacher_of

ROWS, POSITIONS = 70, np.arange(70)
CLASS_MAP = (3, -1, 0, 8, -1, 1, 2, 7, 4, -1, 6)  # eleven classes of a network, eight of the data's nine: not 5


class Probabilities(nn.Module):
    """The convnet's softmax times `scale`."""

    def __init__(self, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.scale = convnet(width=4, channels=3, num_classes=classes), scale
        with torch.no_grad():
            self.inner[-1].weight *= 3000.0

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * torch.softmax(self.inner(images), dim=-1)

    def __getitem__(self, index: int) -> nn.Module:
        return self.inner[index]


def setting_of(teacher: Teacher, encoding: Encoding) -> Setting:
    return make_setting(picture_data(ROWS), teacher, plan_of("none", "none"), encoding)


def network_answers(setting: Setting) -> Tensor:
    """[N, classes of the network] as the network gives them."""
    images = torch.stack([setting.data.samples[index][0] for index in setting.order.tolist()])
    with torch.inference_mode():
        answers: Tensor = setting.teacher.network(setting.teacher.preparation(images))
    return answers


def test_a_gather_by_hand() -> None:
    answers = Answers("logits", (2, -1, 0), 4)
    assert answers.unreached == (1, 3)
    found = answers.logits(torch.tensor([[5.0, 6.0, 7.0]], dtype=torch.float16))
    assert found.dtype == torch.float32
    assert found.tolist() == [[7.0, -np.inf, 5.0, -np.inf]]
    assert answers.logits(torch.tensor([[5.0, torch.nan, 7.0]])).tolist() == found.tolist()  # nobody's class
    assert (Answers().unreached, Answers().logits(found).tolist()) == ((), found.tolist())
    with pytest.raises(InvalidInputError, match="class map has 3 entries, the network answered 4 classes"):
        answers.logits(torch.zeros(1, 4))


def test_probabilities_by_hand() -> None:
    rows = [
        [0.5, 0.5, 0.0],
        [1.0, 1e-20, 1e-12],
        [0.6, 0.6, -0.2],
        [0.2, 0.2, 0.2],
        [torch.nan, 1.0, 0.0],
        [1.0, 0.009, 0.0],
    ]
    found = Answers("probs").logits(torch.tensor(rows))
    least = float(np.log(np.float32(1e-12)))
    np.testing.assert_allclose(found[0], [np.log(0.5), np.log(0.5), least], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0.0, least, least], rtol=1e-6)
    assert found[2:5].isnan().all()
    assert found[5].isfinite().all()
    halves = torch.softmax(3 * torch.randn(100, 1000, generator=torch.Generator().manual_seed(0)), dim=-1)
    for dtype in (torch.float16, torch.bfloat16):  # their rounding is no reason to refuse them
        assert Answers("probs").logits(halves.to(dtype)).isfinite().all()


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_a_store_has_the_classes_of_the_data(tmp_path: Path, kind: Any) -> None:
    network = Probabilities(11) if kind == "probs" else convnet(width=4, channels=3, num_classes=11)
    teacher = teacher_of(network, channels=3, masked_classes=(7,), answers=Answers(kind, CLASS_MAP, 9))
    assert teacher.masked_classes == (5, 7)
    setting = setting_of(teacher, FullEncoding())
    path = tmp_path / "a.kd"
    store = extract_store(path, setting, views=1)
    assert (store.identity.teacher.class_map, store.identity.teacher.answers) == (CLASS_MAP, kind)
    assert Answers.of(Store.open(path).identity.teacher) == Answers(kind, CLASS_MAP, 9)
    given = network_answers(setting).double().numpy()
    if kind == "probs":
        given = np.log(np.maximum(given, 1e-12))
        assert (given == np.log(1e-12)).any()
    soft = store.read(0, POSITIONS)
    wanted = np.full((ROWS, 9), -np.inf)
    for network_class, data_class in enumerate(CLASS_MAP):
        if data_class not in (-1, 7):
            wanted[:, data_class] = given[:, network_class]
    wanted -= wanted.max(axis=1, keepdims=True)
    assert np.isneginf(soft.logits[:, [5, 7]]).all()
    known = [c for c in range(9) if c not in (5, 7)]
    wanted = wanted[:, known]
    assert np.abs(soft.logits[:, known] - wanted).max() <= 2.0**-10 * np.abs(wanted).max() + 1e-3
    again = extract_store(tmp_path / "b.kd", setting, views=1)
    assert again.content_id == store.content_id


def test_the_head_has_the_classes_of_the_data(tmp_path: Path) -> None:
    network = convnet(width=4, channels=3, num_classes=11)
    teacher = teacher_of(network, channels=3, answers=Answers(class_map=CLASS_MAP, classes=9))
    head = teacher.head_arrays()
    assert (head["weight"].shape, head["bias"].shape) == ((9, network[-1].in_features), (9,))
    assert not head["weight"][5].any()
    answer = teacher.answer(teacher.preparation(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))
    logits, features = answer.logits, answer.features
    assert features is not None
    from_head = features.numpy() @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(np.delete(from_head, 5, axis=1), np.delete(logits.numpy(), 5, axis=1), atol=1e-5)


@pytest.mark.parametrize("scale", [0.9, -1.0, float("nan")])
def test_answers_that_are_no_probabilities_name_their_samples(tmp_path: Path, scale: float) -> None:
    teacher = teacher_of(Probabilities(9, scale), channels=3, answers=Answers("probs"))
    with pytest.raises(
        BadLogitsError, match=r"answered no probabilities \(numbers from 0, of sum 1\) for 64 rows: sam"
    ):
        extract_store(tmp_path / "a.kd", setting_of(teacher, TopKEncoding(k=3)), views=1)


LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
FOUR = torch.zeros(4, 1, 2, 2)  # views
Named = namedtuple("Named", ["logits", "aux_logits"])


@dataclass
class Fields:
    logits: Tensor
    loss: Tensor | None = None


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        LOGITS.half(),
        SimpleNamespace(logits=LOGITS, hidden_states=None),
        Named(LOGITS, None),
        Fields(LOGITS),
        {"loss": None, "logits": LOGITS},
        OrderedDict(aux=LOGITS[:, :2], logits=LOGITS),
    ],
    ids=["tensor", "half", "object", "named tuple", "dataclass", "dict", "ordered dict"],
)
def test_logits_and_objects_that_hold_them_are_taken(output: Any) -> None:
    assert torch.equal(
        answered(output, FOUR, "teacher").float(), LOGITS.to(answered(output, FOUR, "teacher").dtype).float()
    )


REFUSED: list[tuple[Any, tuple[str, ...]]] = [
    (torch.zeros(4, 1), ("[4, 1], one number a row", "torch.zeros_like(z), z], dim=1")),
    (torch.zeros(4), ("[4], one number a row", "regression has no classes")),
    (torch.zeros(4, 3, 7, 7), ("[4, 3, 7, 7]", "map of places", "self.network(x).mean((2, 3))")),
    (torch.zeros(4, 3, 1, 1), ("[4, 3, 1, 1]", "self.network(x).flatten(1)")),
    (torch.zeros(4, 5, 3), ("[4, 5, 3]", "several times a picture", "self.network(x)[:, 0]")),
    (torch.zeros(2, 3), ("[2, 3]", "asked about 4 views")),
    (torch.zeros(4, 0), ("[4, 0]",)),
    (torch.zeros(4, 3, dtype=torch.int64), ("torch.int64", "numbers of classes are no logits")),
    (torch.zeros(4, 3, dtype=torch.bool), ("torch.bool",)),
    ((LOGITS, LOGITS), ("tuple of 2", "self.network(x)[0]")),
    ([LOGITS], ("list of 1", "self.network(x)[0]")),
    ({"out": LOGITS, "aux": LOGITS}, ("dict with out, aux", "self.network(x)['out']")),
    ({"logits": None, "out": LOGITS}, ("dict with logits, out", "self.network(x)['out']")),
    (SimpleNamespace(logits=None), ("SimpleNamespace",)),
    (SimpleNamespace(logits=torch.zeros(4, 3, 7, 7)), ("[4, 3, 7, 7]", "map of places")),
    (None, ("NoneType",)),
    (np.zeros((4, 3)), ("ndarray",)),
]


@pytest.mark.parametrize(("output", "parts"), REFUSED, ids=[parts[0] for _, parts in REFUSED])
@pytest.mark.parametrize("noun", ["teacher", "student"])
def test_other_answers_are_refused_with_the_wrapper_that_mends_them(
    output: Any, parts: tuple[str, ...], noun: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        answered(output, FOUR, noun)
    assert str(refused.value).startswith(f"the {noun} answered ")
    for part in parts:
        assert part in str(refused.value)


def test_the_wrapper_for_one_number_gives_the_sigmoid_s_distribution() -> None:
    z = torch.linspace(-4, 4, 5).reshape(-1, 1)
    both = torch.cat([torch.zeros_like(z), z], dim=1).softmax(dim=1)
    torch.testing.assert_close(both[:, 1:], z.sigmoid())


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 300), st.integers(1, 60), st.floats(0.01, 30), st.integers(0, 2**31 - 1),
    st.sampled_from(["float32", "float16", "bfloat16", "float64"]),
)  # fmt: skip
def test_softmax_is_known_by_its_rows_and_logits_are_not(
    classes: int, rows: int, scale: float, seed: int, dtype: str
) -> None:
    logits = scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probabilities = logits.softmax(dim=1).to(getattr(torch, dtype))
    if rows >= 4 or dtype in ("float32", "float64"):
        assert are_probabilities(unit_sums(probabilities))
    assert not are_probabilities(unit_sums(logits.log_softmax(dim=1)))
    assert not are_probabilities(unit_sums(probabilities * 0.5))
    if rows >= 4 and classes > 2:
        assert not are_probabilities(unit_sums(logits))


def test_one_row_that_is_no_distribution_makes_all_logits() -> None:
    rows = torch.rand(50, 2)
    rows[:, 1] = 1 - rows[:, 0]
    assert are_probabilities(unit_sums(rows))
    rows[17] = torch.tensor([1.5, -0.5])
    assert not are_probabilities(unit_sums(rows))
    rows[17] = torch.nan
    assert are_probabilities(unit_sums(rows))  # refused when it is written, by its sample
    assert not are_probabilities(unit_sums(torch.full((4, 3), torch.nan)))
