"""Code of users in which something besides the sample decides a view: data sets of 600 pictures, and transforms."""

SETS = """
import os, random, time
import numpy as np
from PIL import Image
VALUES = np.random.RandomState(0).randint(0, 250, (600, 10, 10, 3)).astype("u1")
BORN = time.time_ns()
class Pictures:
    "Pictures of four classes, whose ids tell their number."
    class_names = ["a", "b", "c", "d"]
    def __init__(self):
        self.labels, self.ids = [index % 4 for index in range(600)], [f"number-{index}" for index in range(600)]
    def __len__(self): return 600
    def __getitem__(self, index): return Image.fromarray(self.values(index)), self.labels[index]
    def values(self, index): return VALUES[index]
class Counting(Pictures):
    "Other pictures after so many readings of this process."
    readings = 0
    def __init__(self, after=150):
        super().__init__()
        self.after = after
    def values(self, index):
        Counting.readings += 1
        return VALUES[index] if Counting.readings <= self.after else 255 - VALUES[index]
class Born(Pictures):
    def values(self, index):
        return VALUES[index] ^ np.random.RandomState(BORN % 2**32).randint(0, 99, (10, 10, 3), "u1")
class RandomFallback(Pictures):
    "One picture in three cannot be read, and another is taken."
    def values(self, index): return VALUES[random.Random().choice(range(600)) if index % 3 == 0 else index]
class Shuffled(Pictures):
    "The files as a set of their names gives them."
    def __init__(self):
        super().__init__()
        self.ids = list({name: None for name in set(self.ids)})
        self.labels = [int(name[7:]) % 4 for name in self.ids]
    def values(self, index): return VALUES[int(self.ids[index][7:])]
class Remembering(Pictures):
    "Decoded pictures are kept and handed out again, which is no harm."
    def __init__(self):
        super().__init__()
        self.kept = {}
    def __getitem__(self, index):
        return self.kept.setdefault(index, Image.fromarray(VALUES[index])), self.labels[index]
class Unreadable(Pictures):
    def __getitem__(self, index):
        if index % 20 == 7: raise OSError("cut short")
        return super().__getitem__(index)
"""
TRANSFORMS = """
import os, random, time
from pathlib import Path
import numpy as np, torch
from torch.utils.data import get_worker_info
calls, BORN, cache = 0, time.time_ns(), {}
def values(image, number):
    "The picture under noise of a number's own."
    noise = np.random.RandomState(number % 2**32).randint(0, 100, (3, 10, 10))
    return torch.from_numpy((np.asarray(image).transpose(2, 0, 1) // 2 + noise).astype("u1"))
def drawn(image): return values(image, random.getrandbits(32))
def plain(): return drawn
def counting(after=0):
    def transform(image):
        global calls
        calls += 1
        return drawn(image) if calls <= after else values(image, calls)
    return transform
def by_time(): return lambda image: values(image, time.monotonic_ns())
def by_start(): return lambda image: values(image, BORN)
def by_process(): return lambda image: values(image, os.getpid())
def by_worker(): return lambda image: values(image, 7 * (get_worker_info().id if get_worker_info() else 50))
def by_hash(): return lambda image: values(image, hash("view"))
def by_file(path):
    "A file that the transform itself changes, or another program."
    place = Path(path)
    text = place.read_text() if place.exists() else "0"
    place.write_text(str(int(text) + 1))
    return lambda image: values(image, int(text))
def by_rank(): return lambda image: values(image, int(os.environ.get("RANK", "9")))
def first_view():
    "The first view of each picture is kept for all later ones."
    return lambda image: cache.setdefault(image.tobytes(), drawn(image))
def own_generator():
    generator = np.random.default_rng()
    return lambda image: values(image, int(generator.integers(2**32)))
def rarely(share=0.05):
    "One view in twenty is drawn by a generator of its own."
    generator = np.random.default_rng()
    return lambda image: values(image, int(generator.integers(2**32))) if random.random() < share else drawn(image)
"""


CHANGING_FILE = """
def reading(path):
    number = int(Path(path).read_text())
    return lambda image: values(image, number)
"""
