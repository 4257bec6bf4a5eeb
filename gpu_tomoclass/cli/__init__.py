"""The command line. No arithmetic: each flag is a keyword of a public function; heavy imports wait until needed."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterable
from types import FrameType

import click

from gpu_tomoclass import __version__
from gpu_tomoclass.cli import (
    baseline,
    cache,
    classification,
    doctor,
    features,
    labels,
    models,
    quality,
    studies,
    training,
    volumes,
)
from gpu_tomoclass.cli.command import group
from gpu_tomoclass.cli.terminal import visible_streams
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, TomoclassError
from gpu_tomoclass.outputs import protecting

STOPPED = "stopped at once; no output has its name before it is complete, and complete ones stay"
SECTIONS: dict[str, Iterable[str]] = {
    "Look": ("info", "reslice", "substack", "convert", "features"),
    "Teach": ("train", "preview", "cross-validate", "select-features", "check"),
    "Apply": ("plan", "classify", "batch"),
    "Use labels": ("evaluate", "measure", "clean"),
    "From Fiji": ("model",),
    "Compare": ("baseline",),
    "See it work": ("demo", "doctor", "cache", "simulate", "reproduce"),
}


@group(
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND ...",
)
@click.version_option(__version__, prog_name="gpu-tomoclass")
def cli() -> None:
    """Classify electron tomograms into materials from a few brush strokes.

    Each command has --help with examples. Results go to stdout, all else to stderr. Exit codes: 0 ok, 1 bug, 2 usage,
    3 bad data, 4 model does not fit the data, 5 resources (memory, disk, device), 6 stopped.
    """


for _command in (
    volumes.info,
    volumes.reslice,
    volumes.substack,
    features.features,
    training.train,
    classification.preview,
    classification.classify,
    labels.evaluate,
    labels.measure,
    labels.clean,
    baseline.baseline,
    studies.simulate,
    studies.demo,
    studies.reproduce,
    quality.cross_validate,
    quality.select_features,
    quality.check,
    classification.plan,
    classification.batch,
    volumes.convert,
    models.model,
    doctor.doctor,
    cache.cache,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of ``gpu-tomoclass``."""
    open_standard_streams()
    sys.exit(run(sys.argv[1:]))


def open_standard_streams() -> None:
    """Give streams that the caller closed (``>&-``) somewhere to go: else the first output file gets their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def run(arguments: list[str]) -> int:
    """Run a command line and give its exit code; every failure is one line on stderr, a bug also its traceback."""
    with visible_streams():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Not standalone, click returns the code of context.exit() instead of raising it.
        with protecting():
            code = cli.main(
                args=arguments, prog_name="gpu-tomoclass", standalone_mode=False, auto_envvar_prefix="GPU_TOMOCLASS"
            )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # The reader of stdout left (`| head`): nothing to say, and Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _fail(StoppedError(STOPPED))
        click.echo(f"resume with: {shlex.join(['gpu-tomoclass', *arguments])}", err=True)
        return code
    except TomoclassError as error:
        code = _fail(error)
        if isinstance(error, StoppedError):
            click.echo(f"resume with: {shlex.join(['gpu-tomoclass', *arguments])}", err=True)
        return code
    except MemoryError as error:
        return _fail(ResourceError(f"out of memory ({error})", do="use fewer --workers or a machine with more memory"))
    except OSError as error:
        return _fail(_from_os(error))
    except Exception:
        traceback.print_exc()
        click.echo("gpu-tomoclass: this is a bug; please report it with the lines above", err=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(error: TomoclassError) -> int:
    click.echo(f"gpu-tomoclass: error: {error}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"note: {note}", err=True)
    return error.exit_code


def _from_os(error: OSError) -> TomoclassError:
    where = error.filename if isinstance(error.filename, str) else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError("the disk is full", where=where, do="free some space or write elsewhere")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"no permission ({error.strerror})", where=where)
    return DataError(error.strerror or str(error), where=where)
