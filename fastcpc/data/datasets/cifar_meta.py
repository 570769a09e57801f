"""Published facts of CIFAR-10 and CIFAR-100: file names, counts, classes, mean and std."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CifarLayout:
    """One of the two published layouts. kind: "binary" or "python". meta: the file of class names, or empty."""

    kind: str
    folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    meta: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return self.train_files + self.test_files + ((self.meta,) if self.meta else ())


@dataclass(frozen=True)
class CifarFacts:
    """The published facts that a copy on disk must match.

    train_records, test_records: images per training file and per test file. class_names: empty where the meta file
    gives them. num_superclasses: 0 where a record has no coarse label. label_key, coarse_key: keys in the pickles.
    first_labels: the first training labels in the published order. Noise files use that order.
    """

    name: str
    title: str
    num_classes: int
    num_superclasses: int
    class_names: tuple[str, ...]
    train_records: int
    test_records: int
    image_size: int
    label_key: str
    coarse_key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layouts: tuple[CifarLayout, ...]
    first_labels: tuple[int, ...] = ()

    @property
    def label_bytes(self) -> int:
        """Bytes before the pixels in a binary record: the coarse label, where it exists, then the label."""
        return 2 if self.num_superclasses else 1

    @property
    def pixel_bytes(self) -> int:
        return 3 * self.image_size * self.image_size


CIFAR10 = CifarFacts(
    name="cifar10",
    title="CIFAR-10",
    num_classes=10,
    num_superclasses=0,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    train_records=10_000,
    test_records=10_000,
    image_size=32,
    label_key="labels",
    coarse_key="",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    layouts=(
        CifarLayout(
            kind="binary",
            folder="cifar-10-batches-bin",
            train_files=tuple(f"data_batch_{part}.bin" for part in range(1, 6)),
            test_files=("test_batch.bin",),
        ),
        CifarLayout(
            kind="python",
            folder="cifar-10-batches-py",
            train_files=tuple(f"data_batch_{part}" for part in range(1, 6)),
            test_files=("test_batch",),
        ),
    ),
    first_labels=(6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
)

CIFAR100 = CifarFacts(
    name="cifar100",
    title="CIFAR-100",
    num_classes=100,
    num_superclasses=20,
    class_names=(),
    train_records=50_000,
    test_records=10_000,
    image_size=32,
    label_key="fine_labels",
    coarse_key="coarse_labels",
    mean=(0.507, 0.487, 0.441),
    std=(0.267, 0.256, 0.276),
    layouts=(
        CifarLayout("binary", "cifar-100-binary", ("train.bin",), ("test.bin",), meta="fine_label_names.txt"),
        CifarLayout("python", "cifar-100-python", ("train",), ("test",), meta="meta"),
    ),
    first_labels=(19, 29, 0, 11, 1, 86, 90, 28, 23, 31),
)
