"""The identity of a data set is read once a start: it hashes all ids and labels and decodes 64 samples."""

from pathlib import Path

import pytest

from kdcache.base.user_files import load_file
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.views.data import PROBES

ROWS = 640
COUNTED = '''"""Pictures of one colour each; the data set counts how often each sample is read."""
import numpy as np


class Colours:
    reads = np.zeros(640, int)

    def __init__(self, bad=-1):
        self.labels, self.class_names, self.bad = np.arange(640) % 10, [str(i) for i in range(10)], bad

    def __len__(self):
        return 640

    def __getitem__(self, index):
        Colours.reads[index] += 1
        if index == self.bad:
            raise ValueError("cannot be read")
        return np.full((8, 8, 1), index % 256, dtype=np.uint8), int(self.labels[index])
'''


@pytest.mark.parametrize("bad", [-1, 0])
def test_a_start_of_training_reads_it_once(tmp_path: Path, bad: int) -> None:
    """With a struck sample too, where the data set is wrapped as the store knows it."""
    (file := tmp_path / "colours.py").write_text(COUNTED)
    data = {"data": f"{file}:Colours", "data_set": {"bad": bad}, "transform": "light", "workers": 0}
    store = str(tmp_path / "c.kd")
    net = {"width": 2, "num_classes": 10}
    strikes = {"on_bad_sample": "strike"} if bad >= 0 else {}
    words = {"teacher": "kdcache.networks:convnet", "teacher_set": net, "min_accuracy": 0.0, "top_k": 3, "views": "0:1"}
    extract(ExtractSettings.model_validate({"store": store, **words, **data, **strikes}))
    reads = load_file(str(file), "data").Colours.reads
    reads[:] = 0
    run = {"run": str(tmp_path / "run"), "student": "kdcache.networks:convnet", "student_set": {"width": 2}}
    train(TrainSettings.model_validate({**run, **data, "store": [store], "epochs": 1}))
    assert int((reads > 1).sum()) <= PROBES + 16  # those that are probed, and a few about which the student is asked
    assert reads.max() <= 4
    assert reads.sum() <= ROWS + PROBES + 32
