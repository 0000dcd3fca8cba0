"""The sampled encoding keeps ids that were drawn from the teacher: for very many classes, and one temperature.

The mean of -log q over R draws from p is unbiased for the cross-entropy of a student q against p, however many classes
there are. Nothing else of p is known, so the soft labels serve that alone. Bit for bit, the ids follow from the
probabilities in f64 and from a row's key word: probabilities become integers, whose running sum is exact in any order.

Shape letters: B any leading axes, C classes, L hard labels a row, R draws a row.
"""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace
from pydantic import Field

from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.labels.encoding import UPWARD, Choice, Encoded, Encoding, LabelSpace, RowArray
from kdcache.labels.quantising import NO_LABEL, class_dtype, decode_label, quantise_label
from kdcache.labels.reduction import Array, centre, label_distances, logsumexp
from kdcache.labels.sampled_labels import SampledLabels, require_draw_temperature
from kdcache.labels.soft_labels import SoftLabels, Tail

UNIT = 2.0**52  # of the integers that probabilities become: their sum is exact in f64 and in i64
PIECE = 2**22  # probabilities in f64 at a time
DRAWS = "ids of classes drawn from the teacher at the draw temperature, ascending, repeats kept"
LABEL = "-log p of the hard label at the draw temperature, in steps of 1/64; 65535 for none"


