"""The commands of paramtrans itself, announced like anyone's."""

from paramtrans.api.specs import Component
from paramtrans.plugins.hookspecs import hookimpl


@hookimpl
def paramtrans_commands() -> list[Component]:
    """The commands, each by its import string."""
    return [
        Component("run", "Run a config: zoo, translator, table, report.", "paramtrans.cli.run:run"),
        Component("compare", "Put finished runs side by side.", "paramtrans.cli.compare:compare"),
        Component("zoo", "Look into zoos; take them out and in as safetensors.", "paramtrans.cli.zoo:zoo"),
        Component(
            "diagnose", "Say why the blocks of a run are as good as they are.", "paramtrans.cli.diagnose:diagnose"
        ),
        Component("inspect", "List what of a network can become smaller.", "paramtrans.cli.inspect:inspect"),
        Component("translate", "Make a network smaller.", "paramtrans.cli.translate:translate"),
        Component("explore", "Compare widths of a network, to choose one.", "paramtrans.cli.explore:explore"),
        Component("plugins", "List every component and who provides it.", "paramtrans.cli.list_plugins:plugins"),
        Component("check", "Check a component against what its kind promises.", "paramtrans.cli.check:check"),
        Component("new", "Write the beginning of a plugin.", "paramtrans.cli.new:new"),
    ]
