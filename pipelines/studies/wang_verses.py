"""Wang et al. 2022 on text, as the paper has it: kinds of knowledge are selected for a classifier of verses."""

from typing import Any

from kdcache.pipelines.studies.bench import Bench, Network
from kdcache.pipelines.studies.claims import Findings
from kdcache.pipelines.studies.study import Study
from kdcache.pipelines.studies.wang_selection import CLAIMS, Kinds, findings_of

ROWS, TEACHER_EPOCHS, EPOCHS = 6_000, 5, 6
RATES: dict[str, Any] = {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01}
FEATURES, EMBEDDING = ({f"{side}_tap": layer for side in ("student", "teacher")} for layer in ("features", "words"))
KINDS: Kinds = {
    "response": ("kd", {"w_kd": 1.0, "temperature": 2.0}),
    "feature": ("hint", {"w_kd": 10.0, **FEATURES}),
    "relation": ("sp", {"w_kd": 32.0, **FEATURES}),
    "embedding": ("pkt", {"w_kd": 10.0, **EMBEDDING}),
}


def run(bench: Bench) -> Findings:
    teacher = bench.teacher(reader(64, 96), ROWS, TEACHER_EPOCHS, **RATES)
    store = bench.store(teacher, bench.data.part(ROWS), keep=("features", "tap:words"))
    return findings_of(bench, store, reader(24, 16), KINDS, rows=ROWS, epochs=EPOCHS, **RATES)


def reader(width: int, units: int) -> Network:
    """A recurrent network that reads a verse from both ends."""
    return Network("kdcache.pipelines.studies.verses:reader", {"width": width, "units": units})


STUDY = Study(
    name="wang_verses",
    row=9,
    title="Knowledge Distillation for Pre-trained Language Models via Knowledge Selection",
    paper="Wang et al. 2022, arXiv 2302.00444",
    question="the same of text: kinds of knowledge that a policy selects teach more than all of them, or any one",
    claims=CLAIMS,
    differences=(
        "The paper distils pre-trained language models; here recurrent networks without pre-training name the group of "
        "books (eight) that a verse of the King James Bible is from, by its first 32 words and marks of 4,000.",
        "Of the paper's text the abstract was at hand: the policy (REINFORCE with a running mean as critic, one "
        "preference a kind, no look at the student's state), its rate, its choice at each tenth step and its reward, "
        "the drop of the loss on 500 held-out rows, are ours.",
        "The kinds are four, at weights that are not tuned: KD (1, T 2), a hint of the features before the head (10), "
        "their similarities in the batch (SP, 32; 320 took five points off in a trial on other seeds), and those of "
        "the mean word vectors (PKT, 10).",
        "The policy sees 500 labelled rows that other arms do not see. Kinds at random, chosen at the same steps, are "
        "our control.",
        "One teacher of 6,000 verses stands for all, and students see the same: intervals are over students' seeds.",
    ),
    run=run,
    minutes=5,
    baseline="alone",
    own_teacher="none",
    own_student=False,
    data="kdcache.pipelines.studies.verses:verses",
    train_set={"split": "train"},
    val_set={"split": "test"},
    why={
        "as_good": "Kinds that are on half of the time lose some of what KD gives, and the kinds that cost accuracy "
        "cost nearly as much as in the sum of all. The interval ends .19 points beyond the margin.",
        "better": "As above: each kind was on in 51 to 54 % of the steps, so what was selected is nearly the mean over "
        "choices.",
        "single": "KD alone is best here: the similarities of features and of word vectors, at weights that are not "
        "tuned, cost about a point each, and every choice that has them pays for it.",
        "random": "Some 55 rewards, each a drop of the loss on 500 rows over ten steps, do not tell the kinds apart.",
    },
)
