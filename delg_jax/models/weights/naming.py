"""What one source calls the parts of our network, and how it lays out their arrays."""

import dataclasses
from collections.abc import Iterator, Mapping
from string import ascii_lowercase

from delg_jax.models.resnet import ARCHITECTURES, STAGES


@dataclasses.dataclass(frozen=True)
class Naming:
    """One source's names.

    In the names of `unit`, {layer} counts stages from 1, {stage} from 2 (conv2), {unit} units from
    1, {index} from 0, {letter} from a, {n} convolutions from 1 and {branch} from a.

    Attributes:
      convention: of the networks that come under these names.
      whole: our module path to the source's, for modules outside of residual units; {depth} is the
        number in the architecture's name.
      unit: our module name to the source's, for the modules of a residual unit.
      convolution: our leaf name to the source's, for convolutions and dense layers.
      norm: our leaf name to the source's, for BatchNorm.
      separator: between module and leaf.
      output_first: whether kernels are [out, in, h, w] instead of [h, w, in, out].
      ignored: endings or beginnings of variables that have no place here (counters, momenta).
      single: our path to the source's name, for variables that no module table describes.
      fused: name for a convolution to the source's convolution and the BatchNorm after it, which
        become one: its descriptors are what our network has without a BatchNorm.
      patterns: our module path to a regular expression of the source's, where names are not
        published; the shape decides together with it.
      bgr: whether the network reads blue, green, red.
    """

    convention: str
    whole: Mapping[str, str]
    unit: Mapping[str, str]
    convolution: Mapping[str, str]
    norm: Mapping[str, str]
    separator: str
    output_first: bool
    ignored: tuple[str, ...]
    single: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fused: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    patterns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bgr: bool = False

    def modules(self, architecture: str) -> dict[str, str]:
        """The source's module path by ours, for every module of an architecture."""
        depth = architecture.removeprefix("resnet")
        names = {ours: theirs.format(depth=depth) for ours, theirs in self.whole.items()}
        for root, place, n in _convolutions(architecture):
            for ours, theirs in self.unit.items():
                names[f"{root}/{ours.format(n=n)}"] = theirs.format(depth=depth, **place)
        return names

    def leaf(self, module: str, leaf: str) -> str:
        """The source's name of a leaf of our `module`."""
        return (self.norm if is_norm(module) else self.convolution)[leaf]

    def name(self, path: str, modules: Mapping[str, str]) -> str | None:
        """The source's name of our variable `path`, as `resnet/stem_conv/kernel`; None if none."""
        if path in self.single:
            return self.single[path]
        module, _, leaf = path.rpartition("/")
        if module not in modules:
            return None
        return f"{modules[module]}{self.separator}{self.leaf(module, leaf)}"

    def kernels(self, architecture: str) -> set[str]:
        """The source's names of all kernels of a backbone but those of shortcuts."""
        modules = self.modules(architecture)
        kernel = self.separator + self.convolution["kernel"]
        return {
            theirs + kernel
            for ours, theirs in modules.items()
            if ours.startswith("resnet/") and "norm" not in ours and "shortcut" not in ours
        }


def is_norm(module: str) -> bool:
    """Whether the module at a path of ours is a BatchNorm."""
    return "norm" in module.rpartition("/")[2]


def _convolutions(architecture: str) -> Iterator[tuple[str, dict[str, int | str], int]]:
    """Yields for every convolution of a unit: our unit's path, its place, and its number."""
    counts, bottleneck, _ = ARCHITECTURES[architecture]
    for stage, count in enumerate(counts):
        for index in range(count):
            for n in range(1, 4 if bottleneck else 3):
                place = {
                    "layer": stage + 1,
                    "stage": stage + 2,
                    "unit": index + 1,
                    "index": index,
                    "letter": ascii_lowercase[index],
                    "n": n,
                    "branch": ascii_lowercase[n - 1],
                }
                yield f"resnet/{STAGES[stage]}_unit{index + 1}", place, n
