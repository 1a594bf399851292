"""`videomac report`: read the folders, fill the template, write one file."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import videomac
from videomac.reporting.config import ReportConfig
from videomac.reporting.reading import read_part
from videomac.utils.io import atomic_write
from videomac.utils.run_dir import prepare_out_dir

NAME = "report.html"


def run(config: ReportConfig) -> Path:
    """Write `report.html`: readable offline, in light and dark, on a phone; it loads nothing and runs no script.

    Returns:
        the file.

    Raises:
        UserError: a folder that no command made, a damaged file, or a report that is there already.
    """
    parts = [read_part(folder, config.videos) for folder in (config.folder, *(config.include or []))]
    out = config.folder if config.out is None else config.out
    prepare_out_dir(out, (NAME,), overwrite=config.overwrite)
    environment = Environment(
        loader=PackageLoader("videomac"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(NAME).render(
        parts=parts,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=videomac.__version__,
    )
    with atomic_write(out / NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"wrote {out / NAME} ({len(page) / 2**20:.1f} MiB, self-contained: open it in a browser, or send it on)")
    return out / NAME
