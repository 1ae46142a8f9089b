"""The documentation: links lead somewhere, code runs.

A block that is not run has a comment before it that says why.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer

import classy_gc  # noqa: F401  registers the optimizers
from tests import forked

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for pattern in ("*.md", ".github/*.md", "configs/**/*.md", "classy_gc/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
BLOCK = re.compile(r"(?:<!-- not run: (.+?) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)


def name(path):
    return str(path.relative_to(ROOT))


def anchor(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r"[`*]", "", heading.lower())
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def prose(path):
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


def test_they_are_found():
    assert len(FILES) >= 9
    assert len(ROOT.joinpath("README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", FILES, ids=name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        file, _, fragment = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert ROOT in target.parents, link
        if fragment:
            headings = re.findall(r"^#+ (.+)$", prose(target), re.M)
            assert fragment in map(anchor, headings), link


def blocks(*languages):
    return [
        pytest.param(code, id=f"{name(path)}:{language}:{i}")
        for path in FILES
        for i, (reason, language, code) in enumerate(BLOCK.findall(path.read_text()))
        if language in languages and not reason
    ]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_block_has_a_language_that_is_known(path):
    languages = {language for _, language, _ in BLOCK.findall(path.read_text())}
    assert languages <= {"bash", "python", "json", "text", "bibtex"}
    assert len(re.findall(r"^```", path.read_text(), re.M)) == 2 * len(
        BLOCK.findall(path.read_text())
    )


@pytest.mark.parametrize("code", blocks("json"))
def test_json(code):
    """A section of a config, with its braces or without."""
    section = json.loads(code if code.startswith("{") else f"{{{code}}}")
    if isinstance(section.get("optimizer"), dict):  # not the class of a torch_gc
        section = section["optimizer"]
    if section.get("name") in OPTIMIZER_REGISTRY:
        section.pop("param_groups", None)
        build_optimizer(section)


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code, tmp_path):
    done = forked.run(forked.code, code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The current folder of the commands in the documentation."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


@pytest.mark.parametrize("code", blocks("bash"))
def test_bash(code, clone):
    """Bash says with what flags ``classy-gc`` is called, and where; a forked process runs it."""
    define = 'classy-gc() { { pwd; printf "%s\\n" "$@"; } > "$0"; }; '
    subprocess.run(["bash", "-ec", define + code, clone / "call"], check=True, cwd=clone)
    folder, *argv = (clone / "call").read_text().splitlines()
    done = forked.run(forked.command, *argv, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_every_config_is_listed():
    text = (ROOT / "configs/README.md").read_text()
    for path in (ROOT / "configs").rglob("*.json"):
        folder = path.parent.relative_to(ROOT / "configs")
        listed = path.name if folder == Path() else f"{folder.parts[0]}/*.json"
        assert f"`{listed}`" in text or "results" in path.parts, path
