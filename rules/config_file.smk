# Before Snakemake reads config.yaml: where that cannot be read, one line that says where, and exit code 2.

import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from headstrong.workflow import check_config_file

if workflow.is_main_process:
    check_config_file("config.yaml")
