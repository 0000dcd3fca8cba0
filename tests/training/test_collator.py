"""The collator for people who keep their trainer: the store's soft labels, or a refusal that names text and token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kdcache import Objective, SoftLabelCollator, Store
from kdcache.errors import InvalidInputError, ReplayError
from kdcache.objectives.kd import KD
from kdcache.pipelines.extract.stage import extract
from kdcache.training.loader import Loader
from tests.kits.stores import make_case, write_store
from tests.kits.texts import SEQUENCE, Library, reader


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def store(library: Library) -> Store:
    extract(library.asked(library.folder / "licence.kd"))
    return Store.open(library.folder / "licence.kd")


def features_of(library: Library) -> list[dict[str, object]]:
    tokens = library.data.samples.tokens
    return [{"row": row, "input_ids": torch.from_numpy(ids).long()} for row, ids in enumerate(tokens)]


def test_it_gives_what_the_loader_gives(library: Library, store: Store) -> None:
    features, objective, network = features_of(library), Objective(KD(1.0)), reader()
    for expected in Loader(library.data, [store], batch_size=8, epochs=1):
        texts = (store.order[expected.positions[:, 0]] // SEQUENCE).tolist()
        inputs = SoftLabelCollator(store)([features[text] for text in texts])
        batch = inputs["soft_labels"]
        assert torch.equal(inputs["input_ids"], expected.images)
        for name in ("images", "y", "mask", "positions"):
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name
        assert torch.equal(batch.teachers[0].logits, expected.teachers[0].logits)
        logits = network(batch.images)
        assert torch.equal(objective(logits, batch), objective(logits, expected))


def test_it_collates_in_a_torch_loader_under_any_key(library: Library, store: Store) -> None:
    loader = DataLoader(
        features_of(library), batch_size=16, shuffle=True, collate_fn=SoftLabelCollator(store, key="labels")
    )
    batches = list(loader)
    assert sum(len(batch["labels"].y) for batch in batches) == len(library.data.ids)
    assert set(batches[0]) == {"input_ids", "labels"}


def test_a_shorter_text_counts_as_far_as_it_goes(library: Library, store: Store) -> None:
    tokens = library.data.samples.tokens

    def padded(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        longest = max(len(feature["input_ids"]) for feature in features)
        rows = [torch.nn.functional.pad(f["input_ids"], (0, longest - len(f["input_ids"])), value=9) for f in features]
        return {"input_ids": torch.stack(rows)}

    features = [{"row": row, "input_ids": torch.from_numpy(tokens[row, : 20 - row]).long()} for row in (3, 5)]
    batch = SoftLabelCollator(store, padded)(features)["soft_labels"]
    assert batch.mask is not None
    assert batch.mask.sum(dim=1).tolist() == [17, 15]
    assert batch.y[0].tolist() == tokens[3, 1:18].tolist()
    assert batch.teachers[0].logits.shape == (2, 17, 6)


def test_other_texts_are_refused_by_name(library: Library, store: Store) -> None:
    features, collator = features_of(library), SoftLabelCollator(store)
    changed = features[4]["input_ids"].clone()  # type: ignore[attr-defined]
    changed[7] += 1
    with pytest.raises(ReplayError, match=r"text 4 is not the one that the teacher .* read, from token 7 \(id \d+\)"):
        collator([features[3], features[4] | {"input_ids": changed}])
    with pytest.raises(ReplayError, match=r"text 3 is not the one"):
        collator([features[4] | {"row": 3}])
    with pytest.raises(InvalidInputError, match=r"a feature has row None; give it the number of its text .* 0 to \d+"):
        collator([{"input_ids": features[3]["input_ids"]}])
    with pytest.raises(InvalidInputError, match=r"a feature has row 999; give it"):
        collator([features[4] | {"row": 999}])
    long = torch.zeros(SEQUENCE + 1, dtype=torch.int64)
    with pytest.raises(InvalidInputError, match=r"texts of 33 tokens were given, those of .*licence\.kd have 32"):
        collator([{"row": 0, "input_ids": long}])


def test_a_store_of_pictures_is_refused(tmp_path: Path) -> None:
    pictures = write_store(tmp_path / "a.kd", make_case(64))
    with pytest.raises(InvalidInputError, match=r"holds pictures; the collator is for texts: use the Loader"):
        SoftLabelCollator(pictures)


def test_numpy_ids_are_taken_too(library: Library, store: Store) -> None:
    row = np.int64(2)
    ids = library.data.samples.tokens[2].astype("i8")
    assert SoftLabelCollator(store)([{"row": row, "input_ids": ids}])["soft_labels"].y.shape == (1, SEQUENCE)


def test_padding_and_labels_of_its_own_are_minded(library: Library, store: Store) -> None:
    tokens = library.data.samples.tokens

    def at_the_left(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        rows = [torch.nn.functional.pad(f["input_ids"], (SEQUENCE - len(f["input_ids"]), 0)) for f in features]
        return {"input_ids": torch.stack(rows)}

    short = {"row": 3, "input_ids": torch.from_numpy(tokens[3, :20]).long()}
    with pytest.raises(
        InvalidInputError, match=r"does not begin with the tokens of text 3: its collate pads on the left"
    ):
        SoftLabelCollator(store, at_the_left)([short])
    ids, labels = tokens[4].astype("i8"), np.where(np.arange(SEQUENCE) < 10, -100, tokens[4])
    batch = SoftLabelCollator(store)([{"row": 4, "input_ids": ids.tolist(), "labels": labels}])["soft_labels"]
    assert batch.mask is not None
    assert batch.mask[0].tolist() == [False] * 9 + [True] * 22 + [False]  # token 9 foretells token 10
    mask = (np.arange(SEQUENCE) < 12).astype(int)
    batch = SoftLabelCollator(store)([{"row": 4, "input_ids": ids, "attention_mask": mask}])["soft_labels"]
    assert batch.mask is not None
    assert batch.mask[0].tolist() == [True] * 12 + [False] * 20
    with pytest.raises(InvalidInputError, match=r"padding before its tokens \(attention_mask 0\)"):
        SoftLabelCollator(store)([{"row": 4, "input_ids": ids, "attention_mask": mask[::-1].copy()}])
