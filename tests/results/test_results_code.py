"""The digest of code: which edits it notices, which it does not, and that versions agree on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import codebase
from bench.results.code import Closure, InstalledSources, Library, StoredSources, changed_files
from bench.results.syntax import read_module
from tests.plug_ins import installed

ROOT = Path(__file__).resolve().parents[2]

TREE = {
    "pack/__init__.py": "from pack.inner import passed_on\n",
    "pack/method.py": '''"""A method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from pack import constants, passed_on
from pack.helper import first
from pack.models import Base, Settings

if TYPE_CHECKING:
    from pack.types_only import Hint


class Method(Base):
    """Averages."""

    Config = Settings

    def fit(self, x: Hint) -> float:
        """Return a number."""
        from pack.late import late

        if x < 0:
            raise ValueError(f"x is {x}; make it positive")
        total: float = first(x) + passed_on(x)  # a comment
        return late(total) * constants.SCALE + softmax(np.ones(2))[0]


def unused():
    return 1
''',
    "pack/helper.py": "from pack.second import second\n\ndef first(x):\n    return second(x) + 1\n",
    "pack/second.py": "def second(x, by=2):\n    return x * by\n",
    "pack/late.py": "def late(x):\n    return x - 1\n\nclass Other:\n    pass\n",
    "pack/inner.py": "from pack.deep import passed_on\n",
    "pack/deep.py": "def passed_on(x):\n    return x\n",
    "pack/constants.py": "SCALE = 3\nOTHER = 4\n",
    "pack/models.py": "class Base:\n    size: int = 1\n\nclass Settings:\n    rate: float\n",
    "pack/types_only.py": "class Hint:\n    pass\n",
}
ENTRY = "pack.method:Method"


def closure(texts: dict[str, str] = TREE, *entries: str) -> Closure:
    """Return the closure of a tree's method, or of other entries."""
    return Library(StoredSources(frozenset({"pack"}), texts)).closure(entries or [ENTRY])


def edited(path: str, old: str, new: str) -> dict[str, str]:
    """Return the tree with one piece of text replaced."""
    assert old in TREE[path], f"{old!r} is not in {path}"
    return {**TREE, path: TREE[path].replace(old, new, 1)}


NOTICED = {
    "a method": ("pack/method.py", "passed_on(x)  #", "2 * passed_on(x)  #"),
    "a method's condition": ("pack/method.py", "x < 0", "x <= 0"),
    "a raised class": ("pack/method.py", "raise ValueError", "raise TypeError"),
    "an attribute": ("pack/method.py", "Config = Settings", "Config = Settings()"),
    "a function of another package": ("pack/method.py", "scipy.special", "scipy.other"),
    "what a name of another package means": ("pack/method.py", "import numpy", "import cupy"),
    "a helper": ("pack/helper.py", "+ 1", "+ 2"),
    "a helper two imports away": ("pack/second.py", "x * by", "x ** by"),
    "a default": ("pack/second.py", "by=2", "by=3"),
    "what an import inside a function brings": ("pack/late.py", "x - 1", "x - 2"),
    "what a package passes on": ("pack/deep.py", "return x", "return -x"),
    "a constant read as an attribute": ("pack/constants.py", "SCALE = 3", "SCALE = 4"),
    "a base class": ("pack/models.py", "= 1", "= 2"),
    "the type of a model's field": ("pack/models.py", "rate: float", "rate: int"),
    "what a module does on import": ("pack/second.py", "def second", "print()\n\ndef second"),
}


@pytest.mark.parametrize("edit", NOTICED.values(), ids=NOTICED)
def test_notices_an_edit_and_names_the_file(edit: tuple[str, str, str]) -> None:
    before, after = closure(), closure(edited(*edit))
    assert before.digest != after.digest
    assert changed_files(before.files, after.files) == [edit[0]]


OVERLOOKED = {
    "a comment": ("pack/method.py", "  # a comment", "  # another"),
    "a docstring": ("pack/method.py", '"""Averages."""', '"""Takes the mean."""'),
    "no docstring": ("pack/method.py", '        """Return a number."""\n', ""),
    "a module's docstring": ("pack/method.py", '"""A method."""', '"""One."""'),
    "layout": ("pack/method.py", "first(x) + passed_on(x)", "(\n  first(x)\n  + passed_on(x)\n)"),
    "a hint of a variable": ("pack/method.py", "total: float", "total"),
    "hints of a function": ("pack/method.py", "x: Hint) -> float", "x)"),
    "words of an error": ("pack/method.py", "make it positive", "raise it"),
    "what is not reached": ("pack/method.py", "    return 1", "    return 2"),
    "a constant that is not read": ("pack/constants.py", "OTHER = 4", "OTHER = 5"),
    "a class for type checkers": ("pack/types_only.py", "pass", "size = 1"),
    "an import that does nothing": ("pack/late.py", "def late", "import json\n\ndef late"),
}


@pytest.mark.parametrize("edit", OVERLOOKED.values(), ids=OVERLOOKED)
def test_overlooks_what_cannot_change_a_number(edit: tuple[str, str, str]) -> None:
    after = closure(edited(*edit))
    assert after.digest == closure().digest
    assert after.files == closure().files


def test_overlooks_a_module_that_moves() -> None:
    moved = {path: text.replace("pack.second", "pack.far.away") for path, text in TREE.items()}
    moved["pack/far/__init__.py"] = ""
    moved["pack/far/away.py"] = moved.pop("pack/second.py")
    assert closure(moved).digest == closure().digest
    assert changed_files(closure().files, closure(moved).files) == []


def test_overlooks_a_module_that_is_cut_in_two() -> None:
    whole = edited("pack/helper.py", "from pack.second import second", TREE["pack/second.py"])
    del whole["pack/second.py"]
    assert closure(whole).digest == closure().digest


def test_overlooks_another_way_to_the_same_definition() -> None:
    direct = edited("pack/method.py", "constants, passed_on", "constants")
    direct["pack/method.py"] = direct["pack/method.py"].replace(
        "from pack.helper", "from pack.deep import passed_on\nfrom pack.helper"
    )
    assert closure(direct).digest == closure().digest


def test_names_the_changed_file_among_moved_ones() -> None:
    moved = {path: text.replace("pack.second", "pack.third") for path, text in TREE.items()}
    moved["pack/third.py"] = moved.pop("pack/second.py")
    moved["pack/late.py"] = moved["pack/late.py"].replace("x - 1", "x - 2")
    assert changed_files(closure().files, closure(moved).files) == ["pack/late.py"]


def test_tells_equal_helpers_apart_by_what_they_use() -> None:
    """Two modules have a helper of the same text; who uses which of them matters."""
    tree = {
        "pack/__init__.py": "",
        "pack/a.py": "SCALE = 1\n\ndef scaled(x):\n    return SCALE * x\n",
        "pack/b.py": "SCALE = 2\n\ndef scaled(x):\n    return SCALE * x\n",
        "pack/use.py": "from pack.a import scaled as f\nfrom pack.b import scaled as g\n\n"
        "def use(x):\n    return f(x) - 2 * g(x)\n",
    }
    swapped = tree["pack/use.py"].replace("pack.a", "pack.c").replace("pack.b", "pack.a")
    other = {**tree, "pack/use.py": swapped.replace("pack.c", "pack.b")}
    assert closure(tree, "pack.use:use").digest != closure(other, "pack.use:use").digest


def test_follows_star_imports_modules_as_values_and_lazy_packages() -> None:
    tree = {
        "pack/__init__.py": "def __getattr__(name):\n    return LAZY[name]\n\nLAZY = {}\n",
        "pack/names.py": "def star(x):\n    return x\n",
        "pack/table.py": "def entry(x):\n    return x\n",
        "pack/use.py": "from pack import lazy, table\nfrom pack.names import *\n\n"
        "def use(name):\n    return star(getattr(table, name)(lazy))\n",
    }
    found = closure(tree, "pack.use:use").definitions
    assert {"pack/names.py:star", "pack/table.py:entry", "pack/__init__.py:LAZY"} <= found.keys()


def test_takes_in_what_registers_itself() -> None:
    """A definition under a decorator of the package's own may be found without its name."""
    tree = {
        "pack/__init__.py": "from pack import losses\n",
        "pack/known.py": "KNOWN = []\n\ndef register(f):\n    KNOWN.append(f)\n    return f\n",
        "pack/losses.py": "from pack.known import register\n\n@register\ndef l1(x):\n    pass\n",
        "pack/use.py": "from pack.known import KNOWN\n\ndef use(name):\n    return KNOWN[name]\n",
    }
    assert "pack/losses.py:l1" in closure(tree, "pack.use:use").definitions


def test_takes_both_ends_of_a_conditional_definition() -> None:
    tree = {
        "pack/__init__.py": "",
        "pack/fast.py": "def f(x):\n    return x\n",
        "pack/use.py": "try:\n    from pack.fast import f\nexcept ImportError:\n    f = None\n\n"
        "def use(x):\n    return f(x)\n",
    }
    found = closure(tree, "pack.use:use").definitions
    assert "pack/fast.py:f" in found
    assert "pack/use.py:f" in found


def test_follows_circles_and_relative_imports() -> None:
    tree = {
        "pack/__init__.py": "",
        "pack/a.py": "from . import b\n\ndef even(n):\n    return n == 0 or b.odd(n - 1)\n",
        "pack/b.py": "from .a import even\n\ndef odd(n):\n    return n != 0 and even(n - 1)\n",
    }
    assert closure(tree, "pack.a:even").digest == closure(tree, "pack.b:odd").digest


def test_leaves_out_what_only_a_named_function_reaches() -> None:
    library = Library(StoredSources(frozenset({"pack"}), TREE))
    found = library.closure([ENTRY], without=["pack.helper:first"])
    assert not {"pack/helper.py", "pack/second.py"} & found.files.keys()
    assert "pack/deep.py" in found.files


def test_hints_of_a_dataclass_count_and_lead_nowhere() -> None:
    tree = {
        "pack/__init__.py": "",
        "pack/big.py": "class Big:\n    pass\n",
        "pack/use.py": "import dataclasses\nfrom pack.big import Big\n\n"
        "@dataclasses.dataclass(frozen=True)\nclass Use:\n    big: Big\n    size: int = 1\n",
    }
    other = {**tree, "pack/use.py": tree["pack/use.py"].replace("size: int", "size: float")}
    assert closure(tree, "pack.use:Use").files.keys() == {"pack/use.py"}
    assert closure(tree, "pack.use:Use").digest != closure(other, "pack.use:Use").digest


def test_refuses_an_entry_that_is_not_there() -> None:
    with pytest.raises(LookupError, match=re.escape("pack.method:Nothing")):
        closure(TREE, "pack.method:Nothing")


def test_reads_an_installed_package_without_importing_it(tmp_path: Path, monkeypatch) -> None:
    for path, text in TREE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert Library(InstalledSources({"pack"})).closure([ENTRY]) == closure()
    assert "pack" not in sys.modules


@pytest.mark.parametrize("path", ["lone.py", "lone/inner.py"])
def test_the_digest_of_all_sources_notices_a_plug_in_of_one_file_and_of_a_folder(
    tmp_path: Path, path: str
) -> None:
    files = {path: "class Lone:\n    pass\n"}
    if "/" in path:
        files["lone/__init__.py"] = "from lone.inner import Lone\n"
    codebase._points.cache_clear()
    with installed(tmp_path, files, "[purer_bench.methods]\nlone = lone:Lone\n"):
        before = codebase.sources_digest()
        assert codebase.sources_digest() == before
        (tmp_path / path).write_text("class Lone:\n    size = 1\n", encoding="utf-8")
        assert codebase.sources_digest() != before
    codebase._points.cache_clear()


SAMPLE = '''
import os, math as m
from functools import partial as p

