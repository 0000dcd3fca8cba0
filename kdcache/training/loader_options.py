"""The loader's options: those of reading soft labels, and those of feeding images."""

from dataclasses import dataclass

from kdcache.base.arrays import IntArray
from kdcache.base.cache_options import UNCACHED, CacheOptions
from kdcache.base.tap_names import FEATURES
from kdcache.base.worker_start import DEFAULT_START, WorkerStart
from kdcache.store.plan import ViewPlan
from kdcache.views.transforms import Transform

DEFAULT_MEMORY = 4_000_000_000  # bytes of soft labels in memory, the view in use and the next one


@dataclass(frozen=True)
class LabelOptions:
    """Label options say how soft labels are read and compared.

    Attributes:
        top_k: The number of classes that soft labels keep, all of the store's by default.
        class_means: True to hand on the stores' class means, which tail "class-mean" needs.
        features: True to hand on the stores' features.
        taps: The names of the taps that are handed on, of each store, `features` among them where an objective asks for
            them; none by default.
        negatives: The number of rows that are drawn with each batch for objectives that contrast, with the stores'
            features.
        by_class: True to hand on the classes of teachers with subclasses.
        accept_drift: True to go on where the canary shows that pixels are a few levels off.
        memory_bytes: A view's soft labels and taps up to this size are in memory whole; above it blocks are shuffled.

    Examples:
        >>> loader = Loader(data, [store], batch_size=64, epochs=1, labels=LabelOptions(top_k=2))
        >>> next(iter(loader)).teachers[0].k
        2
    """

    top_k: int | None = None
    class_means: bool = False
    features: bool = False
    taps: tuple[tuple[str, ...], ...] = ()
    negatives: int = 0
    by_class: bool = False
    accept_drift: bool = False
    memory_bytes: int = DEFAULT_MEMORY

    def outputs_of(self, number: int) -> tuple[bool, tuple[str, ...]]:
        """True where features are read of a store by its number, and the names of its other taps that are read."""
        names = self.taps[number] if number < len(self.taps) else ()
        return self.features or FEATURES in names, tuple(name for name in names if name != FEATURES)


@dataclass(frozen=True)
class FeedOptions:
    """Feed options say how images are drawn and where they go.

    Attributes:
        workers: The number of processes that draw ahead; 0 draws each batch when it is asked for.
        device: The device of the batches, such as "cpu" or "cuda:1".
        mean: By channel, the mean of the normalisation; by default that of `default_normalisation` for u8 views. Floats
            are normalised only where mean and std are given.
        std: By channel, the standard deviation of the normalisation.
        plan: The view plan of a loader without stores.
        transform: The transform, only where the plan's is one of your own.
        order: [N] dataset index of each position, of a loader without stores.
        rank: The number of this process, which draws and reads its share of each batch, see `share_sizes`.
        world_size: The number of processes.
        worker_start: The way in which the worker processes begin.
        caches: Caches of the pixels of views, and of decoded samples; none by default.

    Examples:
        >>> feed = FeedOptions(plan=ViewPlan(transform=TransformSpec(name="none")))  # without stores
        >>> next(iter(Loader(data, batch_size=64, epochs=1, feed=feed))).images.shape
        torch.Size([60, 1, 8, 8])
    """

    workers: int = 0
    device: str = "cpu"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    plan: ViewPlan | None = None
    transform: Transform | None = None
    order: IntArray | None = None
    rank: int = 0
    world_size: int = 1
    worker_start: WorkerStart = DEFAULT_START
    caches: CacheOptions = UNCACHED
