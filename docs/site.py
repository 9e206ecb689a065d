"""What mkdocs is told beside mkdocs.yml: the pages of the reference, the figures, and files that lie beside docs/.

`python docs/site.py > docs/gallery.md` writes the gallery. A page is written so that its links work where it lies.
Those that leave docs/ for a file that the site has as well are changed here; no page links to code, which it has not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Floor by floor, from the top: title, what it is, and its modules. "attacks" is the package with all that is in it.
FLOORS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "commands": (
        "Commands and provenance",
        "What a person types, and where results come from.",
        (
            "cli", "workflow", "failures", "doctor", "why", "crate", "kinds", "run_times", "lineage", "stages",
            "warm_server", "warm",
        ),
    ),
    "report": ("Report", "The page that people look at. It reads tables, never tensors.", ("report",)),
    "figures": ("Figures", "One module per figure. Figures read tables, never tensors.", ("figures",)),
    "analysis": ("Analysis", "From per-image files to tables, claims and the audit, without torch.", ("analysis",)),
    "evaluation": (
        "Evaluation",
        "All attacks on one model, into one HDF5 file of numbers per image.",
        (
            "evaluation", "pictured", "generated", "generator_timing", "generated_bench", "generated_files",
            "importance", "hidden_evaluation", "hidden_attackers", "hidden_measures", "hidden_views", "feature_files",
            "victims", "sanity", "gradients", "folding",
        ),
    ),
    "training": (
        "Training",
        "One model, with checkpoints from which a killed training goes on.",
        (
            "training", "training_checks", "training_losses", "adversarial", "loop", "checkpoints",
            "classifier_training", "class_choice", "generator_training", "forgetting",
        ),
    ),
    "attacks": ("Attacks", "An attack is a balancer, a stepper and a threat.", ("attacks",)),
    "models": ("Models", "Encoders, decoders, branched networks, SegNet and MTAN, generators.", ("models",)),
    "losses": (
        "Losses and metrics",
        "Per image and masked.",
        ("losses", "class_losses", "metrics", "measures", "confusion"),
    ),
    "data": ("Data", "Embedded rooms and objects, readers of real data sets, and the cache.", ("data",)),
    "study": (
        "Study and configuration",
        "What is to be trained and attacked, and how it is checked. None of it loads torch.",
        (
            "study", "config", "configfiles", "configchecks", "attackconfig", "attackplan", "scheduleconfig",
            "generatorconfig", "generatorplan", "importanceconfig", "importanceplan", "hiddenconfig", "hiddenplan",
            "pictureconfig", "protocol", "layouts", "scale", "tasks", "radius", "jobs", "published",
        ),
    ),
    "ground": (
        "Ground floor",
        "Digests, seeds, devices, locks and errors, which everything stands on.",
        (
            "provenance", "seeds", "picturelabels", "learned", "jobfiles", "devices", "runtime", "gpulocks", "gpus",
            "machine", "program", "progress", "locks", "vouching", "refusals", "errors",
        ),
    ),
}  # fmt: skip


def reference(floor: str) -> str:
    """The page of a floor: every module of it with its public functions and classes, from their docstrings."""
    title, text, modules = FLOORS[floor]
    parts = [f"# {title}", text]
    for module in modules:
        package = (ROOT / "src" / "headstrong" / module).is_dir()
        parts.append(f"::: headstrong.{module}\n    options:\n      show_submodules: {str(package).lower()}")
    return "\n\n".join(parts) + "\n"


def gallery() -> str:
    """The page of figures: those of results/reference, with the captions that were drawn with them."""
    studies = sorted(path.parent for path in ROOT.glob("results/reference/*/figures/index.json"))
    studies.sort(key=lambda folder: folder.parent.name != "quick")  # the default study first
    parts = [
        "# Gallery",
        "<!-- Made by `python docs/site.py > docs/gallery.md`; do not edit. -->",
        "Figures of finished studies, as `results/reference` holds them, with the captions that were drawn with them. "
        "All pictures are of embedded data; of photographs only numbers are shown.",
    ]
    for folder in studies:
        parts.append(f"## {folder.parent.name}")
        for figure in json.loads((folder / "index.json").read_text()):
            image = folder / f"{figure['stem']}.png"
            if image.is_file():
                parts.append(f"### {folder.parent.name}: {figure['title']}")
                parts.append(f"![{figure['title']}](../{image.relative_to(ROOT).as_posix()})")
                parts.append(f"{figure['caption']} Drawn by `{figure['module']}`.")
    return "\n\n".join(parts) + "\n"


def home() -> str:
    """The first page of the site: the README, whose links lead into docs/."""
    readme = (ROOT / "README.md").read_text()
    return readme.replace("](docs/", "](").replace("](results/reference/README.md)", "](gallery.md)")


def on_files(files: Any, config: Any) -> Any:
    """Add what does not lie in docs/: the reference, the changelog, figures and the README's picture of the report."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "index.md", content=home()))
    for floor in FLOORS:
        files.append(File.generated(config, f"reference/{floor}.md", content=reference(floor)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(ROOT / "CHANGELOG.md")))
    for figure in sorted(ROOT.glob("results/reference/*/figures/*.png")):
        files.append(File.generated(config, figure.relative_to(ROOT).as_posix(), abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that leave docs/ for a figure or the changelog stay on the site."""
    return markdown.replace("](../results/reference/", "](results/reference/").replace(
        "](../CHANGELOG.md)", "](changelog.md)"
    )


if __name__ == "__main__":
    sys.stdout.write(gallery())
