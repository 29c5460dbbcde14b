"""``dreamlake agent install`` and ``uninstall``: the agent as a service of systemd's, for one user."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess

import click

from dreamlake import config
from dreamlake.systemd import AGENT_SERVICE, AGENT_SOCKET, NotForSystemd, program, quoted, unit_for

NO_SYSTEMD = 6

_MARK = "# Written by `dreamlake agent install`. Changes belong into `systemctl --user edit {name}`.\n"
_NAMES = (AGENT_SOCKET, AGENT_SERVICE)
_BOOTED = "/run/systemd/system"  # sd_booted(3)
_LINGERING = "/var/lib/systemd/linger"
_RUN_SECONDS = 90


def _folder() -> str:
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "systemd", "user")


def _units() -> dict[str, str]:
    """Name and text of each unit, for this installation and, where ``DREAMLAKE_HOME`` is set, for that agent."""
    try:
        dreamlake = program()
        texts = {name: _MARK.format(name=name) + "\n" + unit_for(name, dreamlake) for name in _NAMES}
        if os.environ.get("DREAMLAKE_HOME"):
            home = config.base_folder()
            at = config.socket_path(config.runtime_folders()[0]).replace("%", "%%")
            given = f"Environment={quoted(f'DREAMLAKE_HOME={home}')}"
            texts[AGENT_SOCKET] = texts[AGENT_SOCKET].replace("%t/dreamlake/agent.sock", at)
            texts[AGENT_SERVICE] = texts[AGENT_SERVICE].replace("UnsetEnvironment=DREAMLAKE_HOME", given)
    except (NotForSystemd, FileNotFoundError) as why:
        raise click.ClickException(str(why)) from None
    return texts


def _found(path: str) -> str | None:
    """The text that stands there; None for none. What is no file of ours (masked units are links) reads as empty."""
    if not os.path.lexists(path):
        return None
    if os.path.islink(path) or not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _is_ours(name: str, text: str) -> bool:
    return text.startswith(_MARK.format(name=name))


def _write(path: str, text: str) -> None:
    temp = f"{path}.{os.getpid()}"
    try:
        with open(temp, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.rename(temp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)


def _systemctl(*words: str) -> str | None:
    """Ask this user's systemd; None when it has done so, else what it said."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"it ended with {done.returncode}"


@click.command()
@click.option("--now", is_flag=True, help="Let systemd take them up and listen for scripts at once.")
@click.option("--force", is_flag=True, help="Replace units of these names that were not written by this command.")
@click.option("--print", "show", is_flag=True, help="Print the units, and change nothing.")
def install(now: bool, force: bool, show: bool) -> None:
    """Put units for this user's systemd in place: it then starts the agent whenever a script needs one.

    They are for the installation whose command this is; run it again after that has moved. Exits with 6 where there is
    no systemd.

    \b
    Examples:
      dreamlake agent install --now
      dreamlake agent install --print
    """
    units = _units()
    if show:
        click.echo("\n".join(f"# {os.path.join(_folder(), name)}\n{text}" for name, text in units.items()), nl=False)
        return
    if shutil.which("systemctl") is None:
        click.echo(
            "Error: there is no systemd on this machine (no program `systemctl`), so there is nothing to install. "
            "Agents do without: the first script starts one, and so does `dreamlake agent start`",
            err=True,
        )
        raise SystemExit(NO_SYSTEMD)
    folder = _folder()
    try:
        _put(folder, units, force)
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror or error}") from None
    commands = [("daemon-reload",), ("enable", "--now", AGENT_SOCKET)]
    if not now:
        click.echo("Let systemd take them up, and listen for scripts:")
        for words in commands:
            click.echo(f"  systemctl --user {' '.join(words)}")
        if not os.path.isdir(_BOOTED):
            click.echo("That is for where systemd runs; here it does not.")
    else:
        for words in commands:
            if (why := _systemctl(*words)) is not None:
                raise click.ClickException(
                    f"the units are in place, and `systemctl --user {' '.join(words)}` says: {why}. It needs a login "
                    "with a systemd of its own (ssh; not su or sudo)"
                )
        click.echo(f"systemd listens at {config.socket_path(config.runtime_folders()[0])}")
    _tell_of_lingering()


def _put(folder: str, units: dict[str, str], force: bool) -> None:
    found = {name: _found(os.path.join(folder, name)) for name in units}
    foreign = [name for name, text in found.items() if text is not None and not _is_ours(name, text)]
    if foreign and not force:
        raise click.ClickException(
            f"{os.path.join(folder, foreign[0])} is there, and not of this command's making. Nothing was changed: move "
            "it away, or replace it with --force"
        )
    os.makedirs(folder, exist_ok=True)
    for name, text in units.items():
        path = os.path.join(folder, name)
        if found[name] == text:
            click.echo(f"{path} is in place")
        else:
            _write(path, text)
            click.echo(f"{path} is written")


def _tell_of_lingering() -> None:
    with contextlib.suppress(KeyError, OSError):
        if os.path.exists(os.path.join(_LINGERING, getpass.getuser())):
            return
    click.echo(
        "When you log out for the last time, systemd ends your services, the agent among them. So that it stays, also "
        "for jobs that go on, and starts with the machine:\n  loginctl enable-linger"
    )


@click.command()
def uninstall() -> None:
    """Remove what `install` has put in place. An agent that systemd runs is stopped first; nothing is lost.

    \b
    Example:
      dreamlake agent uninstall
    """
    folder = _folder()
    ours = []
    for name in _NAMES:
        text = _found(os.path.join(folder, name))
        if text is None:
            continue
        if _is_ours(name, text):
            ours.append(name)
        else:
            click.echo(f"{os.path.join(folder, name)} is left alone: `dreamlake agent install` has not written it")
    if not ours:
        click.echo("no unit is installed")
        return
    why = _systemctl("disable", "--now", *ours) if shutil.which("systemctl") else "there is no systemd here"
    try:
        for name in ours:
            for wanted in ("sockets", "default"):  # where systemd does not run, nobody else removes these
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, f"{wanted}.target.wants", name))
            os.unlink(os.path.join(folder, name))
            click.echo(f"{os.path.join(folder, name)} is removed")
    except OSError as error:
        raise click.ClickException(f"cannot remove it: {error.strerror}: {error.filename}") from None
    if why is None:
        _systemctl("daemon-reload")
    else:
        click.echo(f"systemd was not told ({why}). Where it runs: systemctl --user daemon-reload")
