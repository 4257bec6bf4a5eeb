"""The system's C++ compiler: finding it, its options on this machine, and shared libraries cached by content."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from gpu_tomoclass.device.trust import is_ours, reason_against, temporary_folder
from gpu_tomoclass.errors import ResourceError

CANDIDATES = ("g++", "clang++", "c++")
# No option here changes a result: -fno-trapping-math and -fno-math-errno only say that nobody reads the error flags;
# -ffp-contract=off forbids fused multiply-add where the source does not say fmaf. Kernels reuse shared memory as
# another type, as CUDA code does, hence -fno-strict-aliasing.
# C++14 with hexadecimal floats is all that kernels need: as C++17, GCC reads <math.h> for 0.13 s, for each of them.
COMMON = ("-std=gnu++14", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno")
EXACT = ("-fno-trapping-math", "-fno-strict-aliasing")
# The first that a tiny program compiles with; an empty tuple means "do without".
# GCC and Clang use half of an AVX-512 register unless told so: sums of products (Gabor) then take 1.7 times as long,
# and no family gains. Processors without such registers do not mind.
TUNING = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",), ())
# Clang believes that __tls_get_addr, which finds thread-local variables of loaded libraries, leaves the registers that
# only AVX-512 has as they are. glibc uses them when a thread comes for the first time: constants of loops are lost, and
# blocks write anywhere. Without AVX-512 the constants are in registers that Clang saves. Seen with Clang 14.
CLANG_ON_X86 = ("-mno-avx512f",)
LIMIT = 2**30  # bytes of compiled libraries that are kept
ENTRY = re.compile(r"[0-9a-f]{32}(-[0-9a-f]{32}[.]so|[.]json)")
TINY = 'extern "C" int answer() { return 42; }\n'


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that works.

    Attributes
    ----------
    path : str
    version : str
        First line of ``--version``.
    options : tuple of str
        What every library is compiled with; includes tuning as far as this machine has it.
    """

    path: str
    version: str
    options: tuple[str, ...]


def find_compiler(cache: LibraryCache) -> Compiler:
    """The compiler named by ``CXX``, else the first of g++, clang++, c++ on the path.

    Raises
    ------
    ResourceError
        If there is none or it cannot make a shared library.
    """
    named = os.environ.get("CXX", "").split()
    paths = [shutil.which(name) for name in (named[:1] or CANDIDATES)]
    path = next((p for p in paths if p), None)
    if path is None:
        looked = named[0] if named else ", ".join(CANDIDATES)
        raise ResourceError(f"there is no C++ compiler ({looked} not found)", do="install g++, or set CXX")
    if (path, *named) in cache.compilers:
        return cache.compilers[path, *named]
    version = _version(path)
    failure = ""
    for tuning in TUNING:
        safe = safe_tuning(tuning, version=version, machine=platform.machine())
        compiler = Compiler(path, version, (*COMMON, *EXACT, *named[1:], *safe))
        try:
            cache.library(TINY, compiler, options=("-O0",))
        except CompileError as error:
            failure = failure or error.first_line
        else:
            cache.compilers[path, *named] = compiler
            return compiler
    raise ResourceError(f"{path} cannot make a shared library: {failure}", do="set CXX to a compiler that can")


def safe_tuning(tuning: tuple[str, ...], *, version: str, machine: str) -> tuple[str, ...]:
    """Options for this machine without those that a compiler gets wrong: see :data:`CLANG_ON_X86`."""
    is_clang = "clang" in version.lower() or "oneapi" in version.lower()  # Intel's is a Clang
    return (*tuning, *CLANG_ON_X86) if is_clang and machine in ("x86_64", "AMD64") and tuning else tuning


def _version(path: str) -> str:
    try:
        run = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"{path} cannot be run: {error}", do="set CXX to a working C++ compiler") from error
    lines = run.stdout.splitlines()
    if run.returncode or not lines:
        raise ResourceError(f"{path} --version failed with {run.returncode}", do="set CXX to a working C++ compiler")
    return lines[0]


class CompileError(ResourceError):
    """A source that does not compile; the message is the compiler's, with file and line of the source."""

    def __init__(self, compiler: Compiler, output: str) -> None:
        errors = [line for line in output.splitlines() if "error" in line]
        self.first_line = (errors or output.splitlines() or ["no message"])[0]
        super().__init__(
            f"{compiler.version} refuses a kernel source:\n{output.strip()}\n",
            do="choose --device numpy, and report this",
        )


