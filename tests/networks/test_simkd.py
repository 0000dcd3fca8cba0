"""simkd: the student answers through the teacher's classifier, from a file by its recipe, in a training."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks import convnet, simkd
from kdcache.networks.build import build_network
from kdcache.networks.heads import find_head
from kdcache.networks.layers import last_stage, layer_shapes
from kdcache.networks.simkd import SimKDStudent
from kdcache.networks.taps import Tapped
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.joined import wrapped
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tap_pairs import Head, Sizes, TeacherSizes
from tests.kits.labels import batch_of, full_labels

IMAGES = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(1))
Y = torch.arange(6)


def teacher() -> nn.Module:
    torch.manual_seed(0)
    return convnet(width=8).eval()


def last_maps(network: nn.Module, images: Tensor = IMAGES) -> tuple[str, Tensor, Tensor]:
    """The layer that ends the last stage, its maps, and the logits."""
    layer = last_stage(network, layer_shapes(network, images))
    with torch.no_grad():
        logits, taps = Tapped(network, [layer])(images)
    return layer, taps[layer], logits


def sizes_of(student: nn.Module, maps: Tensor, network: nn.Module, images: Tensor = IMAGES, **more: Any) -> Sizes:
    shapes = layer_shapes(student, images)
    head = find_head(network)
    assert head is not None
    kept = Head(head.weight.detach().clone(), head.bias.detach().clone())
    stores = (TeacherSizes("store", {"m": tuple(maps.shape[1:])}, kept, **more),)
    return Sizes(shapes, last_stage(student, shapes), stores, classes=len(head.weight))


def made(student: nn.Module, maps: Tensor, network: nn.Module, settings: Any = None, **more: Any) -> Any:
    objective = make_objective("simkd", settings, sizes=sizes_of(student, maps, network, **more))
    whole = wrapped(objective, student)
    assert isinstance(objective, Objective)
    assert isinstance(whole, SimKDStudent)
    return objective, whole


def batch(maps: Tensor, logits: Tensor) -> Any:
    return batch_of(full_labels(logits.numpy(), Y.numpy()), y=Y, taps=({"m": maps.half()},))


def test_equal_maps_give_the_teacher_s_logits() -> None:
    """A projector that hands the teacher's own maps on: the mean and the classifier are the teacher's."""
    network = teacher()
    layer, maps, logits = last_maps(network)
    _, whole = made(network, maps, network, {"student_tap": layer})
    whole.projector = nn.Identity()
    assert torch.allclose(whole(IMAGES), logits, atol=1e-5)


def test_logits_are_the_head_of_the_mean_of_the_projected_map() -> None:
    network, student = teacher(), convnet(width=2)
    _, maps, _ = last_maps(network)
    _, whole = made(student, maps, network)
    whole.eval()
    head = find_head(network)
    assert head is not None
    layer, own_maps, _ = last_maps(student)
    assert whole.tap == layer
    expected = whole.projector(own_maps).mean(dim=(2, 3)) @ head.weight.T + head.bias
    logits, taps = Tapped(whole, ["projector", "features"])(IMAGES)
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.equal(taps["features"], taps["projector"].mean(dim=(2, 3)))
    assert taps["projector"].shape == maps.shape
    kernels = [module.kernel_size[0] for module in whole.projector if isinstance(module, nn.Conv2d)]
    assert kernels == [1, 3, 1]
    assert isinstance(whole.projector[-1], nn.ReLU)
    assert isinstance(made(student, maps, network, {"last": "linear"})[1].projector[-1], nn.BatchNorm2d)


def test_a_training_moves_body_and_projector_and_leaves_both_heads() -> None:
    network, student = teacher(), convnet(width=2)
    _, maps, logits = last_maps(network)
    objective, whole = made(student, maps, network)
    before = {name: value.clone() for name, value in whole.named_parameters()}
    optimiser = torch.optim.SGD([one for one in whole.parameters() if one.requires_grad], lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = objective(Outputs.tapped(*Tapped(whole, objective.student_taps)(IMAGES)), batch(maps, logits))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    still = {name for name, value in whole.named_parameters() if torch.equal(value, before[name])}
    assert still == {"head.weight", "head.bias", "network.16.weight", "network.16.bias"}
    assert {name for name, value in whole.named_parameters() if not value.requires_grad} == still
    assert not list(objective.parameters())
    whole.eval()
    assert (whole(IMAGES).argmax(1) == logits.argmax(1)).all()


def test_a_file_of_weights_loads_by_the_recipe_and_gives_equal_logits(tmp_path: Path) -> None:
    network, student = teacher(), convnet(width=2)
    _, maps, _ = last_maps(network)
    _, whole = made(student, maps, network, {"factor": 4, "last": "linear"})
    whole(IMAGES)  # moves the statistics of batch norm
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    arguments = {"student": "kdcache.networks:convnet", "student_set": {"width": 2}, **whole.recipe()}
    again = build_network("kdcache.networks:simkd", arguments, 10, "student")
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert whole.recipe() == {
        "tap": whole.tap,
        "classes": 10,
        "channels": 16,
        "width": 4,
        "factor": 4,
        "last": "linear",
    }
    for copied in (again, copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert torch.equal(copied.eval()(IMAGES), whole.eval()(IMAGES))
        assert {name for name, one in copied.named_parameters() if one.requires_grad} == {
            name for name, one in whole.named_parameters() if one.requires_grad
        }


def test_a_copy_learns_apart() -> None:
    network, student = teacher(), convnet(width=2)
    _, whole = made(student, last_maps(network)[1], network)
    whole.eval()
    twin, logits = copy.deepcopy(whole), whole(IMAGES)
    with torch.no_grad():
        for parameter in twin.network.parameters():
            parameter.zero_()
    assert torch.equal(whole(IMAGES), logits)
    assert not torch.equal(twin(IMAGES), logits)


@pytest.mark.parametrize(("side", "tap"), [(2, "@2x2"), (14, ""), (7, "")])
def test_maps_of_two_sizes_are_pooled_to_the_smaller_before_the_projector(side: int, tap: str) -> None:
    network, student = teacher(), convnet(width=2)
    _, maps, logits = last_maps(network)
    other = nn.functional.interpolate(maps, size=(side, side))
    objective, whole = made(student, other, network)
    assert whole.tap.removeprefix(last_maps(student)[0]) == tap
    answer = Tapped(whole, objective.student_taps)(IMAGES)
    assert answer[1]["projector"].shape[2:] == (min(side, 7), min(side, 7))
    assert objective(Outputs.tapped(*answer), batch(other, logits)).isfinite()


def test_pooled_features_are_held_against_the_mean_of_the_map() -> None:
    network, student = teacher(), convnet(width=2)
    _, maps, logits = last_maps(network)
    features = maps.mean(dim=(2, 3))
    objective, whole = made(student, features, network)
    answer = Outputs.tapped(*Tapped(whole, objective.student_taps)(IMAGES))
    expected = (answer.tap("projector").mean(dim=(2, 3)) - features.half().float()).square().mean()
    assert objective(answer, batch(features, logits)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_layer_that_the_classifier_does_not_pool_is_refused_before_the_first_step() -> None:
    network, student = teacher(), convnet(width=2)
    _, maps, logits = last_maps(network)
    objective, _ = made(student, maps, network)
    objective.term.fit([(Outputs(logits), batch(maps, logits))])
    with pytest.raises(
        InvalidInputError, match=r"names the teacher's own class in \d of 6 rows: another layer is pooled"
    ):
        objective.term.fit([(Outputs(logits), batch(maps, -logits))])  # the store's answers are others


def test_masked_classes_are_never_answered() -> None:
    network, student = teacher(), convnet(width=2)
    _, whole = made(student, last_maps(network)[1], network, masked=(3, 9))
    assert not {3, 9} & set(whole.eval()(IMAGES).argmax(dim=1).tolist())
    assert (torch.softmax(whole(IMAGES), dim=1)[:, [3, 9]] == 0).all()
    assert whole.half()(IMAGES.half()).isfinite().all()


def test_a_resnet_student_answers_in_eight_channels() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    whole = simkd("torchvision:resnet18", "layer4", classes=3, channels=8, width=512)
    assert whole.eval()(images).shape == (2, 3)
    assert isinstance(whole.network, torchvision.models.ResNet)
    assert not whole.network.fc.weight.requires_grad
    with pytest.raises(InvalidInputError, match=r"layer avgpool_1 of the student's body took no part"):
        simkd("torchvision:resnet18", "avgpool_1", classes=3, channels=8, width=512)(images)
    with pytest.raises(
        InvalidInputError, match=r"layer fc of the student's body gives \[2, 3\], and its projector takes"
    ):
        simkd("torchvision:resnet18", "fc", classes=3, channels=8, width=512).eval()(images)
