"""Recipes: the file is checked as a whole, the program is run, watched, and ended."""

import contextlib
import os
import signal
import stat
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import ImageError
from netboot.storage import recipe as recipe_module
from netboot.storage.recipe import Recipe, load_recipe, missing_packages, parse_size, run_recipe

TOML = 'name = "tiny"\ndescription = "for tests"\nsize = "2MiB"\npackages = ["base-files"]\n'


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tiny"
    made.mkdir()
    (made / "image.toml").write_text(TOML + 'build = "build"\n')
    write_program(made, "exit 0")
    return made


def write_program(folder, text):
    path = folder / "build"
    path.write_text("#!/bin/sh\n" + text + "\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("2GiB", 2 << 30),
        ("2G", 2 << 30),
        ("64 MiB", 64 << 20),
        ("1.", None),
        ("", None),
        ("GiB", None),
        ("-1G", None),
        ("2 GiB more", None),
        ("3KB", 3072),
        ("1TiB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes(text, size):
    if size is None:
        with pytest.raises(ValueError, match="no size such as 2GiB"):
            parse_size(text)
    else:
        assert parse_size(text) == size


@given(st.text(max_size=12))
def test_a_size_is_a_number_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 0


def test_a_recipe_is_read(folder):
    assert load_recipe(folder) == Recipe(
        "tiny", folder / "build", 2 << 20, "for tests", ("base-files",)
    )


def test_what_need_not_be_said(folder):
    (folder / "image.toml").write_text('name = "tiny"\nsize = 512\n')
    assert load_recipe(folder) == Recipe("tiny", folder / "build", 512)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "image.toml"),
        ('name = "a/../b"\nsize = "1G"', "name: 'a/../b'"),
        ('name = "UP"\nsize = "1G"', "name: 'UP'"),
        ('size = "1G"', "name: None"),
        ('name = "x"', "size: 'size'"),
        ('name = "x"\nsize = "big"', "size: 'big' is no size"),
        ('name = "x"\nsize = "513"', "not a multiple of 512"),
        ('name = "x"\nsize = "0"', "not a multiple of 512"),
        ('name = "x"\nsize = "1G"\nmirror = "x"', "mirror: no such key"),
        ('name = "x"\nsize = "1G"\npackages = "a"', "packages: not a list"),
        ('name = "x"\nsize = "1G"\npackages = ["--purge"]', "packages: not a list"),
        ('name = "x"\nsize = "1G"\nbuild = "missing"', "not an executable file"),
    ],
)
def test_mistakes_are_named_with_file_and_key(folder, text, words):
    (folder / "image.toml").write_text(text)
    with pytest.raises(ImageError) as caught:
        load_recipe(folder)
    assert words in str(caught.value)
    assert "image.toml" in str(caught.value)


def test_a_folder_without_a_recipe(tmp_path):
    with pytest.raises(ImageError, match=r"image\.toml: No such file"):
        load_recipe(tmp_path)


def test_a_program_that_cannot_be_run(folder):
    (folder / "build").chmod(0o644)
    with pytest.raises(ImageError, match="not an executable file"):
        load_recipe(folder)


