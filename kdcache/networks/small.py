"""Small networks for small images: enough to make teachers and students without a model hub."""

from torch import nn


def convnet(
    width: int = 16, depth: int = 2, channels: int = 1, num_classes: int = 10, dropout: float = 0.0
) -> nn.Sequential:
    """A convnet has `depth` stages of conv-batchnorm-relu twice and a 2x2 pool, doubling `width`; then the mean over
    pixels and a linear head. Input [B, channels, H, W] with H, W >= 2 ** depth; output logits [B, num_classes].

    Args:
        width: Channels of the first stage.
        depth: The number of stages.
        channels: Channels of the images.
        num_classes: The number of classes.
        dropout: The share of features that are dropped before the head.

    Examples:
        >>> from kdcache.networks import convnet
        >>> convnet(width=8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    layers: list[nn.Module] = []
    for stage in range(depth):
        out = width * 2**stage
        layers += [*_conv(channels, out), *_conv(out, out), nn.MaxPool2d(2)]
        channels = out
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(channels, num_classes))


def _conv(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def mlp(width: int = 64, depth: int = 1, inputs: int = 784, num_classes: int = 10) -> nn.Sequential:
    """An mlp has `depth` hidden layers of `width` rectified units and a linear head, on all pixels of an image. Input
    [B, ...] with `inputs` values a row; output logits [B, num_classes].

    Args:
        width: Units of a hidden layer.
        depth: The number of hidden layers.
        inputs: Values of a row.
        num_classes: The number of classes.

    Examples:
        >>> from kdcache.networks import mlp
        >>> mlp(inputs=64)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
