"""Training from a cache of views: the same student, no picture but the store's, and a word on what it costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.cache_options import CacheOptions
from kdcache.errors import ReplayError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.sweep.names import point_name
from kdcache.pipelines.train.caching import cache_notes
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.train.together import train_together
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.data import Data
from kdcache.views.sources import open_data
from tests.kits import pictures
from tests.kits.pictures import ROWS, Gallery, write_pictures
from tests.views.test_never_the_wrong_picture import PROBED, names

gallery = pictures.gallery


def weights(run: Path) -> bytes:
    return (run / "weights/last.safetensors").read_bytes()


def test_a_cache_changes_no_student(gallery: Gallery, tmp_path: Path) -> None:
    """Without a cache, while it is filled, from a warm one, from decoded pictures; each run may go on otherwise."""
    cache = {"view_cache": str(tmp_path / "cache")}
    shares = {}
    for name, options in {
        "none": {}, "cold": cache, "warm": cache, "decoded": {"decoded_cache": str(tmp_path / "cache")},
    }.items():  # fmt: skip
        shares[name] = train(gallery.student(tmp_path / name, epochs=3, **options)).served
    assert len({weights(tmp_path / name) for name in shares}) == 1
    assert (shares["none"], shares["decoded"]) == (None, None)
    cold = shares["cold"]
    assert cold is not None
    assert 1 / 3 <= cold < 2 / 3  # the third epoch has the first one's views, which some rows were looked at in before
    assert shares["warm"] == 1.0
    assert train(gallery.student(tmp_path / "cold", epochs=3)).notes  # it was finished, under other caches


def test_extract_fills_the_cache_that_train_reads(gallery: Gallery, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    extract(gallery.asked(tmp_path / "store.kd", fill_view_cache=cache))
    settings = gallery.student(tmp_path / "run", store=(str(tmp_path / "store.kd"),), epochs=2, view_cache=cache)
    assert train(settings).served == 1.0
    together = [settings.model_copy(update={"run": str(tmp_path / f"run{number}"), "seed": 0}) for number in (1, 2)]
    assert [outcome.summary and outcome.summary.served for outcome in train_together(together)] == [1.0, 1.0]


def loader_of(gallery: Gallery, data: Data, cache: Path, **options: Any) -> Loader:
    feed = FeedOptions(caches=CacheOptions(views=str(cache), decoded=str(cache)))
    return Loader(data, [Store.open(gallery.store)], batch_size=45, epochs=2, feed=feed, **options)


def swapped(gallery: Gallery, folder: Path) -> Data:
    """The pictures, of which two that no probe looks at traded names: its cache has the same key."""
    write_pictures(folder)
    first, second = [names(folder)[row] for row in range(2, 60) if row not in PROBED and row % 2 == 0][:2]
    pixels = first.read_bytes(), second.read_bytes()
    first.write_bytes(pixels[1]), second.write_bytes(pixels[0])
    return open_data(f"folder:{folder}", {})


@pytest.mark.parametrize("workers", [0, 1])
def test_another_picture_in_the_cache_is_drawn_from_its_sample(gallery: Gallery, tmp_path: Path, workers: int) -> None:
    """Data set B filled the cache under the key that A has too: A's students learn from A's pictures all the same."""
    own, other = open_data(f"folder:{gallery.pictures}", {}), swapped(gallery, tmp_path / "other")
    assert own.identity() == other.identity()
    for _ in range(2):
        with pytest.raises(ReplayError, match="is another than"):  # drawn once, then served: refused by A's store
            list(loader_of(gallery, other, tmp_path / "cache"))
    fill(gallery, other, tmp_path / "cache")
    expected = [batch.images for batch in loader_of(gallery, own, tmp_path / "none")]
    for is_mended in (False, True):
        loader = loader_of(gallery, own, tmp_path / "cache")
        images = [batch.images for batch in loader]
        assert all(bool((one == another).all()) for one, another in zip(images, expected, strict=True))
        assert (loader.drawings[0].served == ROWS) is is_mended
        assert loader.drawings[0].distrusts is not is_mended
        assert [("other pictures" in note) for note in cache_notes(loader)] == [True] * (not is_mended)


def test_another_picture_among_decoded_ones_is_decoded_again(gallery: Gallery, tmp_path: Path) -> None:
    own, other = open_data(f"folder:{gallery.pictures}", {}), swapped(gallery, tmp_path / "other")
    fill(gallery, other, tmp_path / "cache")
    expected = [batch.images for batch in loader_of(gallery, own, tmp_path / "none")]
    for is_mended in (False, True):
        options = CacheOptions(decoded=str(tmp_path / "cache"))
        loader = Loader(own, [Store.open(gallery.store)], batch_size=45, epochs=2, feed=FeedOptions(caches=options))
        images = [batch.images for batch in loader]
        assert all(bool((one == another).all()) for one, another in zip(images, expected, strict=True))
        assert loader.drawings[0].distrusts is not is_mended


def test_a_transform_of_one_s_own_is_not_cached_as_a_preset() -> None:
    """Nor are decoded pictures served to one, which may read more of them than their pixels."""
    data = open_data("digits", {"limit": 64})
    for caches in (CacheOptions(views="unused"), CacheOptions(decoded="unused")):
        feed = FeedOptions(transform=lambda image: 255 - image, caches=caches)
        loader = Loader(data, batch_size=64, epochs=1, feed=feed)
        assert loader.drawings[0].dataset.caches.views is loader.drawings[0].dataset.caches.decoded is None
        assert "nothing is cached" in loader.drawings[0].dataset.caches.notes[0]


def test_what_is_struck_stops_no_word_on_the_cost(gallery: Gallery, tmp_path: Path) -> None:
    """Positions 0 and the last are among those that are tried, and neither can be read."""
    root = write_pictures(tmp_path / "pictures")
    order = Store.open(gallery.store).order
    for position in (0, ROWS - 1):
        names(root)[int(order[position])].write_bytes(b"no picture")
    data = {"data": f"folder:{root}", "on_bad_sample": "strike"}
    extract(gallery.asked(tmp_path / "store.kd", **data, fill_view_cache=str(tmp_path / "cache")))
    settings = gallery.student(
        tmp_path / "run", store=(str(tmp_path / "store.kd"),), data=f"folder:{root}", view_cache=str(tmp_path / "cache")
    )
    lines: list[str] = []
    assert train(settings, tell=lines.append).served == 1.0
    assert lines == []


def test_extract_says_that_a_cache_has_no_room(gallery: Gallery, tmp_path: Path) -> None:
    cache = {"fill_view_cache": str(tmp_path / "cache")}
    small = extract(gallery.asked(tmp_path / "a.kd", **cache, view_cache_gb=1e-6))
    assert [note for note in small.notes if "holds 0 of 2 files of views" in note]
    again = extract(gallery.asked(tmp_path / "a.kd", **cache))
    assert [note for note in again.notes if "what stood in the store was not drawn again" in note]
    assert not [note for note in extract(gallery.asked(tmp_path / "b.kd", **cache)).notes if "cache" in note]


def test_views_that_are_served_need_no_decoded_pictures(gallery: Gallery, tmp_path: Path) -> None:
    caches = {"view_cache": str(tmp_path / "cache"), "decoded_cache": str(tmp_path / "decoded")}
    extract(gallery.asked(tmp_path / "store.kd", fill_view_cache=caches["view_cache"]))
    summary = train(gallery.student(tmp_path / "run", store=(str(tmp_path / "store.kd"),), **caches))
    assert (summary.served, [note for note in summary.notes if "decoded" in note]) == (1.0, [])


def fill(gallery: Gallery, data: Data, cache: Path) -> None:
    """Keep all views of a data set, whatever a store says of them."""
    dataset = loader_of(gallery, data, cache).drawings[0].dataset
    from kdcache.base.view_span import ViewSpan
    from kdcache.views.view_stack import ViewRequest

    dataset.afresh()[ViewRequest(ViewSpan(0, 2), np.arange(ROWS))]


def test_nothing_is_cached_under_drift_that_is_accepted(gallery: Gallery, tmp_path: Path) -> None:
    data = open_data(f"folder:{gallery.pictures}", {})
    loader = loader_of(gallery, data, tmp_path, labels=LabelOptions(accept_drift=True))
    assert loader.drawings[0].dataset.caches.views is None
    assert "drift" in loader.drawings[0].dataset.caches.notes[0]


def test_without_a_store_pictures_count_by_size_and_time(gallery: Gallery, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pictures")
    settings = gallery.student(
        tmp_path / "a", store=(), data=f"folder:{root}", transform="imagenet", transform_set={"size": 16}, objective="",
        epochs=1, view_cache=str(tmp_path / "cache"),
    )  # fmt: skip

    def share(run: str, **changes: Any) -> float | None:
        return train(settings.model_copy(update={"run": str(tmp_path / run), **changes})).served

    first, second = share("a"), share("b")
    assert first is not None
    assert (first < 0.5, second) == (True, 1.0)
    write_pictures(tmp_path / "others", seed=1)
    path = names(root)[3]
    path.write_bytes((tmp_path / "others" / path.relative_to(root)).read_bytes())
    third, fourth = share("c"), share("d")
    assert (third, fourth) == (first, 1.0)


def test_what_nobody_can_check_is_not_cached(tmp_path: Path) -> None:
    settings = TrainSettings(
        run=str(tmp_path / "run"), data="tests.kits.views:pictures", data_set={"rows": 64}, epochs=1, workers=0,
        student="kdcache.networks:convnet", student_set={"channels": 3, "num_classes": 4}, device="cpu",
        view_cache=str(tmp_path / "cache"),
    )  # fmt: skip
    summary = train(settings)
    assert summary.served is None
    assert any("a data set of your own still gives what it gave" in note for note in summary.notes)
    assert not (tmp_path / "cache").exists()


def test_train_says_what_a_cache_costs_and_what_it_lacked(gallery: Gallery, tmp_path: Path) -> None:
    lines: list[str] = []
    cached = gallery.student(tmp_path / "a", epochs=4, view_cache=str(tmp_path / "cache"))
    train(cached, tell=lines.append)
    train(gallery.student(tmp_path / "b", epochs=4, view_cache=str(tmp_path / "cache")), tell=lines.append)
    assert [line.partition(",")[0] for line in lines] == [f"view cache: 2 views of {ROWS} samples"] * 2
    assert ["of which 100% are there" in line for line in lines] == [False, True]
    small = gallery.student(tmp_path / "c", epochs=4, view_cache=str(tmp_path / "small"), view_cache_gb=1e-6)
    (note,) = [note for note in train(small).notes if "small" in note]
    assert "holds 0 of 2 files of views, and has room for 0.0 MB of its 1e-06 GB" in note


def test_a_cache_that_is_not_named_is_told_where_it_saves_a_minute(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdcache.pipelines.train import caching

    def told(worth: float) -> list[str]:
        monkeypatch.setattr(caching, "WORTH", worth)
        lines: list[str] = []
        train(gallery.student(tmp_path / f"{worth}", epochs=4), tell=lines.append)
        return lines

    assert told(1e9) == []
    (line,) = told(0.0)
    assert line.startswith(f"2 views of {ROWS} samples: --view-cache FOLDER keeps them in 0.3 MB and saves ")


def test_caches_change_no_record_and_no_name(gallery: Gallery, tmp_path: Path) -> None:
    plain = gallery.student(tmp_path / "run")
    cached = gallery.student(tmp_path / "run", view_cache="a", decoded_cache="b", view_cache_gb=3.0)
    assert not plain.as_recorded(without=()).keys() & {"view_cache", "decoded_cache", "view_cache_gb"}
    assert point_name(plain, {}, tmp_path) == point_name(cached, {}, tmp_path)
