"""Pages that are made from the code and the notebooks whenever the site is built; nothing is written into the tree.

    index.md          the line `<!-- map of the code -->` becomes a table of every package and module
    api/<package>.md  one page a package, in the order of the import contract
    notebooks/*.md    the notebooks as they are stored, without outputs

A page that would load a script, a style sheet or a font from elsewhere is refused: the site works without a network.
"""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # tests read this file where mkdocs is not installed
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CODE = ROOT / "src" / "unbraid"
WIDE = {"architectures.md", "performance.md"}
"""Pages whose tables need the room of the table of contents."""
MAP = "<!-- map of the code -->"
NOTEBOOKS = ROOT / "docs" / "notebooks"
LOADED = re.compile(
    r"""<(?:script[^>]*\bsrc|link[^>]*\brel=["']?stylesheet["']?[^>]*\bhref)=["']?(?:https?:)?//[^"'> ]+"""
)
COMMANDS = re.compile(r'<div class="language-sh highlight">.*?</pre>', re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--[\w.-]+")


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring; empty without one."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0] if text else ""


def packages() -> list[Path]:
    """Return the folders of code at the top of the package, sources first and the command line last."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    order = [name.split(".")[-1] for layer in reversed(layers) for name in re.findall(r"[\w.]+", layer)]
    found = [path.parent for path in CODE.glob("*/__init__.py")]
    return sorted(found, key=lambda path: (order.index(path.name) if path.name in order else -1, path.name))


def modules(folder: Path) -> list[Path]:
    """Return the modules below a folder, those of sub-packages last; scripts that run elsewhere are none."""
    files = [path for path in folder.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    files = [path for path in files if (path.parent / "__init__.py").is_file()]
    return sorted(files, key=lambda path: (len(path.relative_to(folder).parts), path))


def dotted(path: Path) -> str:
    """Return a module's name as it is imported."""
    parts = path.relative_to(CODE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def map_of_the_code() -> str:
    """Return every package and module with its first line, as Markdown tables."""
    lines = ["### At the top", "", "| module | |", "|---|---|"]
    lines += [
        f"| `{path.stem}` | {cell(first_line(path))} |"
        for path in sorted(CODE.glob("*.py"))
        if not path.stem.startswith("__")
    ]
    for folder in packages():
        lines += ["", f"### [`{folder.name}`](api/{folder.name}.md)", "", cell(first_line(folder / "__init__.py")), ""]
        rows = [(path.relative_to(folder).with_suffix("").as_posix(), first_line(path)) for path in modules(folder)]
        lines += ["| module | |", "|---|---|", *(f"| `{name}` | {cell(text)} |" for name, text in rows)] if rows else []
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return text that may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def reference(folder: Path) -> str:
    """Return the page of one package: a section a module, under a heading for each package inside it."""
    lines, inside = [f"# {folder.name}", "", first_line(folder / "__init__.py"), ""], folder
    for path in modules(folder):
        if path.parent not in (folder, inside):
            inside = path.parent
            name = inside.relative_to(folder).as_posix()
            lines += [f"## {name}", "", first_line(inside / "__init__.py"), ""]
        level = 2 if path.parent == folder else 3
        lines += [f"::: {dotted(path)}", f"    options:\n      heading_level: {level}", ""]
    return "\n".join(lines)


def front_door() -> list[str]:
    """Return the functions of `unbraid.api` that `import unbraid` gives, in alphabetical order."""
    tree = ast.parse((CODE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "unbraid.api"]
    return sorted(alias.name for node in imports for alias in node.names)


def top_level() -> str:
    """Return the page of `import unbraid` and of the modules at the top."""
    lines = ["# unbraid", "", first_line(CODE / "__init__.py"), ""]
    for path in sorted(path for path in CODE.glob("*.py") if path.stem != "__init__"):
        only = f"    options:\n      members: {json.dumps(front_door())}\n" if path.stem == "api" else ""
        lines += [f"::: {dotted(path)}", only]
    return "\n".join(lines)


def markdown_of(notebook: dict[str, Any], name: str) -> str:
    """Return a stored notebook as a page: its prose, and its code in blocks."""
    parts = []
    for part in notebook["cells"]:
        text = "".join(part["source"]).strip()
        parts.append(text if part["cell_type"] == "markdown" else f"```python\n{text}\n```")
    download = f"[Download this notebook]({name}){{: download }} and run it; a test of the project runs it too."
    return "\n\n".join([parts[0], download, *parts[1:]])


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Enter the generated pages of the packages into the navigation."""
    for entry in config.nav or []:
        if "API by package" in entry:
            entry["API by package"] = ["api/unbraid.md", *(f"api/{folder.name}.md" for folder in packages())]
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {"api/unbraid.md": top_level()} | {f"api/{folder.name}.md": reference(folder) for folder in packages()}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        pages[f"notebooks/{path.stem}.md"] = markdown_of(json.loads(path.read_text(encoding="utf-8")), path.name)
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Fill in the map of the code, and keep a number and its interval on one line."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return markdown.replace(MAP, map_of_the_code()).replace(" ± ", "\u00a0±\u00a0")


def on_page_content(html: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Keep a flag whole where a long command wraps: a browser would break the line after its dashes."""
    return COMMANDS.sub(lambda block: FLAG.sub(r'<span class="flag">\g<0></span>', block[0]), html)


def on_post_page(output: str, *, page: "Page", config: "MkDocsConfig") -> str:
    """Refuse a page that loads something from elsewhere."""
    from mkdocs.exceptions import PluginError

    found = LOADED.findall(output)
    if found:
        raise PluginError(f"{page.file.src_uri} would load {found[0]} from elsewhere; serve it from the site itself")
    return output
