"""Source strings."""

from pathlib import Path

import pytest

from engine.errors import UserError
from engine.market import sources


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ohlcv:prices", "ohlcv:{here}/prices"),
        ("stocknet:a/b", "stocknet:{here}/a/b"),
        ("ohlcv:~/prices", "ohlcv:{home}/prices"),
        ("ohlcv:/prices", "ohlcv:/prices"),
        ("deepstock:copy.parquet", "deepstock:{here}/copy.parquet"),
        ("deepstock:someone/a-data-set", "deepstock:someone/a-data-set"),
        ("deepstock", "deepstock"),
        ("demo", "demo"),
        ("planted:share=0.9", "planted:share=0.9"),
        ("nonsense:x", "nonsense:x"),
    ],
)
def test_a_place_on_disk_is_made_absolute(
    source: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.parquet").touch()
    wanted = expected.format(here=tmp_path, home=Path.home())
    assert sources.absolute(source) == wanted
    assert sources.absolute(wanted) == wanted


def test_every_form_that_is_listed_is_one_that_an_error_names() -> None:
    names = [form.partition(":")[0].partition("[")[0] for form in sources.FORMS]
    assert set(names) == {form.partition(":")[0].partition("[")[0] for form in sources.KNOWN}


@pytest.mark.parametrize("name", ["ohlcv", "stocknet", "deepstock"])
def test_a_name_that_no_file_can_have_is_the_persons_mistake(name: str) -> None:
    source = f"{name}:{'x' * 300}"
    with pytest.raises(UserError, match="File name too long"):
        sources.load(source)
    with pytest.raises(UserError, match="File name too long"):
        sources.absolute(source)
