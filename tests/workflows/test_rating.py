import csv
import json

import pytest

from mlx_rsft.config import FLAG, Layer, resolve
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.evaluation.ratings import OURS
from mlx_rsft.workflows import rating
from mlx_rsft.workflows.reporter import Silent


@pytest.fixture
def asked(tiny_folder, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "cache"))
    given = {"model.source": str(tiny_folder), "data.source": str(tiny_data)}
    return resolve(
        [Layer(FLAG, given | {"evaluation.max_tokens": 6, "evaluation.pairs": 9})]
    )


def _fill(folder, choose):
    path = folder / rating.SHEET
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["better"] = choose(row)
    filled = folder / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=";")
        table.writeheader()
        table.writerows(rows)
    return filled


def test_what_raters_say_comes_back_as_wins_of_the_adapter(
    asked, tiny_adapter, tmp_path
):
    folder = tmp_path / "blind"
    made = rating.write(asked, tiny_adapter, "base", folder, Silent())
    key = json.loads((folder / rating.KEY).read_text())
    assert key["questions"] == 12
    assert made["identical"] <= 3
    assert made["pairs"] == 9
    sides = {str(pair["number"]): pair["a"] for pair in key["pairs"]}
    liked = _fill(folder, lambda row: "a" if sides[row["number"]] == OURS else " B ")
    record = rating.read([liked], None)
    assert (record["wins"], record["losses"]) == (made["pairs"], 0)
    assert record["win_share"]["value"] == 1
    assert record["p_value"] == 2 / 2 ** made["pairs"]
    assert record["adapter"] == str(tiny_adapter)
    same = _fill(folder, lambda row: "=" if row["number"] == "1" else "")
    assert rating.read([same], folder / rating.KEY)["ties"] == 1


def test_a_sheet_that_does_not_fit_is_refused_line_by_line(
    asked, tiny_adapter, tmp_path
):
    folder = tmp_path / "blind"
    rating.write(asked, tiny_adapter, "base", folder, Silent())
    wrong = _fill(folder, lambda row: "C" if row["number"] == "2" else "A")
    with pytest.raises(DataError, match=r"filled\.csv:\d+: better = 'C'"):
        rating.read([wrong], None)
    with pytest.raises(DataError, match="No answer is rated"):
        rating.read([folder / rating.SHEET], None)
    filled = _fill(folder, lambda _: "A")
    filled.write_text(filled.read_text().replace("\n1;", "\n77;"))
    with pytest.raises(DataError, match="'77': no pair of the key"):
        rating.read([filled], None)
    with pytest.raises(DataError, match="key of the sheet"):
        rating.read([filled], tmp_path / "none.json")
    with pytest.raises(ConfigError, match="exists already"):
        rating.write(asked, tiny_adapter, "base", folder, Silent())


def test_a_model_is_not_compared_with_itself(asked, tmp_path):
    with pytest.raises(ConfigError, match="same model"):
        rating.write(asked, None, "base", tmp_path / "blind", Silent())
