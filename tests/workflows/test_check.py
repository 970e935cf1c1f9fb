import json
import shutil

import pytest

from mlx_rsft import testing
from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError, ModelError
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
            len(assemble.training_splits(config, loaded, Silent()).rows["train"])
        )
    assert counts == [1, 2]
