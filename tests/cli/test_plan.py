import json

from .conftest import OF_ONE_RUN, flags_of, run


def test_every_setting_of_train_can_be_planned_with():
    train, plan = flags_of("train", "plan")
    own = OF_ONE_RUN | {"--dry-run", "--init-adapter", "--side-effects"}
    assert train - plan == own
    assert plan - train == {"--memory", "--measure", "--fit"}


def test_a_plan_has_what_the_contract_says(tiny_folder, tiny_data):
    flags = ["--model", tiny_folder, "--data", tiny_data, "--layers", "last:2"]
    ran = run("plan", *flags, "--json")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    contract = {"items", "peak_bytes", "available_bytes", "fits", "advice"}
    assert contract | {"seconds_per_step"} <= set(record)
    said = run("plan", *flags, "--memory", 16)
    assert said.returncode == 0
    assert "fits: 0.0 of 10.7 GiB on a 16 GB Mac" in said.stdout
    assert "activations" in said.stdout


def test_what_does_not_fit_is_said_with_exit_code_3(tiny_folder):
    flags = ["--model", tiny_folder, "--layers", "all", "--memory", 8]
    huge = ["--batch-size", 4096, "--token-budget", 9_000_000]
    ran = run("plan", *flags, *huge, "--json")
    assert ran.returncode == 3, ran.stderr
    record = json.loads(ran.stdout)
    assert not record["fits"]
    assert record["advice"][0]["changes"].keys() == {"training.token_budget"}
    assert record["advice"][-1]["fits"]


def test_settings_that_fit_are_written_for_train(tmp_path, tiny_folder):
    file = tmp_path / "fits.toml"
    flags = ["--model", tiny_folder, "--layers", "all", "--memory", 8]
    huge = ["--batch-size", 4096, "--token-budget", 9_000_000]
    ran = run("plan", *flags, *huge, "--fit", file)
    assert ran.returncode == 0, ran.stderr
    assert "token_budget" in file.read_text()
    assert run("plan", "--config", file, "--memory", 8).returncode == 0


def test_a_size_that_no_mac_has_is_refused(tiny_folder):
    ran = run("plan", "--model", tiny_folder, "--memory", 12)
    assert ran.returncode == 2
    assert "--memory" in ran.stderr
