"""The top-k encoding keeps the k best classes, the gaps between their logits, and a sketch of the tail, as integers.

Every bound on the error stands in `quantising`. Shape letters: B any leading axes, Vs views, R rows, K kept classes, C
classes, L hard labels a row.
"""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from array_api_compat import array_namespace
from pydantic import Field, model_validator

from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.encoding import UPWARD, Choice, Encoded, Encoding, LabelSpace, RowArray, SegmentArray
from kdcache.labels.quantising import (
    GAP_DTYPE,
    GAPS_A_NAT,
    NO_LABEL,
    TAIL_STEPS,
    class_dtype,
    decode_label,
    decode_logits,
    decode_tail,
    last_steps,
    pack,
    quantise_gaps,
    quantise_label,
    quantise_tail,
    unpack,
)
from kdcache.labels.reduction import SKETCH_TEMPERATURES, Array, TopK, reduce_topk, tail_sums
from kdcache.labels.soft_labels import SoftLabels, Tail
from kdcache.labels.topk_labels import TopKLabels, require_mass

MEANS = "class_means"
IDS = "ids of the kept classes, best first"
GAPS = "logit gaps to the class before, in steps of 1/16 nat (high quantisation: 1/64)"
MASS = "logsumexp at T = 1 of all other logits less the top logit, in steps of 1/128"
TAIL = "logsumexp at T = 1, 2, 4 of all other logits less the top logit, in steps of 1/128"
PACKED = "residuals (see Packing in the format's specification) of "
LABEL = "distance of the hard label's logit to the top logit, in steps of 1/64; 65535 for none"
MEANS_TEXT = "mean logit of each class while outside the top k, less the mean of its row's tail"