class LibraryCache:
    """Compiled libraries in the user's cache folder, one file each, named after what went in and what came out; and
    what was measured with them.

    Several processes may fill it at once: a library appears by one rename. A damaged file does not have the content
    that its name promises and is compiled again. Where the folder cannot be written, or others could write into it or
    replace a folder above it, a temporary one serves. The least recently used go beyond 1 GiB. What one object has
    loaded it does not look for again: that lists the folder and reads the file, for milliseconds.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Default ``$XDG_CACHE_HOME/gpu_tomoclass/native`` or ``~/.cache/gpu_tomoclass/native``.

    Attributes
    ----------
    folder : pathlib.Path
    notes : tuple of str
        One sentence if the folder is a temporary one.
    compilers : dict
        Those that were tried and work, by path and words of ``CXX``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.notes: tuple[str, ...] = ()
        self.limit = LIMIT
        self.compilers: dict[tuple[str, ...], Compiler] = {}
        self._loaded: dict[str, ctypes.CDLL] = {}
        self._figures: dict[str, dict[str, float]] = {}
        self._measuring = threading.Lock()
        wanted = default_cache_folder() if folder is None else folder
        problem = "the home folder is unknown" if wanted is None else reason_against(wanted)
        if wanted is not None and problem is None:
            self.folder = wanted
            return
        self.folder = temporary_folder()
        named = problem if wanted is None else f"{wanted} is not used, because {problem}"
        self.notes = (f"{named}: compiled kernels are kept in {self.folder}",)

    @cached_property
    def _machine(self) -> str:
        return cpu_model()

    def _key(self, what: str, compiler: Compiler, options: tuple[str, ...]) -> str:
        return _digest("\0".join((what, compiler.path, compiler.version, self._machine, *options)).encode())

    def library(self, code: str, compiler: Compiler, *, options: tuple[str, ...] = ()) -> ctypes.CDLL:
        """Compile ``code`` unless that has been done, and load it.

        Parameters
        ----------
        code : str
            C++ source. Where it includes files, it must say which version of them, as it decides whether to compile.
        compiler : Compiler
        options : tuple of str
            Added to the compiler's.

        Raises
        ------
        CompileError
            With the compiler's message.
        ResourceError
            If the library cannot be loaded.
        """
        command = (*compiler.options, *options)
        # Not where the headers lie: the code says which they are, and another checkout or environment has the same.
        key = self._key(code, compiler, tuple(option for option in command if not option.startswith("-I")))
        if key not in self._loaded:
            self._loaded[key] = self._stored(key) or self._made(code, compiler, command, key)
        return self._loaded[key]

    def entries(self) -> list[Path]:
        """The compiled libraries and measured figures in the folder."""
        return [path for path in self.folder.iterdir() if ENTRY.fullmatch(path.name)]

    def clear(self) -> None:
        """Remove all entries; what is loaded stays loaded."""
        for path in self.entries():
            path.unlink(missing_ok=True)

    def trim(self) -> None:
        """Remove the least recently used entries until the folder is within its limit."""
        sizes = []
        for path in self.entries():
            with contextlib.suppress(OSError):  # another process trims too
                status = path.stat()
                sizes.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def figures(
        self, name: str, compiler: Compiler, measure: Callable[[], dict[str, float]], *, keys: Sequence[str]
    ) -> dict[str, float]:
        """Figures that ``measure`` gave for this name, compiler and processor, now or by another process.

        A file that cannot be read, or does not hold a positive number for each of the keys, is as good as none; one
        that cannot be written is missed by the next process only.
        """
        key = self._key(name, compiler, compiler.options)
        with self._measuring:
            if key not in self._figures:
                path = self.folder / f"{key}.json"
                found = _stored_figures(path, keys)
                if found is None:
                    found = measure()
                    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                        made = Path(scratch) / path.name
                        made.write_text(json.dumps(found), encoding="utf-8")
                        os.replace(made, path)
                self._figures[key] = found
            return self._figures[key]

    def _stored(self, key: str) -> ctypes.CDLL | None:
        for path in sorted(self.folder.glob(f"{key}-*.so")):
            if is_what_it_says(path):
                with contextlib.suppress(OSError):
                    os.utime(path)
                return _load(path)
            path.unlink(missing_ok=True)
        return None

    def _made(self, code: str, compiler: Compiler, command: tuple[str, ...], key: str) -> ctypes.CDLL:
        made = self._compile(code, compiler, command, key)
        self.trim()
        return _load(made)

    def _compile(self, code: str, compiler: Compiler, command: tuple[str, ...], key: str) -> Path:
        while _told:
            _told.pop()()
        with tempfile.TemporaryDirectory(prefix="compile-", dir=self.folder) as scratch:
            source, made = Path(scratch) / "kernel.cpp", Path(scratch) / "kernel.so"
            source.write_text(code, encoding="utf-8")
            run = subprocess.run(
                [compiler.path, *command, "-o", str(made), str(source)],
                capture_output=True,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
            )
            if run.returncode or not made.is_file():
                raise CompileError(compiler, run.stderr.replace(str(source), "wrapper"))
            final = self.folder / f"{key}-{_digest(made.read_bytes())}.so"
            os.replace(made, final)
        return final


def shared_cache() -> LibraryCache:
    """The user's cache, the same object for all devices of this process."""
    return _cache_in(default_cache_folder())


@cache
def _cache_in(folder: Path | None) -> LibraryCache:
    return LibraryCache(folder)


def when_compiling(say: Callable[[], None] | None) -> None:
    """Have ``say`` called before the next kernel is compiled, which takes seconds to minutes; None for nothing."""
    _told[:] = [] if say is None else [say]


_told: list[Callable[[], None]] = []


def _stored_figures(path: Path, keys: Sequence[str]) -> dict[str, float] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_good = isinstance(found, dict) and found.keys() == set(keys)
    return found if is_good and all(isinstance(v, float) and 0 < v < math.inf for v in found.values()) else None


def is_what_it_says(path: Path) -> bool:
    """Tell whether a library is a file that only we can have written, with the content that its name promises."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        return is_ours(os.fstat(descriptor)) and path.stem.partition("-")[2] == _digest(file.read())


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:  # a file system mounted noexec
        raise ResourceError(
            f"a compiled kernel cannot be loaded: {error}", do="set XDG_CACHE_HOME to a folder that may hold programs"
        ) from error


def default_cache_folder() -> Path | None:
    """Where compiled kernels belong; None if there is no home folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "gpu_tomoclass" / "native"


def cpu_model() -> str:
    """Model of the processor, on which ``-march=native`` depends: a library must not be used on another processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
