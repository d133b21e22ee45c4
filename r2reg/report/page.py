"""Pages that need nothing else: a template with the common style and script, filled and written at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r2reg.io.files import atomic_path


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Fill a template of this folder and write it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("r2reg.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template(template).render(**content)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
