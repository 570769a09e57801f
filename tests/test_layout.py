"""A folder has at most 12 files, so that its list is read at a glance."""

import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_FILES = 12
EXEMPT = {
    "configs": "the names are part of the interface: configs/NAME.yaml",
    "docs": "one page per topic; mkdocs.yml has their order",
    "bench/results": "figures that benches write",
    "tests/assets": "files that tests read",
}


def test_no_folder_has_more_than_12_files() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [Path(name) for name in listed.splitlines() if not name.endswith("__init__.py")]
    counts = Counter(str(file.parent) for file in files if len(file.parts) > 1)
    assert counts["fastcpc/engine"] > 5 and counts["tests/data/loaders"] > 1
    crowded = {folder: count for folder, count in counts.items() if count > MAX_FILES}
    unexplained = [f for f in crowded if not any(f == name or f.startswith(f"{name}/") for name in EXEMPT)]
    assert not unexplained, crowded
