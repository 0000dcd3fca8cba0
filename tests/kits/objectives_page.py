"""The tables of docs/objectives.md: ideas in plain words, the rest by the catalogue.

`python -m tests.kits.objectives_page` writes them anew.
"""

from typing import Any

from kdcache.objectives.catalogue import LOGIT_TERMS, TAP_TERMS
from kdcache.objectives.listing import listing
from tests.kits.house import ROOT

PAGE = ROOT / "docs/objectives.md"
IDEAS = {
    "kd": ("be as the teacher's softened probabilities", "Hinton et al. 2015"),
    "hard-teacher": ("name the class that the teacher finds best", "Touvron et al. 2021"),
    "label-smoothing": ("name the label, with a little for all other classes", "Szegedy et al. 2016"),
    "confidence-penalty": ("be less sure", "Pereyra et al. 2017"),
    "subclass": ("spread the rows of a class over its subclasses", "Müller et al. 2020"),
    "kd-pt": ("be as sure of the label as the teacher", "Tang et al. 2020"),
    "kd-topk": ("be as the teacher on its k best classes", "Tang et al. 2020"),
    "kd-sim": ("confuse classes that the classifier finds alike", "Tang et al. 2020"),
    "dkd": ("follow kd, with the label and the other classes weighed apart", "Zhao et al. 2022"),
    "nkd": ("follow such a split, with the other classes renormalised", "Yang et al. 2023"),
    "dist": ("correlate with the teacher, in rows and in classes", "Huang et al. 2022"),
    "logit-standardisation": ("follow kd of logits of mean 0 and spread 1", "Sun et al. 2024"),
    "mlld": ("follow kd at several T, and the relations of rows and of classes", "Jin et al. 2023"),
    "ctkd": ("follow kd at a temperature that is learned", "Li et al. 2023"),
    "ttm": ("be, at T 1, as the teacher at T", "Zheng & Yang 2024"),
    "wttm": ("follow ttm, with more weight on rows where the teacher is unsure", "Zheng & Yang 2024"),
    "logit-mse": ("have the teacher's logits", "Ba & Caruana 2014"),
    "reverse-kl": ("leave out what the teacher finds unlikely", "Gu et al. 2024"),
    "symmetric-kl": ("follow the mean of kd and reverse-kl", "Jeffreys 1946"),
    "brier": ("have a small squared distance of probabilities", "Brier 1950"),
    "jsd": ("have a small Jensen-Shannon divergence", "Agarwal et al. 2024"),
    "skew-kl": ("follow kd, with some of the teacher mixed into the student", "Ko et al. 2024"),
    "skew-reverse-kl": ("follow reverse-kl, with some of the student mixed into the teacher", "Ko et al. 2024"),
    "tvd": ("have a small absolute distance of probabilities", "Wen et al. 2023"),
    "adaptive-kl": ("follow kd or reverse-kl, by where the two differ", "Wu et al. 2024"),
    "taid": ("follow a target that moves from student to teacher", "Shing et al. 2025"),
    "double-distillation": ("count each class for and against, by its probability", "Menon et al. 2020"),
    "function-matching": ("follow kd without labels, over a long training on mixed pictures", "Beyer et al. 2022"),
    "hint": ("have the teacher's map, through a learned projection", "Romero et al. 2015"),
    "at": ("look at the same places", "Zagoruyko & Komodakis 2017"),
    "sp": ("find the same rows alike", "Tung & Mori 2019"),
    "rkd": ("have the same distances and angles between rows", "Park et al. 2019"),
    "pkt": ("have the same neighbours", "Passalis & Tefas 2018"),
    "crd": ("tell the row's own features from those of other rows", "Tian et al. 2020"),
    "srrl": ("give the teacher's classifier what it expects", "Yang et al. 2021"),
    "simkd": ("answer through the teacher's classifier", "Chen et al. 2022"),
    "mgd": ("rebuild the teacher's map from a masked one", "Yang et al. 2022"),
    "aligned": ("have the teacher's map, channel by channel", "after Han et al. 2021"),
}
KEPT = {
    "hint": "a map, tokens or features",
    "at": "a map or tokens",
    "sp": "any tap",
    "rkd": "features",
    "pkt": "features",
    "crd": "features",
    "srrl": "features and head",
    "simkd": "head, and the last map or features",
    "mgd": "a map",
    "aligned": "a map, tokens or features",
}
HEADER = "| name | idea: the student is to | source | settings | {} |\n|---|---|---|---|---|\n"
HIDDEN = ("label_smoothing", "student_tap", "teacher_tap")  # settings that all or many have, which the text explains


def tables() -> dict[str, str]:
    """The tables by the name of their marks."""
    return {
        "logits": HEADER.format("on a top-k store") + "".join(_row(name, "on_top_k") for name in LOGIT_TERMS),
        "features": HEADER.format("the store keeps") + "".join(_row(name, "needs") for name in TAP_TERMS),
    }


def page_with_tables() -> str:
    """The page with its tables made anew."""
    page = PAGE.read_text()
    for name, table in tables().items():
        begin, end = f"<!-- {name}: made by python -m tests.kits.objectives_page -->\n", f"<!-- end of {name} -->"
        start, stop = page.index(begin) + len(begin), page.index(end)
        page = page[:start] + table + page[stop:]
    return page


def _row(name: str, last: str) -> str:
    record, (idea, source) = listing()[name], IDEAS[name]
    cell = KEPT[name] if last == "needs" else _exactness(record)
    return f"| `{name}` | {idea} | {source} | {_settings(record['settings'])} | {cell} |\n"


def _exactness(record: dict[str, Any]) -> str:
    needs = [text for text in record["needs"] if text not in ("store", "no teacher")]
    text = record["on_top_k"] + ("; needs no store" if "no teacher" in record["needs"] else "")
    return f"{text}; needs {', '.join(needs)}" if needs else str(text)


def _settings(settings: dict[str, Any]) -> str:
    words = {"temperature": "T", "temperatures": "T"}
    return ", ".join(f"{words.get(key, key)} {_value(value)}" for key, value in settings.items() if key not in HIDDEN)


def _value(value: Any) -> str:
    return (
        f"{value[0]:g} to {value[-1]:g}"
        if isinstance(value, list)
        else value
        if isinstance(value, str)
        else f"{value:g}"
    )


if __name__ == "__main__":
    PAGE.write_text(page_with_tables())
