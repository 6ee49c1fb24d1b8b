"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_architectures() -> list[Component]:
    package = "paramtrans_architectures"
    return [
        Component("torchvision", "torchvision:resnet18 and its like", f"{package}.vision:Torchvision"),
        Component("timm", "timm:resnet18 and its like", f"{package}.image_models:Timm"),
        Component("hf", "models of transformers by their folder, hf:FOLDER", f"{package}.hugging_face:HuggingFace"),
        Component("export", "programs of torch.export, export:FILE.pt2", f"{package}.exported:ExportedPrograms"),
        Component("task", "hosts of a task, such as task:mnist:basic_block", f"{package}.hosts:TaskHosts"),
    ]
