import pytest

from manylens.errors import UnsupportedError
from manylens.evaluation.measures._extras import extra


def test_a_package_that_is_there() -> None:
    assert extra("json", "text", "reading").dumps([]) == "[]"


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.metrics"])
def test_one_that_is_not_is_named_with_its_remedy(package: str) -> None:
    message = r"^reading: needs no_such_package; run: pip install 'manylens\[text\]'$"
    with pytest.raises(UnsupportedError, match=message):
        extra(package, "text", "reading")
