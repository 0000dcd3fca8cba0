"""An encoding says how the soft labels of a store become arrays; its dict stands in the manifest."""

from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from kdcache.base.records import Record


class Encoding(Record):
    """An encoding says how soft labels become arrays.

    k: the number of kept classes (topk). features, head: the width D of the kept features and of the kept classifier,
    or 0. class_means: each segment holds the mean tail logit of every class (topk). packing (topk): "plain" keeps gaps
    and tail as they are; "residuals" keeps gaps rank by rank and the tail as residuals, see `labels.tail_packing`.
    """

    name: Literal["topk", "full"]
    k: int | None = Field(default=None, ge=1)
    quantisation: Literal["default", "high"] = "default"
    features: int = Field(default=0, ge=0)
    head: int = Field(default=0, ge=0)
    class_means: bool = False
    packing: Literal["plain", "residuals"] = "plain"

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out at their defaults, so that older stores keep their identity digests."""
        record: dict[str, Any] = serialize(self)
        for name in ("class_means", "packing"):
            if record[name] == type(self).model_fields[name].default:
                del record[name]
        return record

    @model_validator(mode="after")
    def _k_belongs_to_topk(self) -> Self:
        if (self.name == "topk") != (self.k is not None):
            raise ValueError(f"k is {self.k} in the {self.name} encoding; topk needs k, full has none")
        if self.class_means and self.name == "full":
            raise ValueError("class_means is true in the full encoding, which has no tail")
        if self.packing != "plain" and self.name == "full":
            raise ValueError(f"packing is {self.packing} in the full encoding, which has no gaps and no tail")
        return self


def described(encoding: Encoding) -> str:
    """The encoding in words for people: `top 20, default quantisation, residuals`."""
    words = ["all logits"]
    if encoding.k is not None:
        words = [f"top {encoding.k}", f"{encoding.quantisation} quantisation", encoding.packing]
    return ", ".join([*words, *(name for name in ("features", "head") if getattr(encoding, name))])


def class_dtype(classes: int) -> str:
    """Class ids are u16, above 65,536 classes u32."""
    return "uint16" if classes <= 2**16 else "uint32"
