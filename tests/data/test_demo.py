import hashlib
import json
import re
from itertools import chain

import pytest

from mlx_rsft.data import demo_words
from mlx_rsft.data.demo import INSTRUCTION, write_demo
from mlx_rsft.data.demo_validation import OTHER_PARTS, OTHER_PHRASINGS
from mlx_rsft.data.demo_words import ACTIONS, NEW_PARTS, NEW_PHRASINGS, TRAINED
from mlx_rsft.errors import ConfigError, RunError

FILES = {
    "train.jsonl": 320,
    "valid.jsonl": 48,
    "valid_new_parts.jsonl": 48,
    "valid_new_phrasings.jsonl": 48,
    "test.jsonl": 96,
    "test_new_parts.jsonl": 96,
    "test_new_phrasings.jsonl": 96,
}
ANSWER = re.compile(r"defect: (?P<defect>[a-z ]+); action: (?P<action>[a-z ]+)")


def rows_in(folder, split):
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def questions(rows):
    return [row["messages"][0]["content"] for row in rows]


def bytes_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def spoken(words, parts):
    """A pattern for each symptom, said of any part."""
    part = "|".join(map(re.escape, parts))
    symptoms = chain.from_iterable(words.symptoms.values())
    return [
        re.compile(re.escape(symptom).replace(r"\{part\}", f"({part})"))
        for symptom in symptoms
    ]


@pytest.fixture
def folder(tmp_path):
    write_demo(tmp_path / "demo", wrong_labels=0.3)
    return tmp_path / "demo"


def test_the_folder_holds_the_seven_splits_and_nothing_else(tmp_path):
    assert write_demo(tmp_path / "demo") == FILES
    assert {
        name: content.count(b"\n")
        for name, content in bytes_in(tmp_path / "demo").items()
    } == FILES


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write_demo(tmp_path / name, wrong_labels=0.2, seed=seed)
    one, same, other = (bytes_in(tmp_path / n) for n in ("one", "same", "other"))
    assert one == same
    assert all(one[name] != other[name] for name in FILES)


def test_published_results_hang_on_these_bytes(folder):
    published = {
        name: content
        for name, content in bytes_in(folder).items()
        if not name.startswith("valid_")
    }
    content = b"".join(content for _, content in sorted(published.items()))
    assert hashlib.sha256(content).hexdigest()[:16] == "d4f1865739edfe82"


def test_tests_do_not_depend_on_how_training_is_drawn(tmp_path):
    write_demo(tmp_path / "small", train_rows=7)
    write_demo(tmp_path / "large", train_rows=900, wrong_labels=1.0)
    small, large = bytes_in(tmp_path / "small"), bytes_in(tmp_path / "large")
    assert {name for name in FILES if small[name] != large[name]} == {"train.jsonl"}


def test_no_question_comes_twice_in_all_the_splits(tmp_path):
    sizes = write_demo(tmp_path / "demo", train_rows=6000, test_rows=600)
    asked = chain.from_iterable(
        questions(rows_in(tmp_path / "demo", name.removesuffix(".jsonl")))
        for name in sizes
    )
    assert len(set(asked)) == sum(sizes.values())


def test_every_row_asks_and_answers_in_one_format_by_one_rule(folder):
    for name in FILES:
        split = name.removesuffix(".jsonl")
        rows = rows_in(folder, split)
        assert [row["id"] for row in rows] == [
            f"{split}-{place:04d}" for place in range(len(rows))
        ]
        for row in rows:
            user, assistant = row["messages"]
            assert [user["role"], assistant["role"]] == ["user", "assistant"]
            assert user["content"].startswith(INSTRUCTION + "\n")
            assert user["content"].removeprefix(INSTRUCTION).islower()
            answer = ANSWER.fullmatch(assistant["content"])
            assert answer
            assert ACTIONS[answer["defect"]] == answer["action"]


def test_every_defect_is_as_frequent_as_the_others(folder):
    for name in FILES:
        rows = rows_in(folder, name.removesuffix(".jsonl"))
        truths = [row.get("truth", row["messages"][1]["content"]) for row in rows]
        counts = {truths.count(truth) for truth in truths}
        assert len(set(truths)) == len(ACTIONS)
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("share", [0.0, 0.07, 0.3, 1.0])
def test_the_share_of_wrong_labels_is_exact_and_tests_stay_clean(tmp_path, share):
    folder = tmp_path / "demo"
    write_demo(folder, train_rows=200, wrong_labels=share)
    train = rows_in(folder, "train")
    wrong = [row for row in train if row["tags"] == ["wrong"]]
    assert len(wrong) == round(200 * share)
    assert all(row["truth"] != row["messages"][1]["content"] for row in wrong)
    others = [row for row in train if row not in wrong]
    for name in set(FILES) - {"train.jsonl"}:
        others += rows_in(folder, name.removesuffix(".jsonl"))
    assert all(row["tags"] == [] and "truth" not in row for row in others)


