"""SimKD's student: a body, a projector to the teacher's last map, and the teacher's own classifier.

Shape letters: B rows, C classes, D channels of the teacher's last map, [H, W] of a map.
"""

from typing import Any, Literal

from torch import Tensor, nn

from kdcache.base.tap_names import TapName
from kdcache.errors import InvalidInputError
from kdcache.networks.build import build_network
from kdcache.networks.heads import find_head
from kdcache.networks.taps import Tapped

LastLayer = Literal["relu", "linear"]
Norm = Literal["batch", "group"]
KERNELS = (1, 3, 1)


class SimKDStudent(nn.Module):
    """A student that answers head(mean over places of projector(tap of its body)): logits [B, C].

    network: the body; what follows its tap takes part in no answer. projector: module of that name, whose output is
    [B, D, H, W]. head: a linear layer of the teacher's weight [C, D] and bias [C], without gradient, in the state.
    The body's own classifier, a last linear layer of C outputs, learns no more.

    tap: a layer of the body that gives maps, pooled where its name says so. channels, width: D, and the tap's channels.
    factor: by which the projector's middle is narrower than D. last, norm: of the projector, see `projector`.
    """

    def __init__(
        self,
        network: nn.Module,
        tap: str,
        *,
        classes: int,
        channels: int,
        width: int,
        factor: int = 2,
        last: LastLayer = "relu",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.network, self.tap = network, str(TapName.parse(tap))
        self.projector = projector(width, channels, factor, last, norm)
        self.head = nn.Linear(channels, classes).requires_grad_(False)
        self._arguments: dict[str, str | int] = {
            "classes": classes,
            "channels": channels,
            "width": width,
            "factor": factor,
            "last": last,
        }
        self._arguments |= {} if norm == "batch" else {"norm": norm}
        own_head = find_head(network)
        if own_head is not None and own_head.out_features == classes:
            own_head.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C] of prepared images [B, ch, H, W]."""
        _, taps = Tapped(self.network, [self.tap], "student's body")(images)
        values = taps[self.tap]
        if values.ndim != 4:
            raise InvalidInputError(
                f"layer {self.tap} of the student's body gives {list(values.shape)}, and its projector takes maps [B, "
                "C, H, W]; name another (kdcache taps lists them with their shapes)"
            )
        logits: Tensor = self.head(self.projector(values).mean(dim=(2, 3)))
        return logits

    def recipe(self) -> dict[str, str | int]:
        """The arguments of `simkd` that build this student, but `student` and `student_set`, which name its body."""
        return {"tap": self.tap, **self._arguments}


def projector(width: int, channels: int, factor: int, last: LastLayer, norm: Norm = "batch") -> nn.Sequential:
    """Convolutions 1 x 1 from `width` to `channels` / factor, 3 x 3, and 1 x 1 to `channels`, each with batch norm and
    ReLU; with `last` "linear" the last ReLU is left out, for teachers whose maps have negative values. `norm` "group"
    puts group norm of one group in place of batch norm: then rows do not meet, on however many processes they are.

    Chen et al. 2022, section 3.2, as in their code. Raises InvalidInputError for a factor that leaves no channel.
    """
    middle = channels // factor if factor > 0 else 0
    if not middle:
        raise InvalidInputError(
            f"factor {factor} leaves no channel of {channels} in SimKD's projector; give 1 to {channels}"
        )
    layers: list[nn.Module] = []
    widths = (width, middle, middle, channels)
    for before, after, kernel in zip(widths, widths[1:], KERNELS, strict=False):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), _norm(after, norm), nn.ReLU()]
    return nn.Sequential(*(layers if last == "relu" else layers[:-1]))


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)


def simkd(
    student: str,
    tap: str,
    classes: int,
    channels: int,
    width: int,
    factor: int = 2,
    last: LastLayer = "relu",
    norm: Norm = "batch",
    student_set: dict[str, Any] | None = None,
) -> SimKDStudent:
    """A simkd is SimKD's student by its recipe, which `kdcache train --objective simkd` writes beside the weights: a
    body, a projector to the teacher's last map, and the teacher's own classifier. Its weights, the classifier among
    them, come from the run's weights file. Input [B, ch, H, W] as the body takes it; output logits [B, classes]. Chen
    et al. 2022.

    Args:
        student: The body, as `--student` names it.
        tap: The layer of the body that the projector reads.
        classes: The number of classes.
        channels: Channels of the teacher's last map.
        width: Channels of the tap.
        factor: By which the projector's middle is narrower than `channels`.
        last: "relu", or "linear" for teachers whose maps have negative values.
        norm: "batch", or "group": then rows do not meet.
        student_set: Arguments of the body, as `--student-set` names them.

    Raises InvalidInputError for a factor that leaves no channel.

    Examples:
        >>> from kdcache.networks import simkd
        >>> student = simkd("kdcache.networks:convnet", "13", classes=10, channels=16, width=32)
        >>> student(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    network = build_network(student, student_set or {}, classes, "student")
    sizes = {"classes": classes, "channels": channels, "width": width, "factor": factor}
    return SimKDStudent(network, tap, **sizes, last=last, norm=norm)
