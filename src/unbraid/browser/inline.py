"""The browser of latents in a notebook: one page that holds all, in the output of a cell."""

import html
import re
import shutil
import tempfile
import weakref
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from unbraid import catalog
from unbraid.browser.folder import write_browser
from unbraid.config.serialise import OWN_PACKAGES
from unbraid.config.settings import checked
from unbraid.evals.shared.evaluation import evaluate
from unbraid.runs.run import Run
from unbraid.runs.select import Runs, folders_of

MOST_BYTES = 2**25
"""Largest page in the output of a cell: notebooks keep it in their file."""


@dataclass(frozen=True, eq=False)
class Pages:
    """The pages of a browser; in a notebook it is shown in the output of its cell."""

    folder: Path
    height: int
    """Of the frame in a notebook, in pixels."""

    def open(self) -> bool:
        """Open the pages in the web browser of this machine; False when there is none."""
        return webbrowser.open((self.folder / "index.html").resolve().as_uri())

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a frame with a page of its own, so that neither touches the other."""
        frame = f'width="100%" height="{self.height}" style="border: 1px solid #8888" title="Latents"'
        return f'<iframe {frame} srcdoc="{html.escape(one_page(self.folder))}"></iframe>'


def browse(
    runs: Runs, *, out: str | Path | None = None, height: Annotated[int, Ge(100)] = 720,
    packages: tuple[str, ...] = (),
) -> Pages:  # fmt: skip
    """Look at every latent of a run, or of two of one source side by side; in a notebook, in the output of the cell.

    Args:
        runs: a run folder, a pattern, a Run, or two of them. Examples are made first where there are none.
        out: a new folder for the pages, to keep or send; by default they go with the object that is returned.
        height: of the frame in a notebook, in pixels.
        packages: packages of yours whose classes the runs name.

    Returns:
        The pages; `.open()` shows them in a web browser, and `.folder` is where they are.

    Raises:
        ValueError: for more than two runs, for two of different sources, where no examples can be made, and when `out`
            exists.

    Examples:
        >>> pages = ub.browse("runs/mine")
        >>> (pages.folder / "index.html").exists()
        True
    """
    checked("height", height, Annotated[int, Ge(100)])
    opened = [Run.open(folder, (*OWN_PACKAGES, *packages)) for folder in folders_of(runs)]
    if len(opened) <= 2:  # more are refused by write_browser, before any work
        evaluate(opened, [catalog.evals()["examples"]])
    if out is not None:
        write_browser(opened, folder := Path(str(out)).expanduser())
        return Pages(folder, height)
    home = Path(tempfile.mkdtemp(prefix="unbraid-"))
    pages = Pages(home / "pages", height)
    weakref.finalize(pages, shutil.rmtree, home, ignore_errors=True)
    write_browser(opened, pages.folder)
    return pages


def one_page(folder: Path) -> str:
    """Return the pages of a browser as one, with scripts, style and data inside. Raises ValueError for one too large
    to be put in a notebook."""
    data = sorted((folder / "data").rglob("*.js"))
    size = sum(path.stat().st_size for path in data)
    if size > MOST_BYTES:
        raise ValueError(
            f"the pages take {size / 1e6:.0f} MB, and a notebook holds {MOST_BYTES / 1e6:.0f} at most; open them from "
            f"the disk: {folder / 'index.html'}, or .open()"
        )
    page = (folder / "index.html").read_text(encoding="utf-8")
    style = (folder / "browser.css").read_text(encoding="utf-8")
    page = page.replace('<link rel="stylesheet" href="browser.css">', f"<style>{style}</style>")
    # In strings, where alone it can stand in data, "<" may be written so: no text ends the script that it is in.
    told = [path.read_text(encoding="utf-8").replace("<", "\\u003c") for path in data]
    there = [f'unbraid.asked["{path.relative_to(folder / "data").as_posix()}"] = Promise.resolve();' for path in data]

    def script(found: re.Match[str]) -> str:
        text = (folder / found[1]).read_text(encoding="utf-8")
        return f"<script>{text}</script>" + (
            f"<script>{''.join(told + there)}</script>" if found[1] == "data.js" else ""
        )

    return re.sub(r'<script src="(\w+\.js)"></script>', script, page)
