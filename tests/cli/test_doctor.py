import json
import subprocess
import sys

from .conftest import run


def _doctor(*flags):
    code = (
        "import sys\nfrom mlx_rsft.cli.main import main\n"
        "try:\n    main(['doctor', *sys.argv[1:]])\n"
        "finally:\n    print('mlx_lm' in sys.modules, file=sys.stderr)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_a_model_no_model_library_is_loaded_and_all_is_well():
    ran = _doctor()
    assert (ran.returncode, ran.stderr) == (0, "False\n"), ran.stdout
    assert ran.stdout.startswith("ok    python: ")


def test_a_problem_ends_in_3_with_its_remedy(tiny_folder, tmp_path):
    ran = run("doctor", "--model", tmp_path, "--json")
    assert ran.returncode == 3
    record = json.loads(ran.stdout)
    assert not record["fine"]
    ran = run("doctor", "--model", tiny_folder)
    assert ran.returncode == 0
    assert "note  head: " in ran.stdout
    assert "      -> " in ran.stdout
