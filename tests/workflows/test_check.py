import json
import shutil

import pytest

from mlx_rsft import testing
from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError, DataError, ModelError
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.check import check, save_page, show
from mlx_rsft.workflows.reporter import Silent

TURNS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "thought|a"},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "b"},
]
STRIPS_HISTORY = testing.CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{{ message['content'] if loop.last else message['content'].split('|')[-1] }}",
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({"messages": TURNS}))
    return path


@pytest.fixture
def bare(tiny_folder, tmp_path):
    """A model without a chat template."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_folder, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def _resolved(model, template="model"):
    return resolve(
        [Layer("test", {"model.source": str(model), "data.template": template})]
    )


def _trained(shown):
    return [
        "".join(token["text"] for token in example["tokens"] if token["trained"])
        for example in shown["examples"]
    ]


def test_a_row_is_shown_as_one_example_with_its_special_tokens(file, tiny_folder):
    shown = show(_resolved(tiny_folder), file, 1, Silent())
    assert _trained(shown) == ["thought|a<|end|>b<|end|>"]
    assert shown["where"] == f"{file}:1"
    (example,) = shown["examples"]
    special = {token["text"] for token in example["tokens"] if token["special"]}
    assert special == {"<|start|>", "<|end|>"}


def test_every_example_of_a_row_is_shown_and_checked(file, tiny_folder, tmp_path):
    template = tmp_path / "my.jinja"
    template.write_text(STRIPS_HISTORY)
    resolved = _resolved(tiny_folder, str(template))
    shown = show(resolved, file, 1, Silent())
    assert _trained(shown) == ["thought|a<|end|>", "b<|end|>"]
    told = check(resolved, file, Silent())["splits"]
    (split,) = told.values()
    lengths = [len(example["tokens"]) for example in shown["examples"]]
    assert split["rows"] == 1
    assert split["tokens"] == sum(lengths)


def test_a_page_is_written_whole_or_the_file_is_named(file, tiny_folder, tmp_path):
    shown = show(_resolved(tiny_folder), file, 1, Silent())
    page = tmp_path / "new" / "row.html"
    save_page(shown, page, ids=True)
    assert page.read_text("utf-8").endswith("</html>\n")
    assert [p.name for p in page.parent.iterdir()] == ["row.html"]
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        save_page(shown, file / "row.html", ids=False)
    assert caught.value.where == str(file / "row.html")


def test_a_model_without_a_template_is_refused_until_one_is_chosen(file, bare):
    with pytest.raises(ModelError, match=r"no chat template.*--template.*plain"):
        show(_resolved(bare), file, 1, Silent())
    shown = show(_resolved(bare, "plain"), file, 1, Silent())
    assert _trained(shown) == ["thought|a<|end|>b<|end|>"]
    loaded = assemble.model(_resolved(bare, "plain").config, Silent())
    assert loaded.tokenizer.has_chat_template


def test_rendered_rows_are_not_kept_when_a_template_file_changes(
    file, bare, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "cache"))
    template = tmp_path / "my.jinja"
    first, second = testing.CHAT_TEMPLATE, STRIPS_HISTORY
    counts = []
    for text in (first, second):
        template.write_text(text)
        layer = {"data.source": str(file), "data.template": str(template)}
        config = resolve([Layer("test", layer | {"model.source": str(bare)})]).config
        loaded = assemble.model(config, Silent())
        counts.append(
            len(
                assemble.splits(
                    assemble.training_paths(config), config, loaded, Silent()
                ).rows["train"]
            )
        )
    assert counts == [1, 2]


def _report(folder, rows, **settings):
    for name, lines in rows.items():
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    settings = {f"{key.replace('__', '.')}": value for key, value in settings.items()}
    return check(resolve([Layer("test", settings)]), folder, Silent())


def _pair(question, answer="a", **more):
    return {"prompt": question, "completion": answer, **more}


def test_every_kind_of_fault_is_counted_by_its_name(tmp_path, tiny_folder):
    train = [
        _pair("once"),
        _pair("once"),
        _pair("once", "b"),
        _pair("none", " "),
        {"messages": TURNS[:1]},
        {"messages": [TURNS[0], {**TURNS[1], "weight": 0}]},
        {"prompt": 1.5},
        _pair("x" * 90),
        _pair("gr\ufffdn"),
    ]
    report = _report(
        tmp_path,
        {"train": train, "test": [_pair("once"), _pair("Once!"), _pair("fresh")]},
        model__source=str(tiny_folder),
        data__max_length=60,
    )
    assert report["counts"] == {
        **dict.fromkeys(
            ["duplicate", "contradiction", "empty answer", "role order"], 1
        ),
        **dict.fromkeys(["nothing trained", "malformed", "too long", "encoding"], 1),
        **dict.fromkeys(["leak", "near leak"], 1),
    }
    assert report["hurts"]
    assert report["splits"]["train"]["rows"] == 5
    where = {item["kind"]: item["where"] for item in report["findings"]}
    assert where["role order"].endswith("train.jsonl:5")
    assert where["near leak"].endswith("test.jsonl:2")


def test_tokens_are_counted_per_split_and_tag(tmp_path, tiny_folder):
    rows = [_pair("q", "abc", tags=["x"]), _pair("q2", "de", tags=["x", "y"])]
    report = _report(tmp_path, {"train": rows}, model__source=str(tiny_folder))
    told = report["splits"]["train"]
    assert not report["hurts"]
    assert told["supervised"] == 4 + 3  # bytes and the end of turn
    assert told["tags"]["y"]["supervised"] == 3
    assert told["tags"]["x"]["rows"] == 2
    assert told["longest"] == told["tags"]["x"]["longest"]


def test_a_guessed_encoding_is_told(tmp_path):
    line = json.dumps(
        _pair("ポンプから異音がする", "点検してください"), ensure_ascii=False
    )
    (tmp_path / "train.jsonl").write_bytes(line.encode("cp932"))
    report = check(resolve([]), tmp_path, Silent())
    assert report["splits"]["train"]["encoding"] in ("shift_jis", "cp932")


def test_long_rows_that_are_dropped_are_counted_not_found(tmp_path, tiny_folder):
    rows = [_pair("q"), _pair("x" * 90)]
    report = _report(
        tmp_path,
        {"train": rows},
        model__source=str(tiny_folder),
        data__max_length=60,
        data__overlong="drop",
    )
    assert not report["findings"]
    assert report["splits"]["train"]["dropped"] == 1


def test_a_row_is_shown_whatever_the_others_are(tmp_path, tiny_folder):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x\n' + json.dumps(_pair("q")) + "\n")
    resolved = resolve([Layer("test", {"model.source": str(tiny_folder)})])
    assert show(resolved, path, 2, Silent())["where"] == f"{path}:2"
    with pytest.raises(DataError, match="Not valid JSON"):
        show(resolved, path, 1, Silent())
    with pytest.raises(ConfigError, match="has 2 rows"):
        show(resolved, path, 3, Silent())
