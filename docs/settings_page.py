"""Makes settings.md out of the code when the pages are built, so that it cannot go stale."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fastcpc.config.describe import describe_page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs with the pages that it has found."""
    files.append(File.generated(config, "settings.md", content=describe_page()))
    return files
