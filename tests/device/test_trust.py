"""What is loaded as a program comes from where nobody else can write; and the other cache as well."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gpu_tomoclass.device import trust
from gpu_tomoclass.device.compiler import LibraryCache, find_compiler
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.cache import FeatureCache

ANSWER = 'extern "C" __attribute__((visibility("default"))) int answer() { return %d; }'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        path.chmod(0o755)
    return tmp_path / "a" / "b" / "c"


def test_a_folder_of_ours(folder: Path) -> None:
    assert trust.stranger(folder) is None
    folder.parent.chmod(0o1777)  # as /tmp: others may add files there, and not touch ours
    assert trust.stranger(folder) is None
    assert trust.stranger(folder.parent) == f"others may write into {folder.parent}"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_folder_above_counts(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, level: int) -> None:
    monkeypatch.setattr(trust, "is_private_group", lambda group: False)
    opened = (folder, *folder.parents)[level]
    opened.chmod(mode)
    assert trust.stranger(folder) == f"others may write into {opened}"
    assert not trust.is_usable(folder)
    cache = LibraryCache(folder)
    assert cache.folder != folder
    assert f"is not used, because others may write into {opened} (mended by: chmod go-w {opened}):" in cache.notes[0]


def test_a_group_in_which_we_are_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.chmod(0o775)
    monkeypatch.setattr(trust, "is_private_group", lambda group: group == os.getgid())
    assert trust.stranger(folder) is None


def test_a_link_counts_by_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert trust.stranger(tmp_path / "link") is None
    folder.parent.chmod(0o777)
    assert trust.stranger(tmp_path / "link") == f"others may write into {folder.parent}"


def test_somebody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "owners", lambda: frozenset({os.getuid() + 1}))
    assert "belongs to somebody else" in str(trust.stranger(folder))
    assert not trust.is_usable(folder)


def test_a_planted_library_is_not_loaded(tmp_path: Path, folder: Path) -> None:
    """One with the right name and the digest of its content, that others could have written, or that is a link."""
    cache = LibraryCache(folder)
    compiler = find_compiler(cache)
    before = set(folder.glob("*.so"))
    assert cache.library(ANSWER % 1, compiler, options=("-O0",)).answer() == 1
    (made,) = set(folder.glob("*.so")) - before
    other = LibraryCache(tmp_path / "other")
    assert other.library(ANSWER % 2, compiler, options=("-O0",)).answer() == 2
    (evil,) = (tmp_path / "other").glob("*.so")
    key, digest = made.stem.partition("-")[0], evil.stem.partition("-")[2]
    for plant in ("writable", "link"):
        for path in folder.glob(f"{key}-*"):
            path.unlink()
        planted = folder / f"{key}-{digest}.so"
        if plant == "link":
            planted.symlink_to(evil)
        else:
            planted.write_bytes(evil.read_bytes())
            planted.chmod(0o666)
        assert LibraryCache(folder).library(ANSWER % 1, compiler, options=("-O0",)).answer() == 1
        assert not os.path.lexists(planted)


def test_the_kernel_cache_has_a_limit(folder: Path) -> None:
    cache = LibraryCache(folder)
    for age in range(4):
        path = folder / f"{age:032x}-{age:032x}.so"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + age, 1000 + age))
    (folder / "thesis.so").write_bytes(b"years")
    cache.limit = 250
    cache.trim()
    assert [path.name[31] for path in sorted(folder.glob("0*.so"))] == ["2", "3"]
    cache.clear()
    assert os.listdir(folder) == ["thesis.so"]


@pytest.fixture
def filled(tmp_path: Path) -> tuple[FeatureCache, FeatureBank, str]:
    bank = FeatureBank.create(["gaussian_blur"], sigma_max=2)
    cache = FeatureCache(tmp_path / "features")
    key = cache.plane_key(np.zeros((5, 4), np.float32))
    for number, block in enumerate(bank.blocks):
        cache.put(key, block, np.full((len(block.channels), 5, 4), number, np.float32))
    return cache, bank, key


@pytest.mark.parametrize("plant", ["swapped", "flipped", "writable", "link", "plain"])
def test_planted_features_are_not_used(
    filled: tuple[FeatureCache, FeatureBank, str], tmp_path: Path, plant: str
) -> None:
    cache, bank, key = filled
    one, two, *_ = sorted((tmp_path / "features").glob("*/*.npy"))
    content = one.read_bytes()
    if plant == "swapped":  # both are ours, and whole
        one.write_bytes(two.read_bytes())
        two.write_bytes(content)
    elif plant == "flipped":
        one.write_bytes(content[:140] + bytes([content[140] ^ 1]) + content[141:])
    elif plant == "writable":
        one.chmod(0o666)
    elif plant == "link":
        one.rename(tmp_path / "elsewhere")
        one.symlink_to(tmp_path / "elsewhere")
    else:
        np.save(one, np.zeros((1, 5, 4), np.float32))
    wrong = [block for block in bank.blocks if f"{block.key}.npy" in (one.name, *([two.name] * (plant == "swapped")))]
    for block in bank.blocks:
        values = cache.get(key, block)
        if block in wrong:
            assert values is None
        else:
            np.testing.assert_array_equal(values, np.full(values.shape, bank.blocks.index(block)))


def test_features_of_somebody_else(
    filled: tuple[FeatureCache, FeatureBank, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, bank, key = filled
    assert cache.get(key, bank.blocks[0]) is not None
    monkeypatch.setattr(trust, "owners", lambda: frozenset({os.getuid() + 1}))
    assert cache.get(key, bank.blocks[0]) is None


def test_a_cache_folder_with_other_files_keeps_them(
    filled: tuple[FeatureCache, FeatureBank, str], tmp_path: Path
) -> None:
    """Removing what is old, or all, means what the cache itself has made."""
    cache, _, _ = filled
    (tmp_path / "features" / "results").mkdir()
    (tmp_path / "features" / "results" / "thesis.npy").write_bytes(bytes(1000))
    cache.limit = 0
    cache.trim()
    cache.clear()
    assert [str(p.relative_to(cache.folder)) for p in cache.folder.rglob("*.npy")] == ["results/thesis.npy"]


def test_without_a_home_nothing_is_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpu_tomoclass.features.cache import default_cache_folder

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "gpu_tomoclass").mkdir(mode=0o777)  # as another user may have made it
    assert default_cache_folder() == tmp_path / f"gpu_tomoclass-{os.getuid()}"
    (tmp_path / f"gpu_tomoclass-{os.getuid()}").chmod(0o777)
    assert default_cache_folder().parent == tmp_path
    assert trust.stranger(default_cache_folder()) is None
