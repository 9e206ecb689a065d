"""What the files of a study are called, in words, by the rule that makes them."""

from __future__ import annotations

from pathlib import PurePosixPath

from headstrong.lineage import Record

# By rule: the noun for what one job leaves, and its plural. None: every file counts for itself.
_NOUNS = {
    "write_config": ("configuration", "configurations"),
    "write_plan": ("plan", "plans"),
    "build_data": ("data cache", "data caches"),
    "build_pictures": ("picture cache", "picture caches"),
    "train_model": ("trained model", "trained models"),
    "train_classifier": ("trained classifier", "trained classifiers"),
    "train_generator": ("trained generator", "trained generators"),
    "forget_task": ("copy that forgot a task", "copies that forgot a task"),
    "evaluate_model": ("evaluation", "evaluations"),
    "evaluate_generators": ("evaluation of generators", "evaluations of generators"),
    "evaluate_hidden": ("evaluation of a hidden task", "evaluations of hidden tasks"),
    "evaluate_importance": ("evaluation of important classes", "evaluations of important classes"),
    "choose_classes": ("choice of important classes", "choices of important classes"),
    "time_generators": ("timing of generators", "timings of generators"),
    "picture_attacks": ("set of pictures under attack", "sets of pictures under attack"),
    "draw_figures": ("set of figures", "sets of figures"),
    "make_report": ("report", "reports"),
}
_TABLES = ("measure_", "collect_", "make_tables", "judge_claims")


def group_in_words(rule: str, files: int, jobs: int) -> str:
    """What a number of inputs of one rule are: "36 evaluations", "1 trained model", "4 tables"."""
    if rule.startswith(_TABLES):
        return _counted(files, "table", "tables")
    if rule not in _NOUNS:
        return _counted(files, "file", "files")
    return _counted(jobs, *_NOUNS[rule])


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def file_in_words(record: Record, name: str) -> str:
    """What one file is, whose path below its study's folder is `name`."""
    path = PurePosixPath(name)
    of = _subject(record)
    if name.endswith(".manifest.json"):
        return f"manifest of a data file: what it was made of{of}"
    if record.rule.startswith(_TABLES):
        return f"table {path.stem}"
    if record.rule in ("draw_figures",):
        return {"index.json": "captions of the figures", "figures": "all figures"}.get(path.name, f"figure {path.stem}")
    if record.rule == "choose_classes" and path.suffix == ".csv":
        return f"recall of every class{of}"
    if path.name == "history.csv":
        return f"losses by epoch{of}"
    if path.stem.startswith("epoch-"):
        return f"weights of a trained model{of}, after epoch {path.stem.removeprefix('epoch-')}"
    if path.parts[0] == "perturbations":
        return "universal perturbations" if path.suffix != ".npy" else f"universal perturbation of {path.stem}"
    noun = _NOUNS.get(record.rule, ("result", ""))[0]
    return f"weights of a {noun}{of}" if path.suffix == ".safetensors" else f"{noun}{of}"


def _subject(record: Record) -> str:
    """ " <id>" of what the job was about, "" where it has none."""
    job = record.job
    name = next((str(job[key]) for key in ("id", "family") if key in job), "")
    source = "folder" if "folder" in job else "source"  # a folder of one's own is called by its name
    split = " ".join(str(job[key]) for key in (source, "domain", "split") if key in job)
    return f" {name or split}" if name or split else ""
