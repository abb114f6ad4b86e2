"""Our networks against the same networks in PyTorch, with random weights; skipped without it."""

import numpy as np
import pytest

from configs import default
from delg_jax.models import delg, weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
nn = torch.nn

COUNTS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class Unit(nn.Module):
    """A residual unit with the attribute names that make torchvision's state dicts."""

    def __init__(self, channels, width, stride, bottleneck):
        super().__init__()
        sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        out = width * 4 if bottleneck else width
        widths = [channels, *[width] * (len(sizes) - 1), out]
        self.count = len(sizes)
        for n, (kernel, step) in enumerate(sizes, start=1):
            convolution = nn.Conv2d(
                widths[n - 1], widths[n], kernel, step, padding=kernel // 2, bias=False
            )
            setattr(self, f"conv{n}", convolution)
            setattr(self, f"bn{n}", nn.BatchNorm2d(widths[n]))
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = x
        for n in range(1, self.count + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = torch.relu(y) if n < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    """Returns the maps of conv4 and conv5."""

    def __init__(self, architecture):
        super().__init__()
        bottleneck, channels = architecture != "resnet18", 64
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        for stage, count in enumerate(COUNTS[architecture]):
            units = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                units.append(Unit(channels, 64 * 2**stage, stride, bottleneck))
                channels = 64 * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*units))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        conv4 = self.layer3(self.layer2(self.layer1(x)))
        return conv4, self.layer4(conv4)


def randomize(module, seed=0):
    """Weights and running statistics that no default would have."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float32 and tensor.ndim < 2:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.1
            tensor.uniform_(low, low + 0.2, generator=generator)
        elif tensor.dtype == torch.float32:
            deviation = (2.0 / tensor[0].numel()) ** 0.5
            tensor.normal_(0.0, deviation, generator=generator)
    return module.eval()


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def as_torch(image):
    """The usual input of torchvision's networks."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = (image / 255.0 - mean) / std
    return torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=torch.float32)


@pytest.mark.parametrize("size", [(96, 96), (97, 131)])
@pytest.mark.parametrize(
    "architecture", ["resnet18", "resnet50", pytest.param("resnet101", marks=pytest.mark.slow)]
)
def test_conv4_and_conv5_are_equal(rng, tmp_path, quick_jit, architecture, size):
    theirs = randomize(TorchResNet(architecture))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    with torch.no_grad():
        expected = [maps[0].numpy().transpose(1, 2, 0) for maps in theirs(as_torch(image))]
    model = default.get_config().model
    model.update(backbone=architecture, convention="torchvision", conv4_stride=16)
    model.update(whitening=False, local_head=False)
    arrays = weights.read_arrays(str(tmp_path / "weights.pth"))
    variables = weights.convert("torchvision", arrays, delg.build(model), classifiers=False)
    outputs = quick_jit(delg.build(model).apply)(variables, image[None])
    assert relative(outputs.conv4[0], expected[0]) < 1e-5
    assert relative(outputs.conv5[0], expected[1]) < 1e-5
