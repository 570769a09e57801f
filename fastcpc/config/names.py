"""Names of what fastcpc implements, for settings and ``--help``: nothing that needs torch is imported.

Each implementation registers itself under its name; a test compares the names with the registry.
"""

# networks: models/registry.py. A script that registers another one appends its name here.
BACKBONES = ["preact_resnet18", "digits_cnn", "small_cnn", "resnet50"]
TIMM_PREFIX = "timm/"  # model.name=timm/NAME
WEIGHTS_BY_NAME = ["resnet50"]  # networks whose weights can be given by name, beside those of timm
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")


def is_weights_path(weights: str) -> bool:
    """Whether ``model.weights`` is a path: it has a folder or the suffix of a weights file."""
    return "/" in weights or "\\" in weights or weights.endswith(WEIGHTS_SUFFIXES)


# cleaner.kind: the cleaners that a run uses, in order, by their names in cleaner/registry.py. The last one partitions
# the data after cleaner.warmup, the one before it until then. register_cleaner adds a row.
CLEANER_KINDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "gmm_agn": ("gmm_agn",),
    "gmm_awr": ("gmm_awr",),
    "cpc_agn": ("gmm_agn", "prototypes"),
    "cpc_awr": ("gmm_awr", "prototypes"),
    "cpc_only": ("contrastive",),
}
