"""The command line. No arithmetic: each flag is a keyword of a public function; heavy imports wait until needed."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import click

from gpu_tomoclass import __version__
from gpu_tomoclass.cli import record
from gpu_tomoclass.cli.command import CommandTable, group
from gpu_tomoclass.cli.terminal import visible_streams
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, TomoclassError
from gpu_tomoclass.outputs import protecting, wait_for_removals

STOPPED = "stopped at once; no output has its name before it is complete, and complete ones stay"
# Help must not wait for the modules of all commands: a command's module is imported when it is asked for, and what the
# command does is said here, too. The last word is the page of the manual that tells more.
COMMANDS = {
    "Look": {
        "info": ("volumes", "Say what was understood of a file", "formats"),
        "reslice": ("volumes", "Turn a volume: the tilt axis along z", "formats"),
        "substack": ("volumes", "Write every n-th plane, to mark strokes on", "annotations"),
        "convert": ("volumes", "Write a volume in another format", "formats"),
        "features": ("features", "Write features as channels", "features"),
    },
    "Teach": {
        "paint": ("paint", "Mark, look and correct in a browser", "painting"),
        "watch": ("watch", "Train whenever strokes are saved, and show it", "annotations"),
        "train": ("training", "Train a model from strokes on some planes", "annotations"),
        "preview": ("classification", "Classify one plane into a picture", "command_line"),
        "cross-validate": ("quality", "Say how good it will be on unseen pixels", "quality"),
        "select-features": ("quality", "Find the cheapest families that do", "quality"),
        "tune": ("tune", "Choose features, forest and smoothing", "quality"),
        "check": ("quality", "Say whether a model fits a volume", "quality"),
        "suggest": ("suggest", "Say where to mark next", "quality"),
        "adapt": ("quality", "Make a model fit another volume, without strokes", "adapt"),
        "model": ("models", "Import Fiji's classifiers, look into model files", "model-file"),
    },
    "Apply": {
        "plan": ("planning", "Say beforehand what memory, disk, time it takes", "streaming"),
        "classify": ("classification", "Classify a volume", "streaming"),
        "batch": ("batch", "Work through many volumes of a job file", "streaming"),
    },
    "Use labels": {
        "evaluate": ("labels", "Compare labels with the truth", "measure"),
        "figure": ("figure", "Draw planes with their labels for a paper", "measure"),
        "measure": ("labels", "Measure the particles of classes", "measure"),
        "clean": ("labels", "Remove small objects", "measure"),
    },
    "Compare": {
        "baseline": ("baseline", "The conventional way: denoise, threshold", "baseline"),
    },
    "See it work": {
        "demo": ("studies", "Sample tomogram, model, labels and report", "command_line"),
        "doctor": ("doctor", "Say which devices work here, compare kernels", "devices"),
        "cache": ("cache", "Show or clear what is kept between runs", "facility"),
        "schema": ("schema", "Print what a command takes as JSON schema", "facility"),
        "simulate": ("studies", "Make a tomogram whose truth is known", "measure"),
        "reproduce": ("studies", "Rerun the study: thresholds against training", "reproduce"),
        "help": ("help", "Show a command, or a page of the manual", "commands"),
    },
}
# What --help explains, on one screen of 24 lines: the way from a tomogram to a figure. `help` has the rest.
EVERYDAY = {
    *("info", "paint", "train", "preview", "check", "plan", "classify", "batch"),
    *("evaluate", "measure", "figure", "demo", "doctor"),
}


@group(
    commands=CommandTable(__name__, COMMANDS, everyday=EVERYDAY),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    options_metavar="[--help|--version]",
    subcommand_metavar="COMMAND ...",
)
@click.version_option(__version__, prog_name="gpu-tomoclass")
def cli() -> None:
    """Classify electron tomograms into materials from a few brush strokes."""


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
    if "_GPU_TOMOCLASS_COMPLETE" in os.environ:  # a shell asks for our own words, which click writes as bytes
        return _run(arguments)
    with visible_streams():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    previous = signal.signal(signal.SIGTERM, _interrupt)
    others = record.n_under_way()
    try:
        with protecting():
            code = _outcome(arguments, lambda: _main(arguments))
            return _outcome(arguments, lambda: record.end(code, since=others)) or code
    finally:
        with suppress(KeyboardInterrupt):  # all outputs are there: who stops now leaves a hidden folder
            wait_for_removals()
        signal.signal(signal.SIGTERM, previous)


def _main(arguments: list[str]) -> object:
    # Not standalone, click returns the code of context.exit() instead of raising it.
    code = cli.main(
        args=arguments, prog_name="gpu-tomoclass", standalone_mode=False, auto_envvar_prefix="GPU_TOMOCLASS"
    )
    sys.stdout.flush()
    return code


def _outcome(arguments: list[str], do: Callable[[], object]) -> int:
    """The exit code of what is done; a failure is said to the person and to programs."""
    try:
        code = do()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # The reader of stdout left (`| head`): nothing to say, and Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        record.fail(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _fail(StoppedError(STOPPED))
        _say_how_to_resume(arguments)
        return code
    except TomoclassError as error:
        code = _fail(error)
        if isinstance(error, StoppedError):
            _say_how_to_resume(arguments)
        return code
    except MemoryError as error:
        return _fail(ResourceError(f"out of memory ({error})", do="use fewer --workers or a machine with more memory"))
    except OSError as error:
        return _fail(_from_os(error))
    except Exception as error:
        import traceback

        traceback.print_exc()
        click.echo("gpu-tomoclass: this is a bug; please report it with the lines above", err=True)
        record.fail(error)
        return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say_how_to_resume(arguments: list[str]) -> None:
    import shlex

    click.echo(f"resume with: {shlex.join(['gpu-tomoclass', *arguments])}", err=True)


def _fail(error: TomoclassError) -> int:
    click.echo(f"gpu-tomoclass: error: {error}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"note: {note}", err=True)
    record.fail(error)
    return error.exit_code


def _from_os(error: OSError) -> TomoclassError:
    where = error.filename if isinstance(error.filename, str) else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError("the disk is full", where=where, do="free some space or write elsewhere")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"no permission ({error.strerror})", where=where)
    return DataError(error.strerror or str(error), where=where)
