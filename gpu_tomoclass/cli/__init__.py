"""The command line. No arithmetic: each flag is a keyword of a public function; heavy imports wait until needed."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import traceback
from types import FrameType
from typing import Any

import click

from gpu_tomoclass import __version__
from gpu_tomoclass.cli import (
    baseline,
    learning,
    machine,
    models,
    quality,
    queue,
    reproduction,
    results,
    simulation,
    volumes,
)
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, TomoclassError
from gpu_tomoclass.outputs import protecting

STOPPED = "stopped: nothing was written under the output name; run the same command again"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gpu-tomoclass")
def cli() -> None:
    """Classify electron tomograms into materials from a few brush strokes.

    \b
    Look at a volume:     info, reslice, substack, features
    Teach and apply:      train, preview, classify
    Finished labels:      evaluate, measure, clean
    Know how good it is:  cross-validate, select-features, check
    From and to Fiji:     model import, model info, train --from, train --save-rows
    Many, and large:      plan, batch, convert
    The conventional way: baseline nad, baseline otsu
    See it work:          demo, doctor, simulate, reproduce

    Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 bug, 2 usage, 3 bad data, 4 model does not
    fit the data, 5 resources (memory, disk, device), 6 stopped.
    """


for command in (
    volumes.info,
    volumes.reslice,
    volumes.substack,
    volumes.features,
    learning.train,
    learning.preview,
    learning.classify,
    results.evaluate,
    results.measure,
    results.clean,
    baseline.baseline,
    simulation.simulate,
    learning.demo,
    reproduction.reproduce,
    quality.cross_validate,
    quality.select_features,
    quality.check,
    queue.plan,
    queue.batch,
    queue.convert,
    models.model,
    machine.doctor,
):
    cli.add_command(command)


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
    previous = signal.signal(signal.SIGTERM, _interrupt)
    options: dict[str, Any] = {"standalone_mode": False, "auto_envvar_prefix": "GPU_TOMOCLASS"}
    try:
        with protecting():
            code = cli.main(args=arguments, prog_name="gpu-tomoclass", **options)
        sys.stdout.flush()
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
        return _fail(StoppedError(STOPPED))
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
    return code if isinstance(code, int) else 0  # click returns what a command exits with


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
