"""Install the wheel of dist/ in a clean environment elsewhere, and run the micro suite there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Try the only wheel of dist/; options after the name go to `bench run micro`."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        programs = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")

        def call(program: str, *words: object) -> str:
            command = [str(programs / program), *map(str, words)]
            done = subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True
            )
            return done.stdout

        call("python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
        said = call("bench", "--version").split()
        if said[-1] != version:
            sys.exit(f"bench --version says {said[-1]}, the wheel is {version}")
        place = call("python", "-c", "import bench; print(bench.__file__)").strip()
        if not Path(place).is_relative_to(folder.resolve()):
            sys.exit(f"bench is imported from {place}, not from the new environment")
        run = ("run", "micro", "--runs", folder / "runs", "--cache", folder / "cache")
        print(call("bench", *run, *sys.argv[1:]))
        print(f"{wheel.name} works: bench {version}, micro ran")


if __name__ == "__main__":
    main()