@p(print, end="")
async def f(a, /, b: int = -1, *c, d=None, **e) -> "None":
    """Doc."""
    x: dict[str, int] = {**e, "k": 1_000, None: 2.50}
    async with a as g:
        y = [i async for i in g if i]
    z = f"a{a!r:>{b}} {'q'}" "tail" f"{m.pi=}"
    match a:
        case {"k": [1, *rest], **others} if rest: return lambda q, *r: q @ r[0]
        case str() | None: yield x[1:, ::2, ...]
    try:
        del y
    except* OSError as error:
        raise KeyError(f"no {error} of {z}") from error
    else:
        assert (n := len(z)) < 1e300, b"\\xff"
    while not os.environ: pass

class C(dict, metaclass=type):
    one: "int" = 1j
    "doc"
    def g(self): return super().g(*self.one, **{"é": "\\U0001fae8"})
'''
GOLDEN = {
    "f": "3375c7d0c57cf918ca3e0f81498c2f18147eba5d939fc7b8c33ec0b7072e0ff2",
    "C": "0874f98e2fe1f2fac9272f0bce3c583fb83b785721959241c083f2875e8e95fd",
}


def test_sample_has_the_digest_that_every_version_gives() -> None:
    found = read_module(SAMPLE, "").definitions
    assert {name: one.sha256 for name, one in found.items()} == GOLDEN


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_other_versions_of_python_agree(version: str) -> None:
    """The closure of all of PURER is the same under another interpreter."""
    python = shutil.which(f"python{version}")
    surroundings = {**os.environ, "PYENV_VERSION": version}  # which of pyenv's, where it is used
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); print(sys.version_info[:2])\n"
        "from bench.results.code import InstalledSources, Library\n"
        "library = Library(InstalledSources(['bench', 'purer']))\n"
        "print(library.closure(['purer.method:Purer']).digest)\n"
    )
    answer = python and subprocess.run(
        [python, "-I", "-c", code], env=surroundings, capture_output=True, text=True, check=False
    )
    if not answer or answer.returncode:
        pytest.skip(f"python{version} is not installed here")
    here = Library(InstalledSources({"bench", "purer"})).closure(["purer.method:Purer"])
    assert answer.stdout.splitlines()[1] == here.digest
