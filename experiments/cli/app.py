"""The command's frame: the typer application, global options, and what becomes of errors.

Exit status: 0 only when the job was done; 1 for what the user can put right, in one message; 2 for wrong
usage; 130 after Ctrl-C. `--debug`, before or after the command's name, shows the traceback and the
frameworks' logs.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from experiments import quiet
from experiments.cli.grammar import App, Group, modern

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM
INTERRUPTED_MESSAGE = 'Interrupted. Run the same command again to resume.'

app = App(
    name='ddsp',
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode='rich',
    pretty_exceptions_enable=False,
    context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 110},
    epilog='Start with [bold]ddsp doctor[/bold], then [bold]ddsp demo[/bold]. '
    '[bold]ddsp COMMAND --help[/bold] has an example of each.',
)


def _version(value: bool) -> None:
    """Prints the version and ends."""
    if value:
        from ddsp.version import __version__

        typer.echo(f'ddsp {__version__}')
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option('--version', callback=_version, is_eager=True, help='Print the version and end.')
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            '--debug', help='Show tracebacks and the logs of the frameworks; works after COMMAND too.'
        ),
    ] = False,
) -> None:
    """Differentiable DSP: prepare data, train tracked models, compare them, make sound."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: Arguments without the program's name; None takes the process's own.

    Returns:
      The exit status.
    """
    _load_commands()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = '--debug' in arguments
    arguments = [word for word in arguments if word != '--debug']
    previous = _terminate_like_interrupt()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # a file name that is not UTF-8 is still shown
            stream.reconfigure(errors='backslashreplace')
    try:
        with quiet.terminal(debug):
            return _run(arguments, debug)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _load_commands() -> None:
    """Registers the commands; their modules import nothing heavy."""
    for name in ('data', 'training', 'jobs', 'tracking', 'models'):
        importlib.import_module(f'experiments.cli.{name}')


class _Terminated(KeyboardInterrupt):
    """SIGTERM: handled as Ctrl-C is, so that a run is closed and what was made is kept."""

    exit_code = TERMINATED


def _terminate_like_interrupt() -> Any:
    """Makes SIGTERM raise in the main thread; returns the previous handler, None where it was not changed."""

    def stop(signum: int, frame: Any) -> None:
        raise _Terminated

    try:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return None
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        return None


def _run(arguments: list[str], debug: bool) -> int:
    """Runs the command and turns whatever it raises into a message and a status."""
    command = typer.main.get_command(app)
    arguments = modern(arguments)
    if '_DDSP_COMPLETE' in os.environ:  # the shell asks what could be typed next
        return command.main(args=arguments, prog_name='ddsp', standalone_mode=False) or 0
    try:
        # Not command.main(), which would make a bare status of Ctrl-C and lose what was interrupted.
        with command.make_context('ddsp', arguments) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort) as stop:
        told = str(stop)
        _say(f'{told[0].upper()}{told[1:]}.' if told else INTERRUPTED_MESSAGE)
        return getattr(stop, 'exit_code', INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush at exit is silent
        return 1
    except Exception as error:
        if debug:
            _say(traceback.format_exc().rstrip())
        return _report(error)


def _report(error: Exception) -> int:
    """Prints one message for an error; returns the exit status that belongs to it."""
    if hasattr(error, 'format_message') and hasattr(error, 'exit_code'):  # wrong usage, found by typer
        message = error.format_message()
        if not message:  # no arguments: the help was printed
            return error.exit_code
        context = getattr(error, 'ctx', None)
        path = context.command_path if context else 'ddsp'
        _say(f"{path}: {message}\nTry '{path} --help'.")
        return error.exit_code
    if store := sys.modules.get('experiments.tracking.store'):
        error = store.refused(error) or error
    errors = sys.modules.get('ddsp.errors')
    if errors is not None and isinstance(error, errors.DDSPError):
        _say(f'Error: {error}')
        return getattr(error, 'exit_code', 1)
    if isinstance(error, OSError):
        _say(f'Error: {_explain_os_error(error)}')
    elif isinstance(error, MemoryError):
        _say('Error: not enough memory. A smaller --batch-size or fewer --workers needs less.')
    else:
        _say(f'Error: {type(error).__name__}: {error}\nThis is a defect of ddsp; {_crash_log(error)}.')
    return 1


def _crash_log(error: Exception) -> str:
    """Where the traceback is: beside the run, which has written it, or else in the user's state folder."""
    from experiments import crash

    state = os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')
    log = crash.write(os.path.join(state, 'ddsp'), error) or crash.write('.ddsp', error)
    return f'what happened where is in {log}' if log else '--debug shows where'


def _explain_os_error(error: OSError) -> str:
    """One sentence for a failure of the operating system, naming the file."""
    if error.errno == errno.ENOSPC:
        advice = 'the disk is full. Free some space, then run the same command again to resume'
    elif error.errno == errno.EDQUOT:
        advice = 'the disk quota is used up'
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = 'no permission to read or write there'
    elif error.errno is None:
        return str(error) or type(error).__name__
    else:
        advice = os.strerror(error.errno)
    return f'{error.filename}: {advice}.' if error.filename else f'{advice[0].upper()}{advice[1:]}.'


def _say(message: str) -> None:
    """Writes to stderr, whatever state it is in, without passwords."""
    from experiments import masking

    with contextlib.suppress(OSError):
        print(masking.clean(message), file=sys.stderr, flush=True)