def test_a_larger_share_keeps_the_mistakes_of_a_smaller_and_every_truth(tmp_path):
    drawn = []
    for share in (0.0, 0.1, 0.4):
        write_demo(tmp_path / str(share), wrong_labels=share)
        drawn.append(rows_in(tmp_path / str(share), "train"))
    for clean, few, many in zip(*drawn, strict=True):
        assert clean["messages"][0] == few["messages"][0] == many["messages"][0]
        assert many == few or not few["tags"]
        for row in (few, many):
            truth = row.get("truth", row["messages"][1]["content"])
            assert truth == clean["messages"][1]["content"]


def test_what_is_chosen_by_shares_no_part_station_or_symptom_with_what_is_tested(
    folder,
):
    tested = "\n".join(
        question
        for name in ("test", "test_new_parts", "test_new_phrasings", "train", "valid")
        for question in questions(rows_in(folder, name))
    )
    chosen_by = questions(rows_in(folder, "valid_new_parts"))
    words = (*OTHER_PARTS.parts, *OTHER_PARTS.stations)
    assert all(any(word in asked for word in words) for asked in chosen_by)
    assert not [word for word in words if word in tested]
    chosen_by = questions(rows_in(folder, "valid_new_phrasings"))
    others = spoken(OTHER_PHRASINGS, TRAINED.parts)
    assert all(any(said.search(asked) for said in others) for asked in chosen_by)
    assert not [said for said in others if said.search(tested)]


def test_new_parts_and_stations_are_never_seen_in_training(folder):
    seen = "\n".join(questions(rows_in(folder, "train") + rows_in(folder, "valid")))
    for asked in questions(rows_in(folder, "test_new_parts")):
        for words in (NEW_PARTS.parts, NEW_PARTS.stations):
            assert any(re.search(rf"\b{word}\b", asked) for word in words), asked
    for word in (*NEW_PARTS.parts, *NEW_PARTS.stations):
        assert not re.search(rf"\b{word}\b", seen), word


def test_new_phrasings_are_never_seen_in_training(folder):
    old, new = spoken(TRAINED, TRAINED.parts), spoken(NEW_PHRASINGS, TRAINED.parts)
    for name, these, those in (
        ("train", old, new),
        ("valid", old, new),
        ("test", old, new),
        ("test_new_phrasings", new, old),
    ):
        for asked in questions(rows_in(folder, name)):
            assert any(words.search(asked) for words in these), asked
            assert not any(words.search(asked) for words in those), asked


@pytest.mark.parametrize(
    "words", [TRAINED, NEW_PARTS, NEW_PHRASINGS, OTHER_PARTS, OTHER_PHRASINGS]
)
def test_every_defect_has_symptoms_of_its_own_that_name_the_part(words):
    assert words.symptoms.keys() == ACTIONS.keys()
    said = list(chain.from_iterable(words.symptoms.values()))
    assert len(set(said)) == len(said)
    assert all(symptom.count("{part}") == 1 for symptom in said)
    assert not set(said) & set(demo_words.REMARKS)


def test_demo_data_written_again_replaces_itself(tmp_path):
    write_demo(tmp_path / "demo", seed=1)
    write_demo(tmp_path / "demo", seed=2)
    write_demo(tmp_path / "fresh", seed=2)
    assert bytes_in(tmp_path / "demo") == bytes_in(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "fresh"}


@pytest.mark.parametrize("names", [["notes.txt"], ["train.jsonl", "test.jsonl"]])
def test_a_folder_with_files_of_the_users_own_is_refused_and_kept(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="holds other files"):
        write_demo(tmp_path)
    assert bytes_in(tmp_path) == dict.fromkeys(names, b"mine")


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "demo").mkdir()
    assert write_demo(tmp_path / "demo") == FILES


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(RunError, match="cannot be written"):
        write_demo(tmp_path / "demo")
    with pytest.raises(RunError, match="cannot be written"):
        write_demo(tmp_path / "demo" / "below")
    assert (tmp_path / "demo").read_text() == "a file"


def test_numbers_out_of_range_are_named_together_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError, match="3 problems") as caught:
        write_demo(tmp_path / "demo", train_rows=0, test_rows=-1, wrong_labels=1.5)
    for name in ("train_rows", "test_rows", "wrong_labels"):
        assert name in str(caught.value)
    assert not (tmp_path / "demo").exists()
