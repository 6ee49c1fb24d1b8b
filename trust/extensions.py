"""Plugins that raise, in any hook, are named with the hook, and take down only the run that uses them."""

from __future__ import annotations

import shutil
from pathlib import Path

from paramtrans.plugins import hookspecs
from trust.checks import Count, Setting
from trust.runs import Shell, undisturbed

HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("paramtrans_"))
ERRORS = ("ValueError('no room')", "SystemExit('no room')", "KeyError('no room')", "RecursionError('no room')")
PLUGIN = """
from paramtrans import hookimpl

@hookimpl
def {hook}():
    raise {error}
"""
OTHER_HOOKS = PLUGIN + "\nPARAMTRANS_HOOK_VERSION = 99\n"


def broken_hooks(setting: Setting, count: Count) -> None:
    """Each hook raises, in a plugin file given to a run; the message names file, hook and error."""
    undisturbed(setting.folder.parent / "undisturbed")  # so that forks need not import
    for trial in range(setting.trials):
        hook, error = HOOKS[trial % len(HOOKS)], ERRORS[trial // len(HOOKS) % len(ERRORS)]
        shell = Shell(setting.folder / f"trial-{trial}")
        plugin = _file(shell.path, PLUGIN.format(hook=hook, error=error))
        ended = shell.do("--plugin", str(plugin))
        problems = []
        if ended.status not in ((2,) if _is_lifecycle(hook) else (0, 2)):
            problems.append(f"ended with {ended.status}")
        if ended.status == 2:
            problems += ended.refused()
            problems += [f"{word} is not named" for word in (hook, str(plugin), "no room") if word not in ended.err]
        good = shell.do(run="without")
        problems += [f"a run without it ended with {good.status}"] if good.status != 0 else []
        count.add(f"{hook} raises {error}", problems)
        shutil.rmtree(shell.path)


def other_hook_versions(setting: Setting, count: Count) -> None:
    """A plugin written for other hooks is refused, both versions named; a run without it is not disturbed."""
    undisturbed(setting.folder.parent / "undisturbed")
    for hook in HOOKS[: setting.trials]:
        shell = Shell(setting.folder / hook)
        ended = shell.do("--plugin", str(_file(shell.path, OTHER_HOOKS.format(hook=hook, error="ValueError"))))
        problems = ended.refused()
        if f"version 99, this paramtrans has {hookspecs.HOOK_VERSION}" not in ended.err:
            problems.append(f"versions are not named: {ended.err!r}")
        count.add(hook, problems)


def _is_lifecycle(hook: str) -> bool:
    return "run" in getattr(hookspecs, hook).__annotations__


def _file(folder: Path, code: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "acme.py").write_text(code)
    return folder / "acme.py"