class TopKEncoding(Encoding):
    """The k best classes and a sketch of the tail.

    class_means: each segment holds the mean tail logit of every class. packing: "plain" keeps gaps and tail as they
    are; "residuals" keeps gaps rank by rank and the tail as residuals, see `quantising`. tail: "sketch" keeps the
    tail's logsumexp at T = 1, 2 and 4, "mass" at T = 1 alone, for answers of which no more is known.
    """

    name: Literal["topk"] = "topk"
    k: int = Field(ge=1)
    quantisation: Literal["default", "high"] = "default"
    class_means: bool = False
    packing: Literal["plain", "residuals"] = "plain"
    tail: Literal["sketch", "mass"] = "sketch"

    LATER: ClassVar[tuple[str, ...]] = (*Encoding.LATER, "class_means", "packing", "tail")

    @model_validator(mode="after")
    def _check_means(self) -> Self:
        if self.class_means and self.tail == "mass":
            raise ValueError("class means need logits of the tail, of which tail mass keeps none; choose one of them")
        return self

    @classmethod
    def chosen(cls, choice: Choice, space: LabelSpace, *, like: Encoding | None = None) -> Self:
        """Top-k in residuals, with class means wherever there is a tail and block 0 is a fair sample of the rows."""
        like = like if isinstance(like, cls) else None
        k = choice.top_k if choice.top_k is not None else like.k if like else space.visible
        if not 1 <= k <= space.visible:
            raise InvalidInputError(
                f"--top-k {k} was asked of {space.visible} classes that are not masked; choose 1 to {space.visible}, "
                "or --encoding full"
            )
        return cls(
            k=k,
            quantisation=choice.quantisation or (like.quantisation if like else "default"),
            class_means=like.class_means if like else choice.shuffled and k < space.visible,
            packing=choice.packing or (like.packing if like else "residuals"),
            tail=like.tail if like else "sketch",
        )

    @classmethod
    def narrowed(cls, source: Encoding, choice: Choice, space: LabelSpace) -> Self:
        """Fewer classes, wider steps or another packing than those of the source."""
        if isinstance(source, cls):
            if choice.top_k is not None and choice.top_k > source.k:
                raise InvalidInputError(
                    f"--top-k {choice.top_k} was asked of a store that holds the top {source.k}; {UPWARD}"
                )
            if (source.quantisation, choice.quantisation) == ("default", "high"):
                raise InvalidInputError(f"--quantisation high was asked of a store in steps of 1/16 nat; {UPWARD}")
        elif not source.COMPLETE:
            raise InvalidInputError(f"top-k was asked of a store that holds {source.logits_kept}; {UPWARD}")
        elif choice.top_k is None:
            raise InvalidInputError("top-k needs the number of classes to keep; give --top-k")
        return cls.chosen(choice, space, like=source)

    @property
    def logits_kept(self) -> str:
        return f"top {self.k}"

    @property
    def manner(self) -> tuple[str, ...]:
        return f"{self.quantisation} quantisation", self.packing, *(["mass of the tail"] if self.tail == "mass" else [])

    @property
    def keeps_class_means(self) -> bool:
        return self.class_means

    def kept(self, space: LabelSpace) -> int:
        return self.k

    def require_fit(self, space: LabelSpace) -> None:
        if self.k > space.visible:
            raise ValueError(f"k is {self.k}, the teacher has {space.visible} classes that are not masked")

    def arrays(self, space: LabelSpace) -> dict[str, RowArray]:
        packed, ranks, dtype = self.packing == "residuals", (self.k - 1,), np.dtype(GAP_DTYPE[self.quantisation]).name
        rows = {"classes": RowArray(class_dtype(space.classes), IDS, back=(self.k,), struck=space.classes)}
        if self.k > 1 and packed:  # gaps of one rank lie together
            rows["gaps"] = RowArray(dtype, f"{GAPS}, a rank after the other", front=ranks, by_rank=True)
        elif self.k > 1:
            rows["gaps"] = RowArray(dtype, GAPS, back=ranks)
        text, temperatures = MASS if self.tail == "mass" else TAIL, self.tail_temperatures
        rows["tail"] = RowArray("int16", PACKED + text if packed else text, front=(len(temperatures),))
        rows["label"] = RowArray("uint16", LABEL, back=() if space.labels == 1 else (space.labels,), struck=NO_LABEL)
        return rows

    def segment_arrays(self, space: LabelSpace) -> dict[str, SegmentArray]:
        return {MEANS: SegmentArray("float32", MEANS_TEXT, (1, space.classes))} if self.class_means else {}

    def scratch(self, space: LabelSpace) -> tuple[int, int]:
        """Ids and distances are held as four bytes each, tail and labels as f32; gaps are made in wider arrays."""
        return 6 * self.k + 32, 32 * self.k

    def reduce(self, logits_BC: Array, labels_BL: Array, space: LabelSpace) -> dict[str, Array]:
        """`classes` [B, K] i32, `distances` [B, K], `tail` [B, 3] and `label` [B, L], see `reduction.TopK`."""
        return _fields(reduce_topk(logits_BC, labels_BL, self.k, space.masked))

    def segment_sums(self, logits_BC: Array, fields: dict[str, Array], space: LabelSpace) -> dict[str, Array]:
        if not self.class_means:
            return {}
        xp = array_namespace(logits_BC)
        return {MEANS: tail_sums(logits_BC, xp.astype(fields["classes"], xp.int64), space.masked)}

    def segment_values(self, sums: dict[str, Array]) -> dict[str, Array]:
        """Class means [1, C] f32; 0, the tail's mean, for a class never outside the top k."""
        return {
            name: np.asarray(total[:1] / np.maximum(total[1:], 1), dtype=np.float32) for name, total in sums.items()
        }

    def encode(self, fields: dict[str, Array], space: LabelSpace) -> Encoded:
        classes = fields["classes"]
        if int(classes.max(initial=0)) >= space.classes:
            raise BadLogitsError(f"class id {int(classes.max())} does not fit {space.classes} classes")
        gaps, clamped = quantise_gaps(fields["distances"], self.quantisation)
        label, far_labels = quantise_label(fields["label"])
        tail = quantise_tail(fields["tail"][..., : len(self.tail_temperatures)])
        arrays = {"classes": classes.astype(class_dtype(space.classes))}
        residuals = self.packing == "residuals"
        if residuals:
            tail = pack(tail, last_steps(gaps, self.quantisation), space.visible - self.k)
        if self.k > 1:
            arrays["gaps"] = np.moveaxis(gaps, -1, -2) if residuals else gaps
        arrays["tail"] = np.moveaxis(tail, -1, -2)
        arrays["label"] = label[..., 0] if label.shape[-1] == 1 else label
        return Encoded(arrays, np.asarray(clamped | far_labels.any(axis=-1)))

    def decode(self, arrays: dict[str, Array], space: LabelSpace) -> TopKLabels:
        classes = np.ascontiguousarray(arrays["classes"])  # a copy, which keeps no records in memory
        gaps, tail = arrays.get("gaps"), arrays["tail"]
        if self.packing == "residuals":
            tail = unpack(tail, last_steps(gaps, self.quantisation), space.visible - self.k)
        return TopKLabels(
            classes=classes,
            logits=decode_logits(classes, gaps, self.quantisation),
            tail=decode_tail(tail),
            label=decode_label(arrays["label"]),
            num_classes=space.classes,
            masked=space.masked,
        )

    @property
    def tail_temperatures(self) -> tuple[float, ...]:
        return SKETCH_TEMPERATURES[:1] if self.tail == "mass" else SKETCH_TEMPERATURES

    def require_temperature(self, temperature: float, *, tail: Tail = "uniform") -> None:
        super().require_temperature(temperature)
        if self.tail == "mass" and tail != "none":
            require_mass(temperature)

    def require_sketch(self, purpose: str) -> None:
        if self.tail == "mass":
            raise InvalidInputError(
                f"{purpose} needs the tail at every T, and the store keeps its mass at T = 1 alone; use another store"
            )

    def prefix_settings(self) -> dict[str, Any]:
        return {"tail": self.tail}

    def fields_of(self, soft: SoftLabels, hard_RL: Array, space: LabelSpace) -> dict[str, Array]:
        """A prefix keeps ids and distances as they are; the logits that leave the head join the tail in f64."""
        return _fields(soft.reduced(self.k, hard_RL))

    def at_limit(self, arrays: dict[str, Array], kept: int) -> Array:
        label = arrays["label"]
        at_limit = (label == NO_LABEL - 1).reshape(len(label), -1).any(axis=1)
        if "gaps" in arrays:
            largest = np.iinfo(GAP_DTYPE[self.quantisation]).max
            at_limit |= (arrays["gaps"][:, : kept - 1] == largest).any(axis=1)
        return np.asarray(at_limit)

    def answer_error(self, span: float) -> float:
        """Half a step of a gap, and as much of the normaliser, and the tail's rounding."""
        return 1.0 / GAPS_A_NAT[self.quantisation] + 1.0 / TAIL_STEPS


def _fields(rows: TopK) -> dict[str, Array]:
    xp = array_namespace(rows.classes)
    return {**vars(rows), "classes": xp.astype(rows.classes, xp.int32)}
