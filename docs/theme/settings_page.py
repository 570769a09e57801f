"""Generate settings.md from the code when the pages are built."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fastcpc.config.describe import describe_page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page; MkDocs calls this with all pages."""
    files.append(File.generated(config, "settings.md", content=describe_page()))
    return files
