"""What the tree must not contain."""

from __future__ import annotations

import operator
import pathlib

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_the_folder_operator_never_shadows_the_standard_librarys_module() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert callable(operator.attrgetter)
