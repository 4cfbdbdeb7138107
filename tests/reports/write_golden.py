"""Write the golden texts anew: `python tests/reports/write_golden.py`, then read the difference."""

from __future__ import annotations

import tempfile
from pathlib import Path

from report_records import outputs

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "reports"

if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in outputs(Path(folder)).items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
