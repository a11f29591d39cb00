"""Discovery and isolation, on distributions that lie on sys.path as pip would have put them there."""

import importlib

import pytest

import invsolve
from invsolve import plugins
from invsolve.errors import InputError, PluginError, UnknownName
from invsolve.file_part import is_file_part
from invsolve.hookspecs import KINDS
from invsolve.options import describe

GOOD = """
from invsolve import hookimpl
def stretch(shape, by: int = 2):
    "Stretch rows."
@hookimpl
def invsolve_operators():
    return {"%s": stretch}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write a module and its dist-info into a folder of sys.path, and forget the module afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("INVSOLVE_DISABLE_PLUGINS", "invsolve-stripes")  # CI may have installed it

    def write(name, source):
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[invsolve]\n{name} = {module}\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(importlib.import_module("sys").modules, module, raising=False)

    return write


def _built_ins():
    return [part for part in plugins.load({"INVSOLVE_DISABLE_PLUGINS": "all"}).parts]


@pytest.mark.parametrize("part", _built_ins(), ids=lambda part: f"{part.kind}:{part.name}")
def test_a_built_in_resolves_and_is_described_alike_from_source_and_live(part):
    assert describe(part.load()) == part.describe()
    assert part.describe().sentence


def test_every_hook_is_used_by_a_built_in_part_or_named_here():
    assert set(KINDS) - {part.kind for part in _built_ins()} == {"metric"}


def test_an_installed_plugin_is_found_with_its_distribution(install):
    install("good-kit", GOOD % "stretch")
    part = plugins.load().part("operator", "stretch")
    assert (part.distribution, part.version, part.describe().sentence) == ("good-kit", "1.5", "Stretch rows.")


BROKEN = {
    "ModuleNotFoundError: No module named 'nowhere' (broken_kit.py:1)": "import nowhere",
    "SystemExit: 3": "import sys; sys.exit(3)",
    "ZeroDivisionError": "from invsolve import hookimpl\n@hookimpl\ndef invsolve_operators(): return 1 / 0",
    "must return a dict {name: factory}, but it returns ['a']": (
        "from invsolve import hookimpl\n@hookimpl\ndef invsolve_operators(): return ['a']"
    ),
    "it implements no hook": "x = 1",
    "invsolve_operator": "from invsolve import hookimpl\n@hookimpl\ndef invsolve_operator(): return {}",
    "names a part 'Two Words', but a name is in kebab-case": GOOD % "Two Words",
    "gives 3 for 'a'": "from invsolve import hookimpl\n@hookimpl\ndef invsolve_sdes(): return {'a': 3}",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_plugin_is_one_warning_and_one_row_and_nothing_else(install, capsys, reason):
    install("broken-kit", BROKEN[reason])
    install("good-kit", GOOD % "stretch")
    registry = plugins.load()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: plugin 'broken-kit' of broken-kit 1.5 is broken: ")
    assert reason in line
    row = registry.rows("metric")[-1]
    assert (row.broken, row.distribution) == (True, "broken-kit")
    assert row.description.startswith("broken: ")
    assert reason in row.description
    assert "stretch" in registry.names("operator")
    assert registry.get("sde", "ve")().sigma_max == 50


def test_ctrl_c_during_an_import_is_not_swallowed(install):
    install("broken-kit", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugins.load()


def test_what_a_plugin_prints_goes_to_stderr(install, capsys):
    install("good-kit", "print('hello')\n" + GOOD % "stretch")
    plugins.load()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


def test_a_name_offered_twice_is_an_error_for_who_asks_for_it_only(install):
    install("one-kit", GOOD % "stretch")
    install("two-kit", GOOD % "stretch")
    registry = plugins.load()
    sentence = r"'stretch' is offered by both 'one-kit' and 'two-kit'\. Uninstall one"
    with pytest.raises(PluginError, match=sentence):
        registry.get("operator", "stretch")
    assert registry.get("operator", "inpaint")
    rows = [row for row in registry.rows("operator") if row.name == "stretch"]
    assert [row.broken for row in rows] == [True, True]


def test_a_plugin_cannot_shadow_a_built_in_silently(install):
    install("good-kit", GOOD % "inpaint")
    with pytest.raises(PluginError, match="'invsolve' and 'good-kit'"):
        plugins.load().get("operator", "inpaint")


@pytest.mark.parametrize("disabled", ["good-kit", "x, good-kit", "all"])
def test_a_plugin_can_be_disabled(install, disabled):
    install("good-kit", GOOD % "stretch")
    assert "stretch" not in plugins.load({"INVSOLVE_DISABLE_PLUGINS": disabled}).names("operator")


def test_strict_makes_a_broken_plugin_an_error(install):
    install("broken-kit", "import nowhere")
    with pytest.raises(PluginError, match="nowhere"):
        plugins.load({"INVSOLVE_STRICT_PLUGINS": "1"})


def test_an_unknown_name_is_answered_by_its_neighbour():
    with pytest.raises(UnknownName, match=r"'momentmatching'\. Did you mean 'moment-matching'\?"):
        plugins.load().get("guidance", "momentmatching")


def test_a_part_named_by_a_string_that_leads_nowhere_is_broken_alone(install):
    source = "from invsolve import hookimpl\n@hookimpl\ndef invsolve_sdes(): return {'lost': 'gone.sde:Lost'}"
    install("good-kit", source)
    registry = plugins.load()
    (row,) = [row for row in registry.rows("sde") if row.name == "lost"]
    assert (row.broken, row.description) == (True, "broken: there is no source of a module 'gone.sde'")
    with pytest.raises(PluginError, match="sde 'lost' of 'good-kit' is broken: ModuleNotFoundError"):
        registry.get("sde", "lost")


def test_an_exception_of_a_plugins_factory_names_the_plugin(install):
    install("good-kit", GOOD.replace('"Stretch rows."', "raise RuntimeError('no torch here')") % "stretch")
    with pytest.raises(PluginError, match="'stretch' of 'good-kit' is broken: RuntimeError: no torch"):
        plugins.load().build("operator", "stretch", (1, 2, 2))


def test_an_input_error_of_a_plugins_factory_stays_one(install):
    body = "from invsolve.errors import InputError; raise InputError('by is odd.')"
    install("good-kit", GOOD.replace('"Stretch rows."', body) % "stretch")
    with pytest.raises(InputError, match="by is odd"):
        plugins.load().build("operator", "stretch", (1, 2, 2), options={"by": 3})


# ---- a factory from a file


def test_a_factory_is_taken_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def half(shape, by: int = 2):\n    return shape, by\n")
    registry = plugins.load()
    assert registry.build("operator", f"{tmp_path}/mine.py:half", (1,), options={"by": 3}) == ((1,), 3)


FILES = {
    "has no 'hafl'. Did you mean 'half'\\? It defines: half": "def half(shape): ...",
    "'hafl' of .* is of type int, but a part is a function or a class": "hafl = 3",
    "is broken: ModuleNotFoundError: No module named 'nowhere' \\(mine.py:2\\)": "x = 1\nimport nowhere",
    "is broken: SyntaxError": "def hafl(:",
}


@pytest.mark.parametrize("sentence", FILES)
def test_what_is_wrong_with_a_file_is_said(tmp_path, sentence):
    (tmp_path / "mine.py").write_text(FILES[sentence])
    with pytest.raises((InputError, PluginError), match=sentence):
        plugins.load_file_part(f"{tmp_path}/mine.py:hafl")


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(InputError, match=r"there is no file 'mine.py' to take half from"):
        plugins.load_file_part("./mine.py:half")


def test_a_file_without_a_name_lists_what_it_defines(tmp_path):
    (tmp_path / "mine.py").write_text("def half(shape): ...\ndef third(shape): ...")
    with pytest.raises(InputError, match="It defines: half, third"):
        plugins.load_file_part(f"{tmp_path}/mine.py")


@pytest.mark.parametrize("name", ["./mine.py:half", r"C:\work\mine.py:half", "mine.py", "/a b/mine.py:half"])
def test_a_path_is_told_from_a_name(name):
    assert is_file_part(name)


@pytest.mark.parametrize("name", ["stripes", "operator:stripes", "photo.safetensors"])
def test_a_name_is_told_from_a_path(name):
    assert not is_file_part(name)


# ---- the public names


@pytest.mark.parametrize("name", invsolve.__all__)
def test_a_public_name_can_be_had(name):
    assert getattr(invsolve, name) is not None
    assert name in dir(invsolve)


def test_a_public_name_is_typed_where_it_is_found():
    source = importlib.import_module("pathlib").Path(invsolve.__file__).read_text()
    for name, module in invsolve._HOME.items():
        assert f"    from invsolve.{module} import {name} as {name}\n" in source


def test_solve_stays_a_function_when_its_module_is_imported():
    importlib.import_module("invsolve.solve")
    assert callable(invsolve.solve)


def test_a_misspelt_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Vee'"):
        _ = invsolve.Vee
