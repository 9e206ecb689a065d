"""Write config.yaml: the whole configuration of a study, with everything filled in.

Run records carry the digest of this file.
"""

import sys
from pathlib import Path

import yaml

from headstrong import program
from headstrong.configfiles import as_yaml, parse
from headstrong.errors import ConfigError
from headstrong.provenance import RunRecord, write_atomically
from headstrong.stages import stage_code


def main(arguments):
    config = parse(read_yaml(arguments.settings))
    facts = {"code": stage_code("write_config"), "outputs": [arguments.output]}
    with RunRecord(arguments.output.with_name("write_config.json"), **facts):
        write_atomically(arguments.output, as_yaml(config))


def read_yaml(path):
    """The configuration in the YAML file that --settings names; ConfigError where it is not keys and values."""
    text = program.read_text("--settings", path)
    try:
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        said = " ".join(str(error).split())  # values that YAML has a type for, as dates, raise Python's own errors
        raise ConfigError(f"--settings {path}: expected YAML: {said[:200]}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"--settings {path}: expected keys and values in YAML, found a {type(settings).__name__}")
    return settings


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE", help="YAML with the configuration")
    parser.add_argument("--output", type=Path, required=True, help="the YAML to write")
    sys.exit(program.run(main, parser))
