"""The notebooks of the docs run, and their pages are what they are now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import bench
from bench.suites import protocols
from tests.helpers import few_images

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.fixture(scope="module")
def renderer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/site/notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def briefly(monkeypatch: pytest.MonkeyPatch, name: str, **settings: object) -> None:
    """Let a function of the package take some settings whatever it is told."""
    function = getattr(bench, name)
    monkeypatch.setattr(bench, name, lambda *words, **more: function(*words, **more | settings))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_page_is_up_to_date(
    renderer: ModuleType, path: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers differ between machines; text, code and the kinds of outputs do not.

    Teachers are two and trained for an epoch, fits are short, and scores are of few tasks; the
    images are few.
    """
    load = bench.load_data
    monkeypatch.setattr(bench, "load_data", lambda *words: few_images(load(*words)))
    briefly(monkeypatch, "evaluate", n_tasks=8)
    brief = {"teacher_epochs": 1, "max_teachers": 2, "meta_iterations": 4, "validate_every": 2}
    budget = protocols.budget("micro").model_copy(update={**brief, "n_val_tasks": 2})
    briefly(monkeypatch, "train_pool", budget=budget)
    briefly(monkeypatch, "fit", budget=budget)
    monkeypatch.setenv("PURER_BENCH_CACHE", str(cache))
    page = renderer.render(path, tmp_path)
    stored = path.with_suffix(".md")
    found, expected = (one.read_text(encoding="utf-8") for one in (page, stored))
    assert renderer.without_outputs(found) == renderer.without_outputs(expected), (
        "run python docs/site/notebooks.py"
    )
    assert found.count(renderer.OUTPUT) == expected.count(renderer.OUTPUT)
    assert found.count("\n| --- ") == expected.count("\n| --- ")
    pictures = [one.name for one in tmp_path.glob("*.png")]
    assert sorted(pictures) == sorted(one.name for one in path.parent.glob(f"{path.stem}-*.png"))
    assert all(f"]({name})" in found for name in pictures)


def test_cells_are_run_in_one_namespace_and_their_outputs_shown(
    renderer: ModuleType, tmp_path: Path
) -> None:
    notebook = tmp_path / "one.py"
    notebook.write_text(
        "# %% [markdown]\n# # Title\n#\n# text\n\n# %%\na = 2\nprint(a)\n\n# %%\nb = a + 1\nb\n\n"
        "# %%\nimport pandas\npandas.DataFrame({'x': [1, b]})\n"
    )
    page = renderer.render(notebook, tmp_path).read_text()
    assert page.startswith("# Title\n\ntext\n\n```python\na = 2\nprint(a)\n```\n\n")
    assert f"{renderer.OUTPUT}2\n```" in page
    assert f"{renderer.OUTPUT}3\n```" in page
    assert "| x |\n| --- |\n| 1 |\n| 3 |" in page
    assert "3" not in renderer.without_outputs(page)
