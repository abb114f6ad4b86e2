"""Settings of the documentation, and the pages that are made from the code.

`make docs` builds it. Two references are generated here: every field of configs/default.py, and
every public module of the package.
"""

import importlib.util
import os
import pathlib
import pkgutil
import re
import shutil
import sys

# The notebooks run small programs, which take longer to compile well than to run
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", _QUICK)

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import delg_jax  # noqa: E402

GENERATED = DOCS / "generated"
SOURCE = "https://github.com/delg-jax/delg_jax/blob/main"

project = "delg_jax"
author = "The delg_jax authors"
version = release = delg_jax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "jupyter_execute", "generated/fields.md"]
html_theme = "furo"
html_title = f"delg_jax {version}"
html_css_files = ["tables.css"]
html_static_path = ["_static"]
html_show_copyright = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # fields of a class stand in its description, once
# Optional packages that are not installed
autodoc_mock_imports = [
    name for name in ("aiohttp", "tensorboardX", "wandb") if importlib.util.find_spec(name) is None
]
autodoc_typehints = "none"  # docstrings give shapes and units
suppress_warnings = ["ref.python"]  # names in docstrings are code, not references to modules
smartquotes = False  # "" in the meaning of a field is an empty string
nb_output_stderr = "remove"  # log lines of libraries; an exception still fails the build


def fields() -> list[tuple[str, str, str]]:
    """Name, default and description of every field of configs/default.py."""
    text = (ROOT / "configs" / "default.py").read_text(encoding="utf-8")
    found, above = [], []
    for line in text.splitlines():
        comment = re.fullmatch(r"\s+# (.*)", line)
        field = re.fullmatch(r"    ((?:\w+\.)+\w+) = (.+?)(?:  # (.*))?", line)
        if comment:
            above.append(comment[1])
            continue
        if field and "ConfigDict" not in field[2] and not field[2].startswith("_"):
            described = field[3] or " ".join(above)
            name = field[1].removeprefix("config.")
            name = re.sub("^evaluation[.]", "eval.", name)
            found.append((name, field[2], described))
        above = []
    return found


def write_fields() -> None:
    """Writes the table of all fields, section by section."""
    parts, section = [], ""
    for name, default, description in fields():
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            parts.append(f"\n### {section}\n\n| field | default | meaning |\n| --- | --- | --- |\n")
        cells = (description.replace("|", "\\|"), default.replace("|", "\\|"))
        parts.append(f"| `config.{name}` | `{cells[1]}` | {cells[0]} |\n")
    (GENERATED / "fields.md").write_text("".join(parts), encoding="utf-8")


def modules() -> list[str]:
    """All modules of the package, except the program's verbs and vendored files."""
    found = pkgutil.walk_packages(delg_jax.__path__, "delg_jax.")
    return sorted(
        one.name for one in found if "__main__" not in one.name and ".cli" not in one.name
    )


def write_modules() -> None:
    """Writes one page for each package, with every public name of its modules."""
    pages: dict[str, list[str]] = {}
    for name in modules():
        package = name.split(".")[1]
        pages.setdefault(package, []).append(name)
    del pages["api"]  # docs/api.md
    for package, names in pages.items():
        lines = [f"# {package}\n"]
        for name in names:
            lines += [f"\n## {name.removeprefix('delg_jax.')}\n\n```{{eval-rst}}\n"]
            lines += [f".. automodule:: {name}\n   :members:\n   :ignore-module-all:\n```\n"]
        (GENERATED / f"{package}.md").write_text("".join(lines), encoding="utf-8")


shutil.rmtree(GENERATED, ignore_errors=True)  # pages of modules that are gone
GENERATED.mkdir()
write_fields()
write_modules()


def link_to_source(app, docname, source):
    """Turns links to files outside docs/ into links to the repository."""
    del app, docname
    source[0] = re.sub(r"(?<!\!)(\[[^\]]*\])\(\.\./([^)]+)\)", rf"\1({SOURCE}/\2)", source[0])


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leaves out the fields of named tuples, which the description of the class lists."""
    del app, what, name, options
    return skip or str(getattr(obj, "__doc__", "")).startswith("Alias for field number")


def setup(app):
    """Connects the hooks."""
    app.connect("source-read", link_to_source)
    app.connect("autodoc-skip-member", skip_tuple_fields)