def answering(monkeypatch, lines):
    monkeypatch.setattr(recipe_module.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(
        recipe_module.subprocess,
        "run",
        lambda *a, **k: subprocess.CompletedProcess(a, 1, lines, ""),
    )


def test_missing_packages_are_named(folder, monkeypatch):
    answering(monkeypatch, "mtools installed\ne2fsprogs not-installed\nfdisk config-files\n")
    recipe = Recipe("x", folder / "build", 512, "", ("mtools", "e2fsprogs", "fdisk", "unheard-of"))
    assert missing_packages(recipe) == ["e2fsprogs", "fdisk", "unheard-of"]
    with pytest.raises(ImageError, match="apt-get install e2fsprogs fdisk unheard-of"):
        run_recipe(recipe, folder / "out", folder / "cache", folder / "log", lambda *_: None)


def test_a_host_that_is_no_debian_is_not_asked(folder, monkeypatch):
    monkeypatch.setattr(recipe_module.shutil, "which", lambda name: None)
    assert missing_packages(Recipe("x", folder / "build", 512, "", ("mtools",))) == []


def run(folder, program, progress=lambda percent, text: None):
    write_program(folder, program)
    recipe = Recipe("tiny", folder / "build", 1 << 20)
    run_recipe(recipe, folder / "out", folder / "cache", folder / "build.log", progress)


def test_a_recipe_runs(folder):
    told = []
    run(
        folder,
        "echo 1 beginning; echo 'not progress'; echo oops >&2; echo 50 half of it\n"
        'test -d "$NETBOOT_CACHE" && head -c "$NETBOOT_SIZE" /dev/zero > "$1"; echo 250 done',
        lambda percent, text: told.append((percent, text)),
    )
    assert told == [(1, "beginning"), (50, "half of it"), (100, "done")]
    assert (folder / "out").stat().st_size == 1 << 20
    assert (folder / "build.log").read_text() == "oops\n"


def test_a_recipe_that_fails_is_quoted_with_its_log(folder):
    with pytest.raises(ImageError) as caught:
        run(folder, "echo 1 x; echo first >&2; echo 'the mirror is away' >&2; exit 3")
    text = str(caught.value)
    assert "status 3: the mirror is away" in text
    assert str(folder / "build.log") in text


def test_a_recipe_that_fails_silently(folder):
    with pytest.raises(ImageError, match="it said nothing"):
        run(folder, "exit 1")


@pytest.mark.parametrize("program", ["exit 0", "echo x > $1", "mkdir $1"])
def test_a_recipe_that_makes_no_disk(folder, program):
    with pytest.raises(ImageError, match="made no disk"):
        run(folder, program)


def test_a_program_that_is_no_program(folder):
    (folder / "build").write_text("\x7fELFnonsense")
    recipe = Recipe("tiny", folder / "build", 1 << 20)
    with pytest.raises(ImageError, match="Exec format error"):
        run_recipe(recipe, folder / "out", folder / "cache", folder / "log", lambda *_: None)


def test_an_interrupted_recipe_may_clean_up(folder):
    def interrupt(percent, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            folder,
            f"trap 'echo cleaned > {folder}/cleaned; exit 143' TERM\n"
            f"echo 5 working; sleep 60 & wait",
            interrupt,
        )
    assert (folder / "cleaned").read_text() == "cleaned\n"


@pytest.mark.parametrize("its_own", ["", "trap - TERM;"], ids=["ignores", "obeys"])
def test_children_that_will_not_end_are_ended(folder, monkeypatch, its_own):
    """With a recipe that will not end either, and with one that ends and leaves them."""
    monkeypatch.setattr(recipe_module, "_PATIENCE", 0.2)

    def interrupt(percent, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            folder,
            f"trap '' TERM; sleep 60 & echo $! > {folder}/child; {its_own} "
            "echo 5 working; wait; wait",
            interrupt,
        )
    child = int((folder / "child").read_text())
    gone = threading.Event()
    for _ in range(200):
        state = f"/proc/{child}/stat"
        if not os.path.exists(state) or ") Z " in open_text(state):
            gone.set()
            break
        gone.wait(0.02)
    assert gone.is_set()


def open_text(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ") Z "


def test_a_recipe_hears_nothing_of_our_terminal(folder):
    before = signal.getsignal(signal.SIGTERM)
    run(folder, f'cut -d" " -f5 /proc/self/stat > {folder}/group; head -c 512 /dev/zero > "$1"')
    assert int((folder / "group").read_text()) != os.getpgrp()
    assert signal.getsignal(signal.SIGTERM) == before
    assert stat.S_ISREG((folder / "out").stat().st_mode)