class SampledEncoding(Encoding):
    """`draws` ids a row, drawn with replacement from the teacher's softmax at `draw_temperature`."""

    name: Literal["sampled"] = "sampled"
    draws: int = Field(ge=1)
    draw_temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    DRAWN: ClassVar[bool] = True

    @classmethod
    def chosen(cls, choice: Choice, space: LabelSpace, *, like: Encoding | None = None) -> Self:
        """As many draws as are asked for: there is no default. T is 1 by default."""
        like = like if isinstance(like, cls) else None
        draws = choice.draws if choice.draws is not None else like.draws if like else None
        temperature = choice.draw_temperature or (like.draw_temperature if like else 1.0)
        if draws is None or draws < 1 or not 0 < temperature < np.inf:
            asked = f"{draws or 'no'} draws at T = {temperature}"
            raise InvalidInputError(
                f"{asked} were asked for; give --draws, 1 or more, and a --draw-temperature above 0"
            )
        return cls(draws=draws, draw_temperature=temperature)

    @classmethod
    def narrowed(cls, source: Encoding, choice: Choice, space: LabelSpace) -> Self:
        """Draws from all logits, or the source itself: draws can neither be made more nor fewer, since they are
        sorted."""
        if choice.top_k or choice.quantisation or choice.packing:
            raise InvalidInputError("draws have no top k, gaps or packing; leave them out, or name --encoding topk")
        if isinstance(source, cls):
            encoding = cls.chosen(choice, space, like=source)
            if (encoding.draws, encoding.draw_temperature) != (source.draws, source.draw_temperature):
                raise InvalidInputError(
                    f"{encoding.logits_kept} were asked of a store that holds {source.logits_kept}; {UPWARD}"
                )
            return encoding
        if not source.COMPLETE:
            raise InvalidInputError(f"draws were asked of a store that holds {source.logits_kept}; {UPWARD}")
        return cls.chosen(choice, space)

    @property
    def logits_kept(self) -> str:
        return f"{self.draws} draws at T = {self.draw_temperature:g}"

    def kept(self, space: LabelSpace) -> int:
        """The number of draws, which stands for that of logits."""
        return self.draws

    def require_fit(self, space: LabelSpace) -> None:
        """Fits any number of classes."""

    def arrays(self, space: LabelSpace) -> dict[str, RowArray]:
        return {
            "draws": RowArray(class_dtype(space.classes), DRAWS, back=(self.draws,), struck=space.classes),
            "label": RowArray("uint16", LABEL, back=() if space.labels == 1 else (space.labels,), struck=NO_LABEL),
        }

    def scratch(self, space: LabelSpace) -> tuple[int, int]:
        """Ids are held as four bytes each, labels twice as f32."""
        return 4 * self.draws + 32, 8 * self.draws

    def reduce(self, logits_BC: Array, labels_BL: Array, space: LabelSpace) -> dict[str, Array]:
        """`label` [B, L], and `label_loss` [B, L]: -log p of the hard label at the draw temperature, NaN for none."""
        centred_BC = centre(logits_BC, space.masked)
        label_BL = label_distances(centred_BC, labels_BL)
        normalizer_B = logsumexp(centred_BC / self.draw_temperature)
        return {"label": label_BL, "label_loss": label_BL / self.draw_temperature + normalizer_B[..., None]}

    def draw(self, logits_BC: Array, words_B: Array, space: LabelSpace) -> dict[str, Array]:
        """`draws` [B, R] i32, ascending."""
        rows, classes = words_B.size, logits_BC.shape[-1]
        logits_BC = logits_BC.reshape(rows, classes)
        if not is_numpy_namespace(array_namespace(logits_BC)) and logits_BC.device.type == "mps":
            logits_BC = logits_BC.cpu()  # which has f64
        xp, step = array_namespace(logits_BC), max(PIECE // classes, 1)
        uniforms_BR = xp.asarray(uniforms(words_B.reshape(-1), self.draws), device=device(logits_BC))
        parts = [
            drawn(probabilities(logits_BC[start : start + step], self.draw_temperature, space.masked),
                  uniforms_BR[start : start + step])
            for start in range(0, rows, step)
        ]  # fmt: skip
        return {"draws": xp.concat(parts, axis=0).reshape(*words_B.shape, self.draws)}

    def encode(self, fields: dict[str, Array], space: LabelSpace) -> Encoded:
        draws = fields["draws"]
        if int(draws.max(initial=0)) >= space.classes:
            raise BadLogitsError(f"class id {int(draws.max())} does not fit {space.classes} classes")
        label, far_labels = quantise_label(fields["label_loss"])
        arrays = {
            "draws": draws.astype(class_dtype(space.classes)),
            "label": label[..., 0] if label.shape[-1] == 1 else label,
        }
        return Encoded(arrays, np.asarray(far_labels.any(axis=-1)))

    def decode(self, arrays: dict[str, Array], space: LabelSpace) -> SampledLabels:
        draws = np.ascontiguousarray(arrays["draws"])  # a copy, which keeps no records in memory
        return SampledLabels(
            draws=draws,
            draw_temperature=self.draw_temperature,
            logits=np.zeros((*draws.shape[:-1], 0), dtype=np.float32),
            label=decode_label(arrays["label"]),
            num_classes=space.classes,
            masked=space.masked,
        )

    def fields_of(self, soft: SoftLabels, hard_RL: Array, space: LabelSpace) -> dict[str, Array]:
        """The fields of `reduce` from all logits, to which `draw` adds draws; of draws those that there are, with the
        loss in place of the distance: a label then counts as the top class where its loss rounds to 0."""
        if soft.DRAWN:
            loss_RL = -soft.label.reshape(hard_RL.shape)
            return {"draws": soft.draws, "label": loss_RL, "label_loss": loss_RL}
        return self.reduce(soft.all_logits(), hard_RL, space)

    def at_limit(self, arrays: dict[str, Array], kept: int) -> Array:
        return np.asarray((arrays["label"] == NO_LABEL - 1).reshape(len(arrays["label"]), -1).any(axis=1))

    def answer_error(self, span: float) -> float:
        """Not known: `require_log_probs` refuses before."""
        return float("inf")

    @property
    def tail_temperatures(self) -> tuple[float, ...]:
        return ()

    def require_temperature(self, temperature: float, *, tail: Tail = "uniform") -> None:
        require_draw_temperature(temperature, self.draw_temperature)

    def require_log_probs(self, purpose: str, advice: str = "") -> None:
        raise InvalidInputError(
            f"{purpose} needs log-probabilities by class, and {self.logits_kept} a row give none; use a store that was "
            f"extracted with --encoding topk or full{advice and f', or {advice}'}"
        )

    def require_sketch(self, purpose: str) -> None:
        self.require_log_probs(purpose)

    def prefix_settings(self) -> dict[str, Any]:
        raise InvalidInputError(f"--top-k was asked of a store that holds {self.logits_kept}; leave it out")


def probabilities(logits_BC: Array, temperature: float, masked: tuple[int, ...] = ()) -> Array:
    """[B, C] f64 softmax of logits / T, 0 for masked classes."""
    centred_BC = centre(logits_BC, masked)
    xp = array_namespace(centred_BC)
    powers_BC = xp.exp(xp.astype(centred_BC, xp.float64) / temperature)
    return powers_BC / xp.sum(powers_BC, axis=-1, keepdims=True)


def uniforms(words_B: Array, draws: int) -> Array:
    """[B, R] f64 in [0, 1): MT19937 seeded by each row's key word, whose stream numpy has frozen."""
    generator = np.random.RandomState(0)
    values_BR = np.empty((len(words_B), draws))
    for row, word in enumerate(words_B.tolist()):
        generator.seed([word & 0xFFFFFFFF, word >> 32])
        values_BR[row] = generator.random_sample(draws)
    return values_BR


def drawn(probs_BC: Array, uniforms_BR: Array) -> Array:
    """[B, R] i32 ids, ascending: the class at which the running sum of rint(2^52 p) passes the uniform's share."""
    xp = array_namespace(probs_BC)
    ends_BC = xp.cumulative_sum(xp.astype(xp.round(probs_BC * UNIT), xp.int64), axis=-1)
    totals_B1 = ends_BC[:, -1:]
    places_BR = xp.astype(uniforms_BR * xp.astype(totals_B1, xp.float64), xp.int64)
    places_BR = xp.minimum(places_BR, totals_B1 - 1)  # a product that was rounded up
    if is_numpy_namespace(xp):
        pairs = zip(ends_BC, places_BR, strict=True)
        ids_BR = np.stack([np.searchsorted(ends_C, places_R, side="right") for ends_C, places_R in pairs])
    else:
        ids_BR = xp.searchsorted(ends_BC, places_BR, right=True)
    return xp.astype(xp.sort(ids_BR, axis=-1), xp.int32)
