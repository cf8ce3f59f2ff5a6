"""The README's first Python example, as printed, and what it must print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Tuple

HOME = Path(__file__).resolve().parent.parent
ADDRESS = "http://localhost:6000"


def run_example(url: str) -> Tuple[str, str]:
    """Run it against another address; returns what it wrote to stdout and stderr."""
    blocks = re.findall(r"^```python\n(.*?)^```", (HOME / "README.md").read_text("utf-8"), re.M | re.S)
    assert ADDRESS in blocks[0], f"the README's first example has no {ADDRESS}"
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", blocks[0].replace(ADDRESS, url)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout, done.stderr
