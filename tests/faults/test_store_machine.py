"""A machine of states: extract, kill, another writer, damage, verify, repair, add views, seal, pin, read, and a model.

The model is what each writer alone would write. Whatever happens, rows that are read are one writer's, whole, and those
of a committed block never change until it is repaired; what a seal listed is read as it was, or refused.
"""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kdcache.base.view_span import ViewSpan
from kdcache.errors import KdcacheError, MissingBlockError
from kdcache.store.store import Store
from kdcache.whole_store.verify import forget_blocks, inspect_files
from tests.kits.crash import Disk, Killed, on, remembered
from tests.kits.stores import Case, commit_logits, create_store, make_case

ROWS = 130  # three blocks: 64, 64, 2
BLOCKS = 3
WRITERS = 3  # the second has the first one's logits, the third other last bits
FULL = make_case(ROWS, 12, 3, views=4)
NOISE = np.random.RandomState(3).normal(0, 0.3, FULL.logits.shape).astype("f4")
LOGITS = (FULL.logits, FULL.logits, FULL.logits + NOISE)
Where = tuple[int, int]  # first view of a segment, and block


class StoreMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def begin(self) -> None:
        self.cache = remembered()
        self.cache.__enter__()
        self.folder = Path(tempfile.mkdtemp(prefix="kdcache-machine-"))
        self.path = self.folder / "a.kd"
        create_store(self.path, FULL)
        self.spans: dict[int, int] = {}
        self.read_before: dict[Where, bytes] = {}
        self.pins: dict[str, dict[Where, bytes]] = {}
        self.damaged: set[Where] = set()
        self.answers = [
            self.alone(f"writer-{writer}.kd", Case(FULL.identity, FULL.order, FULL.labels, LOGITS[writer]))
            for writer in range(WRITERS)
        ]

    def alone(self, name: str, case: Case) -> Store:
        """What one writer would write, undisturbed, a view in each segment."""
        store = create_store(self.folder / name, case)
        for view in range(len(case.logits)):
            segment = store.add_segment(ViewSpan(view, view + 1))
            for block in range(BLOCKS):
                commit_logits(store, segment, block, case.logits[view : view + 1])
        return store

    def rows(self, store: Store, where: Where) -> bytes:
        """All rows of a block, every view of its segment."""
        start, block = where
        positions = np.arange(64 * block, min(64 * block + 64, ROWS))
        loaded = [store.load(view, positions).arrays for view in range(start, self.spans[start])]
        return b"".join(each[name].tobytes() for each in loaded for name in sorted(each))

    @rule(views=st.integers(1, 2))
    def add_views(self, views: int) -> None:
        start = max(self.spans.values(), default=0)
        if start + views <= 4:
            Store.open_for_writing(self.path).add_segment(ViewSpan(start, start + views))
            self.spans[start] = start + views

    @precondition(lambda self: self.spans)
    @rule(writer=st.integers(0, WRITERS - 1), adopt=st.booleans(), at=st.integers(-30, 45), data=st.data())
    def extract(self, writer: int, adopt: bool, at: int, data: Any) -> None:
        """One block by one writer, who dies at one of its steps or lives (at < 0)."""
        start = data.draw(st.sampled_from(sorted(self.spans)))
        block = data.draw(st.integers(0, BLOCKS - 1))
        store = Store.open_for_writing(self.path)
        segment = store.segment_of(start)
        logits = LOGITS[writer][start : self.spans[start]]
        with on(Disk(max(at, -1))), suppress(Killed, KdcacheError):
            commit_logits(store, segment, block, logits, adopt=adopt, device=f"writer {writer}")

    @precondition(lambda self: self.read_before)
    @rule(data=st.data(), harm=st.sampled_from(["flip", "cut", "delete"]))
    def damage(self, data: Any, harm: str) -> None:
        where = data.draw(st.sampled_from(sorted(self.read_before)))
        layout = Store.open_for_writing(self.path).segment_of(where[0]).layout
        spec = data.draw(st.sampled_from(list(layout.arrays_of(where[1]).values())))
        file = self.path / spec.key(where[1])
        if file.exists():
            old = file.read_bytes()
            file.unlink()
            if harm != "delete" and old:
                at = data.draw(st.integers(0, len(old) - 1))
                file.write_bytes(old[:at] + (bytes([old[at] ^ 16]) + old[at + 1 :] if harm == "flip" else b""))
            self.damaged.add(where)

    @rule()
    def verify_and_repair(self) -> None:
        found = inspect_files(str(self.path)).findings
        blamed = {(int(each.block[0].split("-")[1]), each.block[1]) for each in found if each.block is not None}
        assert self.damaged & set(self.read_before) <= blamed, "verify does not see a damaged block"
        for where in forget_blocks(str(self.path), found):
            self.read_before.pop((int(where[0].split("-")[1]), where[1]), None)
        self.damaged.clear()
        again = [each for each in inspect_files(str(self.path)).findings if each.block is not None]
        assert again == []

    @rule()
    def seal(self) -> None:
        try:
            seal = Store.open_for_writing(self.path).seal()
        except MissingBlockError:
            return
        whole = {(start, block) for start in self.spans for block in range(BLOCKS)}
        assert whole <= set(self.read_before) | self.damaged
        self.pins[seal.content_id] = {where: self.read_before[where] for where in whole if where in self.read_before}

    @invariant()
    def committed_rows_are_one_writer_s_and_stay(self) -> None:
        if not self.spans:
            return
        store = Store.open_for_writing(self.path)
        for segment in store.segments:
            for block, commit in segment.commits().items():
                where = (segment.layout.views.start, block)
                try:
                    rows = self.rows(store, where)
                except KdcacheError:
                    assert where in self.damaged, f"{where} cannot be read, though nobody harmed it"
                    continue
                assert rows == self.read_before.setdefault(where, rows), f"{where} changed"
                assert commit.mixed or rows in {self.foretold(each, where) for each in range(WRITERS)}

    def foretold(self, writer: int, where: Where) -> bytes:
        """What one writer alone would have stored: the model."""
        return self.rows(self.answers[writer], where)

    @invariant()
    def pins_show_what_they_listed(self) -> None:
        for pin, listed in self.pins.items():
            store = Store.open(f"{self.path}@{pin}")
            for where, rows in listed.items():
                with suppress(KdcacheError):
                    assert self.rows(store, where) == rows, f"the seal {pin[:12]} shows other rows at {where}"

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)
            self.cache.__exit__(None, None, None)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
